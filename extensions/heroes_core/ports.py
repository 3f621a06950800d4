"""What core needs from others."""

from __future__ import annotations

from typing import Protocol

from heroes_core.work import Caller


class IdentityProvider(Protocol):
    """Tells who holds a token: the embedded directory now, a hub or Keycloak elsewhere."""

    def remembered(self, token: str) -> Caller | None:
        """The caller, if this process asked not long ago; never blocks."""

    def identify(self, token: str) -> Caller:
        """The caller, with the rights of this moment; NotSignedIn says whether it is unknown, expired or revoked."""
