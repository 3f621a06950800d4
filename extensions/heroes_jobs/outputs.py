"""What a finished job left, against what was declared: which files go to the bucket, and what is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from heroes_jobs import endings
from heroes_jobs.model import OutputSpec
from heroes_spawners.site import Listing, SiteFile

#: The scheduler's output files as they stand among the results; always delivered, never matched by a glob.
STREAMS = ("stdout.txt", "stderr.txt")


@dataclass(frozen=True)
class Judged:
    """Files to deliver, bytes of them, the sentence for the user ("" where all is well), and what was left behind."""

    files: tuple[SiteFile, ...]
    size: int
    fault: str
    skipped: tuple[str, ...]


def judge(listing: Listing, outputs: Sequence[OutputSpec], max_bytes: int) -> Judged:
    """Everything regular is delivered, except what is larger than allowed: a file above its own cap, or all but the
    streams where the whole is above `max_bytes`."""
    large = _too_large(listing.files, outputs)
    kept = [file for file in listing.files if file.path not in large]
    total = sum(file.size for file in kept)
    over = [(path, size, cap) for path, (size, cap) in large.items()]
    if total > max_bytes:
        over.append(("the whole of it", total, max_bytes))
        kept = [file for file in kept if file.path in STREAMS]
    missing, links = _missing(listing, outputs)
    fault = endings.outputs(missing, links, over)
    return Judged(tuple(kept), sum(file.size for file in kept), fault, listing.skipped)


def _too_large(files: Sequence[SiteFile], outputs: Sequence[OutputSpec]) -> dict[str, tuple[int, int]]:
    capped = [(spec, pattern(spec.glob)) for spec in outputs if spec.max_bytes]
    return {
        file.path: (file.size, spec.max_bytes)
        for file in files
        for spec, matcher in capped
        if file.size > spec.max_bytes and matcher.fullmatch(file.path)
    }


def _missing(listing: Listing, outputs: Sequence[OutputSpec]) -> tuple[list[str], list[str]]:
    missing: list[str] = []
    links: list[str] = []
    paths = [file.path for file in listing.files if file.path not in STREAMS]
    for spec in outputs:
        matcher = pattern(spec.glob)
        if not spec.required or any(matcher.fullmatch(path) for path in paths):
            continue
        blamed = [path for path in listing.skipped if matcher.fullmatch(path)]
        links += blamed
        missing += [] if blamed else [spec.glob]
    return missing, links


@lru_cache(maxsize=1024)
def pattern(glob: str) -> re.Pattern[str]:
    """A glob over relative paths: `**/` any folders, `*` and `?` within one, `[abc]` sets."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", glob)
    special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    made = [special.get(part) or (_set(part) if part.startswith("[") else re.escape(part)) for part in parts if part]
    return re.compile("".join(made), re.DOTALL)


def _set(part: str) -> str:
    inside = part[1:-1]
    if not inside:
        return re.escape(part)
    negated = inside[0] in "!^"
    kept = re.escape(inside[1:] if negated else inside).replace(r"\-", "-")
    return f"[{'^/' if negated else ''}{kept}]"
