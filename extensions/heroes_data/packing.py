"""Many small objects as one tar stream: fetched side by side, packed in order, their MD5 taken on the way."""

from __future__ import annotations

import hashlib
import tarfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from heroes.api.errors import Conflict, HeroesError
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
    objects: ObjectStore, organisation: str, bucket: str, sizes: Mapping[str, int], sink: TarSink
) -> Iterator[tuple[str, str]]:
    """Send the objects with these keys and sizes; yields each key and the MD5 of what was sent.

    Conflict when an object has another size than it should. The stream is always brought to an end."""
    buffer = _Buffer(sink)
    finished = False
    try:
        for key, parts in _contents(objects, organisation, bucket, sizes):
            yield key, _add(buffer, bucket, key, sizes[key], parts)
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


def _add(buffer: _Buffer, bucket: str, key: str, size: int, parts: Iterator[bytes]) -> str:
    header = tarfile.TarInfo(key)
    header.size, header.mode = size, 0o644
    buffer.add(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
    digest, sent = hashlib.md5(usedforsecurity=False), 0
    for part in parts:
        sent += len(part)
        if sent > size:
            break
        digest.update(part)
        buffer.add(part)
    if sent != size:
        raise Conflict(
            f"{bucket}/{key} changed after the job was submitted.",
            hint="Submit again, so that it runs with what is there.",
        )
    buffer.add(bytes(-size % _BLOCK))
    return digest.hexdigest()


def _contents(
    objects: ObjectStore, organisation: str, bucket: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each object's content in the order of `sizes`: small ones are read ahead by several threads."""
    waiting: deque[tuple[str, Future[bytes] | None]] = deque()
    keys = iter(sizes)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="pack") as pool:
        try:
            for _ in range(_AHEAD):
                _ask_next(objects, organisation, bucket, sizes, keys, pool, waiting)
            while waiting:
                key, future = waiting.popleft()
                parts = iter([future.result()]) if future else objects.get(organisation, bucket, key)
                yield key, parts
                _ask_next(objects, organisation, bucket, sizes, keys, pool, waiting)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _ask_next(
    objects: ObjectStore,
    organisation: str,
    bucket: str,
    sizes: Mapping[str, int],
    keys: Iterator[str],
    pool: ThreadPoolExecutor,
    waiting: deque[tuple[str, Future[bytes] | None]],
) -> None:
    key = next(keys, None)
    if key is None:
        return
    small = sizes[key] <= SMALL
    waiting.append((key, pool.submit(_read, objects, organisation, bucket, key) if small else None))


def _read(objects: ObjectStore, organisation: str, bucket: str, key: str) -> bytes:
    """All of a small object, and a byte beyond if it is larger than it should be."""
    return b"".join(objects.get(organisation, bucket, key, length=SMALL + 1))
