"""Who asks: the bearer of a token. Jupyter's identity provider and authorizer, as the API uses them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from jupyter_server.auth import Authorizer, IdentityProvider, User
from tornado import web

from heroes.api.errors import HeroesError
from heroes_core.work import Caller


@dataclass
class Known(User):
    """A user of Jupyter Server's that carries the caller."""

    caller: Caller | None = None


class TokenIdentity(IdentityProvider):
    """Who asks: the bearer of the token in the Authorization header; no cookies, so nothing to forge across sites."""

    def _token_default(self) -> str:
        """No token of the server's own."""
        return ""

    async def get_user(self, handler: web.RequestHandler) -> User | None:
        """The holder of the token; None without one. A bad token is remembered, to be answered by the operation."""
        runtime = handler.settings.get("heroes_runtime")
        scheme, _, token = handler.request.headers.get("Authorization", "").partition(" ")
        if runtime is None or scheme.lower() not in ("bearer", "token") or not token:
            return None
        caller = runtime.identity.remembered(token)
        if caller is None:
            try:
                caller = await asyncio.get_running_loop().run_in_executor(
                    runtime.pool, runtime.identity.identify, token.strip()
                )
            except HeroesError as error:
                handler.heroes_refusal = error  # type: ignore[attr-defined]
                return None
        return Known(username=caller.actor, caller=caller)

    def get_handlers(self) -> list[Any]:
        """No login page: signing in is an operation."""
        return []


class DenyAll(Authorizer):
    """Jupyter's own checks admit nobody; each operation admits by its own right."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Never."""
        return False
