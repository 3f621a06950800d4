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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from heroes.api.errors import HeroesError, InvalidSpec, LinkDown
from heroes_spawners.transport.base import Completed, quote
from heroes_spawners.transport.pool import Connection, Pool

CONNECT_S = 15.0
KEEPALIVE_S = 15
#: Seconds to wait when a server has no channel to spare.
REFUSED_S = 0.2
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
        with self._running(quote(argv), until) as channel:
            return _converse(channel, stdin, until, limit)

    def open(self, argv: Sequence[str], *, deadline_s: float) -> SshStream:
        """Start `argv` for a long input."""
        context = ExitStack()
        channel = context.enter_context(self._running(quote(argv), time.monotonic() + deadline_s))
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
    def _running(self, command: str, until: float) -> Iterator[paramiko.Channel]:
        """The channel of a command; a connection that fails or times out under it gets no further ones."""
        connection, channel = self._start(command, until)
        try:
            yield channel
        except (paramiko.SSHException, OSError, EOFError) as error:
            connection.retired = True
            raise self._down(error) from error
        except LinkDown:
            connection.retired = True
            raise
        finally:
            channel.close()
            self._pool.release(connection)

    def _start(self, command: str, until: float) -> tuple[Connection, paramiko.Channel]:
        """Start a command. A server that has too many for now refuses; nothing was started then, so ask again."""
        while True:
            connection = self._pool.lease(until)
            try:
                return connection, _begin(connection, command, until)
            except (paramiko.SSHException, OSError, EOFError) as error:
                late = isinstance(error, TimeoutError) or "Timeout" in str(error)
                refused = connection.transport.is_active() and not late
                connection.retired = connection.retired or not refused
                self._pool.release(connection)
                if not refused or time.monotonic() + REFUSED_S > until:
                    raise self._down(error) from error
                time.sleep(REFUSED_S)

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

    def __init__(self, context: ExitStack, channel: paramiko.Channel, deadline_s: float) -> None:
        self._context, self._channel, self._deadline_s = context, channel, deadline_s

    def write(self, data: bytes) -> None:
        """Send all of `data`; a command that has ended is told of by `finish`."""
        self._channel.settimeout(self._deadline_s)
        try:
            self._channel.sendall(data)
        except TimeoutError as error:
            self._context.close()
            raise LinkDown(f"nothing was taken for {self._deadline_s:g} s", hint="Try again.") from error
        except OSError:
            return

    def finish(self) -> Completed:
        """Close the command's input and wait for its end."""
        with self._context:
            return _converse(self._channel, b"", time.monotonic() + self._deadline_s, 1 << 20)


def _begin(connection: Connection, command: str, until: float) -> paramiko.Channel:
    """Open a channel and start `command` in it, waiting no longer than `until` (paramiko's own `exec_command` waits
    for ever). Raises TimeoutError, or SSHException when the server refuses: then nothing was started."""
    transport = connection.transport
    with connection.opening:  # paramiko keeps one exception for all threads of a connection
        channel = transport.open_session(timeout=max(0.1, until - time.monotonic()))
    request = paramiko.Message()
    request.add_byte(cMSG_CHANNEL_REQUEST)
    request.add_int(channel.remote_chanid)
    request.add_string("exec")
    request.add_boolean(True)
    request.add_string(command)
    channel._event_pending()  # type: ignore[attr-defined]
    transport._send_user_message(request)  # type: ignore[attr-defined]
    if not channel.event.wait(max(0.1, until - time.monotonic())):
        channel.close()
        raise TimeoutError("the command was not started in time")
    if not channel.event_ready:
        raise paramiko.SSHException("the server did not start the command")
    return channel


def _converse(channel: paramiko.Channel, stdin: bytes, until: float, limit: int) -> Completed:
    """Write `stdin` and read both outputs at once, until the command ends."""
    pending, out, err = memoryview(stdin), bytearray(), bytearray()
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    if not pending:
        _close_input(channel)
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
        _close_input(channel)
    return pending, True


def _close_input(channel: paramiko.Channel) -> None:
    """Tell the command that its input ends. paramiko's `shutdown_write` lets go of its lock before it sends, so that
    the end can follow the answer to a close; OpenSSH then drops the whole connection."""
    with channel.lock:
        message = channel._send_eof()  # type: ignore[attr-defined]
        if message is not None:
            channel.transport._send_user_message(message)  # type: ignore[union-attr]


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
    # The server counts a session until both ends have closed it: closing comes right after the status.
    patience = min(until, time.monotonic() + 1.0)
    while not channel.closed and time.monotonic() < patience:
        time.sleep(0.0005)
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
