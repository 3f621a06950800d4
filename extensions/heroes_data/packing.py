"""Many small objects as one tar stream: fetched side by side, packed in order, their MD5 taken on the way."""

from __future__ import annotations

import hashlib
import tarfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

from heroes.api.errors import HeroesError
from heroes_data.model import changed
from heroes_data.ports import ObjectStore
from heroes_spawners.site import TarSink

#: Bytes up to which an object is small: many of them are held at once.
SMALL = 2**20
_THREADS = 8
#: Objects fetched ahead, and bytes gathered before they are sent.
_AHEAD = 48
_SEND = 2**18
_BLOCK = tarfile.BLOCKSIZE


def pack(
    objects: ObjectStore,
    organisation: str,
    bucket: str,
    sizes: Mapping[str, int],
    folders: Iterable[str],
    sink: TarSink,
) -> Iterator[tuple[str, str]]:
    """Send folders, then the objects with these keys and sizes; yields each key and the MD5 of what was sent.

    Every folder that something is put into has to be among `folders`: tar makes a real folder of it where a job left a
    link, which would lead what comes after out of the user's data. NotFound when an object has another size than it
    should. The stream is always brought to an end."""
    buffer = _Buffer(sink)
    finished = False
    try:
        for folder in folders:
            buffer.add(_header(f"{folder}/", tarfile.DIRTYPE, 0, 0o755))
        for key, content in _contents(objects, organisation, bucket, sizes):
            if len(content) != sizes[key]:
                raise changed(bucket, key)
            _add(buffer, key, content)
            yield key, hashlib.md5(content, usedforsecurity=False).hexdigest()
        buffer.add(bytes(2 * _BLOCK))
        buffer.flush()
        finished = True
        sink.finish()
    finally:
        if not finished:
            with suppress(HeroesError):  # the reason why it was not finished is the one to tell
                sink.finish()


class _Buffer:
    """Gathers small writes."""

    def __init__(self, sink: TarSink) -> None:
        self._sink = sink
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= _SEND:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._sink.write(bytes(self._held))
            self._held.clear()


def parents(keys: Iterable[str]) -> list[str]:
    """The folders of keys, each after those that it lies in."""
    found: set[str] = set()
    for key in keys:
        folder = key
        while (folder := folder.rpartition("/")[0]) and folder not in found:
            found.add(folder)
    return sorted(found)


def _header(name: str, kind: bytes, size: int, mode: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.type, header.size, header.mode, header.mtime = kind, size, mode, int(time.time())
    return header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _add(buffer: _Buffer, key: str, content: bytes) -> None:
    buffer.add(_header(key, tarfile.REGTYPE, len(content), 0o644))
    buffer.add(content)
    buffer.add(bytes(-len(content) % _BLOCK))


def _contents(
    objects: ObjectStore, organisation: str, bucket: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """Each object's content in the order of `sizes`, read ahead by several threads."""
    waiting: deque[tuple[str, Future[bytes]]] = deque()
    keys = iter(sizes)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="pack") as pool:
        try:
            while True:
                for key in islice(keys, _AHEAD - len(waiting)):
                    waiting.append((key, pool.submit(_read, objects, organisation, bucket, key, sizes[key])))
                if not waiting:
                    return
                key, content = waiting.popleft()
                yield key, content.result()
        finally:
            for _, content in waiting:
                content.cancel()


def _read(objects: ObjectStore, organisation: str, bucket: str, key: str, size: int) -> bytes:
    """All of a small object, and a byte beyond if it is larger than it should be."""
    return b"".join(objects.get(organisation, bucket, key, length=size + 1))
