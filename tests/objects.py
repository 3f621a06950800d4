"""Object stores for tests: the files of the embedded one, and the real embedded S3 server on a free port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heroes_data.disk import DiskStore
from heroes_data.embedded import EmbeddedServer

RCLONE = str(Path(sys.executable).with_name("rclone"))


def disk_store(folder: Path) -> DiskStore:
    """A store of plain files, whose signed addresses lead to no server."""
    return EmbeddedServer(folder, "http://store").store()


@contextmanager
def serve_objects(folder: Path) -> Iterator[EmbeddedServer]:
    """Run the embedded server, on a port that it chooses, until the block ends."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    argv = EmbeddedServer(folder, "http://nowhere").argv(RCLONE, "127.0.0.1:0")
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(argv, stderr=log, stdout=log, env=environment)
    try:
        yield EmbeddedServer(folder, _address(folder / "serve.log", process))
    finally:
        process.terminate()
        process.wait(20)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while True:
        told = re.search(r"Starting s3 server on \[(http://127.0.0.1:\d+)/\]", log.read_text())
        if told:
            return told[1]
        assert process.poll() is None, f"the server ended: {log.read_text()}"
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.02)
