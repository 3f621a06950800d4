"""The API as a process: `python -m heroes_hub.api FOLDER`."""

from __future__ import annotations

import logging
import os
import sys

from heroes_clusters.keys import Vault
from heroes_core import logs, module
from heroes_core.module import Services
from heroes_core.runtime import Runtime
from heroes_core.server import HeroesServer, make_server
from heroes_data.embedded import EmbeddedServer
from heroes_data.handlers import Data
from heroes_data.ports import ObjectStore
from heroes_hub.home import Home
from heroes_hub.platform import embedded_server, folder_argument, object_store
from heroes_hub.settings import Settings, load
from heroes_identity.handlers import Identity
from heroes_identity.provider import EmbeddedIdentityProvider
from heroes_jobs.rpc import Engines


def services_of(home: Home, settings: Settings) -> Services:
    """What the modules' functions need beside the database."""
    server = embedded_server(home, settings)
    objects = object_store(server, settings)
    services = Services(
        Identity(), Engines(home.secret("engine")), Vault(home.secret("accounts")), Data(objects, server)
    )
    services.offer(ObjectStore, objects)
    if server is not None:
        services.offer(EmbeddedServer, server)
    return services


def build(home: Home, settings: Settings) -> HeroesServer:
    """The server, ready to start."""
    database = home.database(settings, pool_size=settings.api.threads + 4)
    runtime = Runtime(
        database,
        EmbeddedIdentityProvider(database),
        services_of(home, settings),
        module.installed_modules(),
        threads=settings.api.threads,
    )
    return make_server(runtime, ip=settings.api.address, port=settings.api.port)


def main() -> int:
    """Serve until told to stop."""
    home = folder_argument()
    logs.set_up("heroes-api")
    server = build(home, load(home.settings_file))
    server.start()
    logging.shutdown()
    os._exit(0)  # a thread may wait for the rest of an upload for ever; whatever it has not committed is undone


if __name__ == "__main__":
    sys.exit(main())
