"""Commands over SSH: pooled connections, a pinned host key, a deadline on every call, bounded output.

OpenSSH admits ten channels a connection (MaxSessions) and starts to refuse connections that come in a burst
(MaxStartups): here at most eight, and four new connections a second.
"""

from __future__ import annotations

import base64
import hashlib
import io
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from heroes.api.errors import HeroesError, InvalidSpec, LinkDown

from heroes_spawners.transport.base import Completed, quote
from heroes_spawners.transport.pool import Connection, Pool

CONNECT_S = 15.0
KEEPALIVE_S = 15
_CHUNK = 65536


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom: `host_key` is the pinned public key as in known_hosts ("ssh-ed25519 AAAA…"), `private_key`
    an OpenSSH private key as text."""

    host: str
    user: str
    host_key: str
    private_key: str = field(repr=False)
    port: int = 22

    def __post_init__(self) -> None:
        for name, value in (("host", self.host), ("user", self.user)):
            if not value or value.startswith("-") or not all(char.isalnum() or char in ".:_-" for char in value):
                hint = "Use letters, digits, '.', '_' and '-' only."
                raise InvalidSpec(f"{value!r} cannot be the {name} of a cluster", hint=hint)


class SshTransport:
    """Runs commands at one login node."""

    def __init__(self, endpoint: Endpoint, *, connections: int = 4) -> None:
        self._endpoint = endpoint
        self._pool = Pool(self._connect, connections)
        self._folder: Path | None = None

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, deadline_s: float, limit: int) -> Completed:
        """Run `argv` and wait. The command may go on after `LinkDown`."""
        until = time.monotonic() + deadline_s
        command = quote(argv)
        with self._channel(until) as channel:
            channel.exec_command(command)
            return _converse(channel, stdin, until, limit)

    def open(self, argv: Sequence[str], *, deadline_s: float) -> SshStream:
        """Start `argv` for a long input."""
        context = self._channel(time.monotonic() + deadline_s)
        command, channel = quote(argv), context.__enter__()
        try:
            channel.exec_command(command)
        except BaseException as error:
            context.__exit__(type(error), error, error.__traceback__)
            raise
        return SshStream(context, channel, deadline_s)

    def remote(self) -> Mapping[str, str]:
        """rclone's sftp settings; the key as its `key_pem` wants it, host keys by file."""
        endpoint = self._endpoint
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="heroes-known-hosts-"))
            (self._folder / "known_hosts").write_text(f"{_host_name(endpoint)} {endpoint.host_key}\n")
        return {
            "type": "sftp",
            "host": endpoint.host,
            "port": str(endpoint.port),
            "user": endpoint.user,
            "key_pem": endpoint.private_key.strip().replace("\n", "\\n"),
            "known_hosts_file": str(self._folder / "known_hosts"),
            "shell_type": "unix",
        }

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @contextmanager
    def _channel(self, until: float) -> Iterator[paramiko.Channel]:
        """A session channel; a connection that fails or times out under it gets no further ones."""
        connection = self._pool.lease(until)
        channel = None
        try:
            channel = connection.transport.open_session(timeout=max(0.1, until - time.monotonic()))
            channel.settimeout(max(0.1, until - time.monotonic()))
            yield channel
        except (paramiko.SSHException, OSError, EOFError, TimeoutError) as error:
            connection.retired = True
            raise self._down(error) from error
        except LinkDown:
            connection.retired = True
            raise
        finally:
            if channel is not None:
                channel.close()
            self._pool.release(connection)

    def _connect(self, until: float) -> Connection:
        patience = max(0.1, min(CONNECT_S, until - time.monotonic()))
        transport = None
        try:
            transport = _greet(self._endpoint.host, self._endpoint.port, patience, self._endpoint.host_key)
            transport.auth_timeout = patience
            self._authenticate(transport)
            transport.set_keepalive(KEEPALIVE_S)
        except (paramiko.SSHException, OSError, EOFError, HeroesError) as error:
            if transport is not None:
                transport.close()
            raise (error if isinstance(error, HeroesError) else self._down(error)) from error
        return Connection(transport)

    def _authenticate(self, transport: paramiko.Transport) -> None:
        """Check the pinned host key first: a host that is not ours learns nothing and gets no command."""
        found, pinned = transport.get_remote_server_key(), self._endpoint.host_key.split()[:2]
        if [found.get_name(), found.get_base64()] != pinned:
            hint = "Ask the centre whether it changed its host key; if it did, enrol the cluster's new key."
            shown = f"{self._endpoint.host}:{self._endpoint.port} shows the host key {fingerprint(_known(found))}"
            raise LinkDown(f"{shown}, which is not the pinned one", hint=hint)
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(self._endpoint.private_key))
        transport.auth_publickey(self._endpoint.user, key)

    def _down(self, error: BaseException) -> LinkDown:
        place = f"{self._endpoint.user}@{self._endpoint.host}:{self._endpoint.port}"
        told = str(error) or type(error).__name__
        if isinstance(error, paramiko.AuthenticationException):
            return LinkDown(f"{place} refuses our key", hint="Install the service account's public key there.")
        return LinkDown(f"{place} cannot be reached: {told}", hint="Try again when the centre is reachable.")


class SshStream:
    """The input of a remote command."""

    def __init__(self, context: object, channel: paramiko.Channel, deadline_s: float) -> None:
        self._context, self._channel, self._deadline_s = context, channel, deadline_s

    def write(self, data: bytes) -> None:
        """Send all of `data`; a command that has ended is told of by `finish`."""
        self._channel.settimeout(self._deadline_s)
        try:
            self._channel.sendall(data)
        except TimeoutError as error:
            self._leave(error)
            raise LinkDown(f"nothing was taken for {self._deadline_s:g} s", hint="Try again.") from error
        except OSError:
            return

    def finish(self) -> Completed:
        """Close the command's input and wait for its end."""
        try:
            completed = _converse(self._channel, b"", time.monotonic() + self._deadline_s, 1 << 20)
        except BaseException as error:
            self._leave(error)
            raise
        self._leave(None)
        return completed

    def _leave(self, error: BaseException | None) -> None:
        leave = getattr(self._context, "__exit__")  # noqa: B009
        with suppress(LinkDown):
            leave(type(error) if error else None, error, None)


def _converse(channel: paramiko.Channel, stdin: bytes, until: float, limit: int) -> Completed:
    """Write `stdin` and read both outputs at once, until the command ends."""
    pending, out, err = memoryview(stdin), bytearray(), bytearray()
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    if not pending:
        channel.shutdown_write()
    while True:
        ended = channel.eof_received or channel.closed
        pending, sent = _send(channel, pending)
        got = _receive(channel, out, err)
        if len(out) > limit or len(err) > limit:
            raise LinkDown(f"the command answered more than {limit} bytes", hint="Ask for less.")
        if ended and not got:
            break
        left = until - time.monotonic()
        if left <= 0:
            raise LinkDown("the command did not answer in time", hint="It may have happened: ask before retrying.")
        if not (sent or got or ended):
            poller.poll(min(left, 0.02 if pending else left) * 1000)
    return Completed(_exit_status(channel, until), bytes(out), bytes(err))


def _send(channel: paramiko.Channel, pending: memoryview) -> tuple[memoryview, bool]:
    """Send what the remote end takes now; its input is closed after the last byte."""
    if not pending or not channel.send_ready():
        return pending, False
    try:
        pending = pending[channel.send(bytes(pending[:_CHUNK])) :]
    except OSError:
        return memoryview(b""), False
    if not pending:
        channel.shutdown_write()
    return pending, True


def _receive(channel: paramiko.Channel, out: bytearray, err: bytearray) -> bool:
    got = False
    if channel.recv_ready():
        out += channel.recv(_CHUNK)
        got = True
    if channel.recv_stderr_ready():
        err += channel.recv_stderr(_CHUNK)
        got = True
    return got


def _exit_status(channel: paramiko.Channel, until: float) -> int:
    """The exit status; a command whose end nobody told of is a lost link."""
    if not channel.status_event.wait(max(0.0, until - time.monotonic())) or channel.exit_status < 0:
        raise LinkDown("the connection ended before the command did", hint="Ask what happened before retrying.")
    return channel.exit_status


def _greet(host: str, port: int, patience: float, host_key: str = "") -> paramiko.Transport:
    """A connection up to the host's key, asking for the kind of key that is pinned."""
    link = socket.create_connection((host, port), timeout=patience)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3 * KEEPALIVE_S * 1000)
    transport = paramiko.Transport(link)
    transport.banner_timeout = patience
    kind = host_key.split(" ", 1)[0]
    if kind:
        names = ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
        known = transport.get_security_options().key_types
        transport.get_security_options().key_types = [name for name in names if name in known] or known
    try:
        transport.start_client(timeout=patience)
    except BaseException:
        transport.close()
        raise
    return transport


def fetch_host_key(host: str, port: int = 22) -> str:
    """The key that a host shows now, as in known_hosts, for an administrator to compare. Nothing else is sent."""
    try:
        transport = _greet(host, port, CONNECT_S)
    except (paramiko.SSHException, OSError, EOFError) as error:
        hint = "Check name, port and the centre's firewall."
        raise LinkDown(f"{host}:{port} cannot be reached: {error}", hint=hint) from error
    try:
        return _known(transport.get_remote_server_key())
    finally:
        transport.close()


def fingerprint(host_key: str) -> str:
    """ "SHA256:…" of a public key line, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _known(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _host_name(endpoint: Endpoint) -> str:
    return endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
