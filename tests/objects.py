"""Object stores for tests: objects as plain files in a folder, and the real embedded server on a free port."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from heroes.api.errors import Conflict, NotFound
from heroes_data.embedded import EmbeddedServer
from heroes_data.model import ObjectInfo, ObjectPage

RCLONE = str(Path(sys.executable).with_name("rclone"))


class FolderStore:
    """Implements `heroes_data.ports.ObjectStore` over `<root>/<organisation>/<bucket>/<key>`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def make_bucket(self, organisation: str, bucket: str) -> None:
        """Make a folder."""
        (self._root / organisation / bucket).mkdir(parents=True, exist_ok=True)

    def remove_bucket(self, organisation: str, bucket: str) -> None:
        """Remove an empty one."""
        folder = self._bucket(organisation, bucket)
        if any(folder.rglob("*")):
            raise Conflict(f"{bucket} is not empty")
        folder.rmdir()

    def listing(
        self, organisation: str, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, flat: bool = True
    ) -> ObjectPage:
        """Walk the folder."""
        root = self._bucket(organisation, bucket)
        keys = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        found: dict[str, str | None] = {}
        for key in keys:
            if key.startswith(prefix):
                below, slash, _ = key[len(prefix) :].partition("/")
                name = prefix + below + slash if slash and not flat else key
                if name > after:
                    found[name] = None if name.endswith("/") else key
        names = list(found)[:limit]
        return ObjectPage(
            tuple(self.stat(organisation, bucket, name) for name in names if found[name]),
            tuple(name for name in names if not found[name]),
            names[-1] if len(found) > limit else None,
        )

    def stat(self, organisation: str, bucket: str, key: str) -> ObjectInfo:
        """Look at the file."""
        path = self._bucket(organisation, bucket) / key
        if not path.is_file():
            raise NotFound(f"There is no object {key} in the bucket {bucket}.")
        content = path.read_bytes()
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return ObjectInfo(key, len(content), etag, datetime.fromtimestamp(path.stat().st_mtime, UTC))

    def put(self, organisation: str, bucket: str, key: str, parts: Iterable[bytes]) -> ObjectInfo:
        """Write a file beside, then rename it."""
        path = self._bucket(organisation, bucket) / key
        unfinished = self._root / f".{secrets.token_hex(8)}"
        try:
            with unfinished.open("wb") as stream:
                stream.writelines(parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return self.stat(organisation, bucket, key)

    def get(
        self, organisation: str, bucket: str, key: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """Read the file."""
        self.stat(organisation, bucket, key)
        content = (self._bucket(organisation, bucket) / key).read_bytes()
        return iter([content[offset:][:length]])

    def delete(self, organisation: str, bucket: str, key: str) -> None:
        """Remove the file, and folders that it leaves empty."""
        root = self._bucket(organisation, bucket)
        path = root / key
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == root or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()

    def sign(self, organisation: str, bucket: str, key: str, method: str, seconds: int, now: datetime) -> str:
        """An address that says what it is for."""
        return f"folder://{organisation}/{bucket}/{key}?{method}&{seconds}"

    def remote(self, organisation: str) -> Mapping[str, str]:
        """The folder itself."""
        return {"type": "local", "root": str(self._root / organisation)}

    def _bucket(self, organisation: str, bucket: str) -> Path:
        folder = self._root / organisation / bucket
        if not folder.is_dir():
            raise NotFound(f"There is no bucket {bucket}.")
        return folder


@contextmanager
def serve_objects(folder: Path) -> Iterator[EmbeddedServer]:
    """Run the embedded server until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = EmbeddedServer(folder, f"http://{address}")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(server.argv(RCLONE, address), stderr=log, stdout=log, env=environment)
    try:
        _wait_for(address, process)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)
        else:
            return
