"""Progress bars on whatever lasts: in a terminal and in a notebook, silent elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from heroes.api.errors import Unavailable
from heroes.transport import CHUNK

if TYPE_CHECKING:
    from rich.progress import Progress


def is_shown() -> bool:
    """Whether somebody looks: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def bar(*, transfer: bool = False) -> Progress:
    """A progress display on standard error, to be used in a `with`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    amount = (DownloadColumn(), TransferSpeedColumn()) if transfer else ()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amount,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not is_shown(),
    )


@contextmanager
def read_file(path: Path) -> Iterator[Iterator[bytes]]:
    """The bytes of a file in parts, with a progress bar."""
    with path.open("rb") as stream, bar(transfer=True) as progress:
        task = progress.add_task(path.name, total=os.fstat(stream.fileno()).st_size)

        def parts() -> Iterator[bytes]:
            while part := stream.read(CHUNK):
                yield part
                progress.advance(task, len(part))

        yield parts()


def write_file(path: Path, parts: Iterable[bytes], size: int | None) -> int:
    """Write what comes to a file, which appears only when it is whole; its size in bytes."""
    fresh = path.with_name(f".{path.name}.part")
    written = 0
    try:
        with fresh.open("wb") as stream, bar(transfer=True) as progress:
            task = progress.add_task(path.name, total=size)
            for part in parts:
                written += stream.write(part)
                progress.advance(task, len(part))
        if size is not None and written != size:
            raise Unavailable(f"{path.name} was cut off after {written} of {size} bytes.", hint="Try again.")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return written
