"""A server for `tests.bench.api`: ours over a store with runs, or a bare Jupyter Server extension.

`python -m tests.bench._api_server heroes|bare FOLDER` prints port and token, and serves until it is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from heroes.api.ids import new_ulid
from heroes_core.migrate import upgrade
from heroes_core.module import Services, installed_modules
from heroes_core.runtime import Runtime
from heroes_core.server import make_server
from heroes_core.work import Database, Work
from heroes_identity import service as identity
from heroes_identity import tokens
from heroes_identity.model import NewPerson, Organisation, Passwords
from heroes_identity.provider import EmbeddedIdentityProvider
from heroes_workflows import store
from tests.bench.api import PATH, ROWS

CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)


def main(kind: str, folder: str) -> None:
    """Serve."""
    {"heroes": heroes, "bare": bare}[kind](Path(folder))


def heroes(folder: Path) -> None:
    """Our API over a SQLite store with a user's 1,000 runs."""
    database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"bench")
    upgrade(database)
    with database.write() as work:
        directory = identity.embedded(CHEAP)(work)
        identity.add_organisation(
            work,
            directory,
            "bench",
            Organisation("acme", "Acme", "client", "EUR", True, work.now),
            "admin",
            "a long secret",
        )
        directory.add_person(NewPerson("acme", "ada", password="a long secret"))
        directory.give_role("acme", "ada", "engineer")
        for _ in range(ROWS):
            _add_run(work, new_ulid())
        token = tokens.finish_sign_in(work, "acme", "ada").text
    provider = EmbeddedIdentityProvider(database)
    server = make_server(Runtime(database, provider, Services(), installed_modules()))
    server.io_loop.add_callback(lambda: print(server.bound_port, token, flush=True))
    server.start()


def _add_run(work: Work, identity_: str) -> None:
    run = {
        "id": identity_, "organisation": "acme", "user": "ada", "project": "", "template_organisation": "heroes",
        "template": "openfoam-cavity", "version": 3, "state": "done", "labels": {"study": "grid"},
        "parameters": {"cells": 80}, "inputs": {}, "objects": {}, "policy": "weighted", "decision": new_ulid(),
        "again_of": "", "place": "alpha/cpu",
        "created_at": work.now, "started_at": work.now, "ended_at": work.now, "currency": "EUR",
        "reserved": 2_500_000,
        "cost": 1_230_000, "joules": 4.2e5, "joules_doubt": 1e5, "energy_method": "model:cpu-time",
        "grams": 32.0, "jobs": 4, "jobs_ended": 4, "jobs_done": 4, "events": 21,
    }  # fmt: skip
    step = {"instance": identity_, "name": "solve", "position": 0, "needs": [], "jobs": 1, "started": 1}
    job = {
        "instance": identity_, "position": 0, "index": 0, "step": "solve", "attempt": new_ulid(), "state": "done",
        "phase": "done", "cluster": "alpha", "queue": "cpu", "reserved": 2_500_000, "grams_per_joule": 1e-4,
        "predicted": {}, "prefix": f"runs/{identity_}/solve/",
    }  # fmt: skip
    store.add(work, run, [step], [job])


def bare(folder: Path) -> None:
    """A Jupyter Server with one handler that authenticates and answers what ours answered."""
    from jupyter_server.base.handlers import APIHandler
    from jupyter_server.serverapp import ServerApp
    from tornado import web

    body = (folder / "answer.json").read_bytes()

    class Same(APIHandler):
        @web.authenticated
        def get(self) -> None:
            self.set_header("Content-Type", "application/json")
            self.finish(body)

    private = folder / "jupyter"
    private.mkdir()
    server = ServerApp(
        ip="127.0.0.1", port=0, open_browser=False, allow_root=True, root_dir=str(private), log_level=40,
    )  # fmt: skip
    server.initialize(argv=["--IdentityProvider.token=secret"], find_extensions=False)
    server.web_app.add_handlers(".*$", [(PATH.partition("?")[0], Same)])

    def tell() -> None:
        port = next(iter(server.http_server._sockets.values())).getsockname()[1]
        print(port, "secret", flush=True)

    server.io_loop.add_callback(tell)
    server.start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
