"""Ways to run a command at a site: here, or over SSH. Nobody else starts a remote process or quotes an argument."""

from heroes_spawners.transport.base import Command, Completed, Stream, Transport, check_argv, execute, quote
from heroes_spawners.transport.local import LocalTransport
from heroes_spawners.transport.ssh import Endpoint, SshTransport, fetch_host_key, fingerprint

__all__ = [
    "Command",
    "Completed",
    "Endpoint",
    "LocalTransport",
    "SshTransport",
    "Stream",
    "Transport",
    "check_argv",
    "execute",
    "fetch_host_key",
    "fingerprint",
    "quote",
]
