"""The API: a trimmed Jupyter Server that answers the operations of the installed modules, and nothing else.

Kernels, contents, terminals and every other default service of Jupyter Server are not there: those routes answer 404.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading

from jupyter_server.serverapp import ServerApp

from heroes_core.http import NothingHere, OperationHandler
from heroes_core.module import Bound
from heroes_core.runtime import Runtime
from heroes_core.tokens import DenyAll, TokenIdentity
from heroes_core.uploads import UploadHandler

_BODY_LIMIT = 16 * 2**20


def routes(runtime: Runtime) -> list[tuple[str, type[OperationHandler]]]:
    """One handler class for each path, literal paths before those with a placeholder; then the end of everything."""
    by_path: dict[str, dict[str, Bound]] = {}
    for module in runtime.modules:
        for bound in module.bound.values():
            by_path.setdefault(bound.operation.path, {})[bound.operation.method] = bound
    found: list[tuple[str, type[OperationHandler]]] = []
    for path in sorted(by_path, key=lambda each: (each.count("{"), each)):
        takes_uploads = any(bound.operation.upload for bound in by_path[path].values())
        base = UploadHandler if takes_uploads else OperationHandler
        pattern = re.sub(r"\\{([a-z_]+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
        found.append((pattern, type("Operations", (base,), {"bound": by_path[path], "runtime": runtime})))
    return [*found, (r".*", type("Nothing", (NothingHere,), {"runtime": runtime}))]


class HeroesServer(ServerApp):
    """Jupyter Server without any of its default services."""

    default_services = ()  # type: ignore[assignment]
    runtime: Runtime

    def init_signal(self) -> None:
        """A server in a thread of another program leaves that program's signals alone."""
        if threading.current_thread() is threading.main_thread():
            super().init_signal()

    @property
    def bound_port(self) -> int:
        """The port that it listens on, also when asked for any (0)."""
        return int(next(iter(self.http_server._sockets.values())).getsockname()[1])

    def init_webapp(self) -> None:
        """Put our routes before all others."""
        super().init_webapp()
        self.web_app.settings["heroes_runtime"] = self.runtime
        self.web_app.settings["log_function"] = lambda _handler: None
        self.web_app.add_handlers(r".*$", routes(self.runtime))  # type: ignore[no-untyped-call]


def make_server(runtime: Runtime, *, ip: str = "127.0.0.1", port: int = 0, sock: str = "") -> HeroesServer:
    """A server that listens on `port` of `ip`, or on the Unix socket `sock` (0600)."""
    private = tempfile.mkdtemp(prefix="heroes-api-")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        os.environ[name] = private
    os.environ["JUPYTER_NO_CONFIG"] = "1"
    server = HeroesServer(
        ip=ip, port=port, port_retries=0, sock=sock, sock_mode="0600", open_browser=False,
        answer_yes=True,
        allow_root=True, allow_remote_access=True, root_dir=private, max_body_size=_BODY_LIMIT,
        identity_provider_class=TokenIdentity, authorizer_class=DenyAll, allow_unauthenticated_access=False,
        tornado_settings={"xsrf_cookies": False}, log_level=logging.WARNING,
    )  # fmt: skip
    server.runtime = runtime
    server.initialize(argv=[], find_extensions=False)
    return server
