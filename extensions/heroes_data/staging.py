"""Moves objects to clusters and results back: only what differs, verified by checksum, in few and large steps.

A copy at a site is exact while its size, mtime, ctime and inode are those that were recorded when its content was
verified: a byte changed by someone who restores the mtime still changes the ctime. What was sent before a transfer
broke off is found by its checksum and not sent again. Small files go in one tar stream, large ones by rclone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

from heroes.api.errors import InvalidSpec, NotFound, Refused, StoreBusy
from heroes_core.work import Database
from heroes_data import store
from heroes_data.model import (
    FOLDER_MARK,
    Moved,
    ObjectInfo,
    ObjectRef,
    SealedFolder,
    StagedPath,
    changed,
    check_collisions,
    check_key,
    data_path,
    folder_etag,
    md5_of,
)
from heroes_data.packing import SMALL, pack
from heroes_data.ports import ObjectStore
from heroes_data.rclone import Progress, Rclone
from heroes_data.store import Copy, Movement
from heroes_spawners.site import Site, SiteFile

#: Files in one call.
MOST_FILES = 200_000
_ROUNDS = 2
#: Objects in one listing; S3 servers give fewer.
_PAGE = 100_000
#: Up to here each file is asked for by its path, beyond by folders.
_BY_PATH = 100


class _Wanted(NamedTuple):
    """An object that has to be at a site. There may be a hundred thousand of them: a tuple is made the quickest."""

    bucket: str
    key: str
    etag: str
    size: int
    path: str

    @property
    def name(self) -> str:
        """Relative to the user's folder at the site, and to the organisation's root of the object store."""
        return f"{self.bucket}/{self.key}"


@dataclass(frozen=True)
class _Errand:
    """One transfer: between which site and whose data."""

    site: Site
    cluster: str
    organisation: str
    user: str
    progress: Progress | None

    @property
    def folder(self) -> str:
        """The user's folder at the site."""
        return f"data/{self.organisation}/{self.user}"

    def at_site(self) -> dict[str, str]:
        """rclone's settings of the user's folder at the site."""
        settings = dict(self.site.remote())
        return {**settings, "root": f"{settings['root'].rstrip('/')}/{self.folder}"}


class Mover:
    """Stages for any cluster; one for each process. Thread-safe."""

    def __init__(self, database: Database, objects: ObjectStore, rclone: Rclone | None = None) -> None:
        self._database = database
        self._objects = objects
        self._rclone = rclone or Rclone()
        self._buckets: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._folders: dict[tuple[str, str], threading.Lock] = {}

    def close(self) -> None:
        """End rclone."""
        self._rclone.close()

    def stage_in(
        self,
        site: Site,
        cluster: str,
        organisation: str,
        user: str,
        objects: Sequence[ObjectRef],
        progress: Progress | None = None,
        *,
        epoch: int | None = None,
    ) -> Moved:
        """See to it that exact copies of `objects` are at the site, below `data/<organisation>/<user>/<bucket>/`; of a
        folder, that no copy is there of what has gone from it (where `epoch` is the lease that allows the deletion).

        NotFound: an object is not there, or not any more as it was asked for; InvalidSpec: a key cannot be a path, or
        collides; LinkDown, StoreBusy: try again, what arrived whole is kept."""
        began = time.perf_counter()
        errand = _Errand(site, cluster, organisation, user, progress)
        with self._alone(errand):
            there = _listed(site, [data_path(organisation, user, ref.bucket, ref.key) for ref in objects])
            with self._database.read() as work:
                recorded = store.copies(work, cluster, there)
            wanted = self._expand(errand, objects)
            self._clear(errand, objects, [path for path in recorded if path not in wanted], epoch)
            missing = self._missing(errand, list(wanted.values()), there, recorded)
            if missing:
                self._send(errand, missing)
        size, seconds = sum(each.size for each in missing), time.perf_counter() - began
        self._log(errand, "stage-in", {each.name: each.size for each in missing}, seconds)
        places = [data_path(organisation, user, ref.bucket, ref.key).rstrip("/") for ref in objects]
        return Moved(size, seconds, tuple(map(StagedPath, objects, places)))

    def stage_out(
        self,
        site: Site,
        cluster: str,
        organisation: str,
        user: str,
        sealed: Sequence[SealedFolder],
        progress: Progress | None = None,
    ) -> Moved:
        """Bring the kept files of finished jobs to their buckets, all in one call of rclone; afterwards what is at the
        site counts as exact copies. Files whose names cannot be keys are left, and named in `skipped`.

        NotFound: a file is not any more what was sealed; LinkDown, StoreBusy: try again."""
        began = time.perf_counter()
        errand = _Errand(site, cluster, organisation, user, progress)
        files, skipped = _keepable(errand, sealed)
        if len(files) > MOST_FILES:
            raise InvalidSpec(f"{len(files)} files are too many to bring back.", hint="Let the steps pack them.")
        for bucket in sorted({folder.bucket for folder in sealed}):
            self._ensure_bucket(organisation, user, bucket)
        if files:
            self._fetch(errand, sealed, files)
        size, seconds = sum(file.size for file in files.values()), time.perf_counter() - began
        self._log(errand, "stage-out", {name: file.size for name, file in files.items()}, seconds)
        return Moved(size, seconds, skipped=skipped)

    # what is wanted, and what of it is not there

    def _expand(self, errand: _Errand, objects: Sequence[ObjectRef]) -> dict[str, _Wanted]:
        found: dict[str, _Wanted] = {}
        for ref in objects:
            for each in self._objects_of(errand.organisation, ref):
                _check_path(each.key)
                path = data_path(errand.organisation, errand.user, ref.bucket, each.key)
                found[path] = _Wanted(ref.bucket, each.key, each.etag, each.size, path)
        if len(found) > MOST_FILES:
            raise InvalidSpec(f"{len(found)} input files are too many.", hint="Pack them into archives.")
        check_collisions(each.name for each in found.values())
        return found

    def _objects_of(self, organisation: str, ref: ObjectRef) -> Iterable[ObjectInfo | ObjectRef]:
        if not ref.key.endswith("/"):
            return [ref] if ref.etag else [self._objects.stat(organisation, ref.bucket, ref.key)]
        below = objects_below(self._objects, organisation, ref.bucket, ref.key)
        if not below:
            raise NotFound(f"There is nothing below {ref.key} in the bucket {ref.bucket}.", hint="Upload it first.")
        if ref.etag and folder_etag(below) != ref.etag:
            raise changed(ref.bucket, ref.key)
        return below

    def _clear(self, errand: _Errand, objects: Sequence[ObjectRef], others: Sequence[str], epoch: int | None) -> None:
        """Delete copies, in the wanted folders, of objects that are no more. Only what was recorded is deleted: a job's
        results that are not in their bucket yet lie there too."""
        folders = tuple(
            data_path(errand.organisation, errand.user, ref.bucket, ref.key) for ref in objects if ref.key.endswith("/")
        )
        gone = [path for path in others if folders and path.startswith(folders)]
        if gone and epoch is not None:
            errand.site.remove_data(gone, epoch)
            with self._database.write() as work:
                store.forget_copies(work, errand.cluster, gone)

    def _missing(
        self, errand: _Errand, wanted: list[_Wanted], there: Mapping[str, SiteFile], recorded: Mapping[str, Copy]
    ) -> list[_Wanted]:
        """Those without an exact copy. One that is there, of the right size but not recorded, is judged by content."""
        missing: list[_Wanted] = []
        doubtful: list[_Wanted] = []
        for each in wanted:
            file = there.get(each.path)
            if file is not None and recorded.get(each.path) == _copy(each, file):
                continue
            likely = file is not None and file.size == each.size
            (doubtful if likely else missing).append(each)
        return missing + self._verify(errand, doubtful, self._digests(errand.organisation, doubtful))

    # there

    def _send(self, errand: _Errand, missing: list[_Wanted]) -> None:
        total, left = sum(each.size for each in missing), missing
        for _ in range(_ROUNDS):
            large = [each for each in left if each.size > SMALL]
            small = [each for each in left if each.size <= SMALL]
            if large:
                remote = self._objects.remote(errand.organisation)
                self._rclone.copy(remote, errand.at_site(), [each.name for each in large], errand.progress, verify=True)
            digests = self._send_small(errand, small, total)
            self._check_unchanged(errand.organisation, [each for each in left if md5_of(each.etag) is None])
            self._record(errand, large, _listed(errand.site, [each.path for each in large]))
            left = self._verify(errand, small, digests)
            if not left:
                return
            self._check_unchanged(errand.organisation, left)
        raise StoreBusy(
            f"{left[0].name} and {len(left) - 1} more did not arrive as they were sent.",
            hint="Try again; should it go on, the cluster's storage may be damaged.",
        )

    def _digests(self, organisation: str, objects: Iterable[_Wanted]) -> dict[str, str]:
        """The MD5 of objects by path at the site."""
        return {
            each.path: md5_of(each.etag) or self._objects.digest(organisation, each.bucket, each.key)
            for each in objects
        }

    def _send_small(self, errand: _Errand, small: list[_Wanted], total: int) -> dict[str, str]:
        """One tar stream for each bucket. The MD5 of what was sent, by path."""
        digests: dict[str, str] = {}
        sent = 0
        for bucket in sorted({each.bucket for each in small}):
            mine = {each.key: each for each in small if each.bucket == bucket}
            sink = errand.site.stream_tar(f"{errand.folder}/{bucket}")
            sizes = {key: each.size for key, each in mine.items()}
            for key, digest in pack(self._objects, errand.organisation, bucket, sizes, sink):
                digests[mine[key].path] = digest
                sent += mine[key].size
                if errand.progress is not None:
                    errand.progress(sent, total)
        return digests

    def _verify(self, errand: _Errand, sent: list[_Wanted], digests: Mapping[str, str]) -> list[_Wanted]:
        """Record those whose content at the site is the object's; the others. What identifies a file is read before its
        content, so that whoever changes it in between is found out."""
        if not sent:
            return []
        there = _listed(errand.site, [each.path for each in sent])
        names = [each.name for each in sent if each.path in there]
        sums = errand.site.checksums(errand.folder, names) if names else {}
        good: list[_Wanted] = []
        bad: list[_Wanted] = []
        for each in sent:
            fine = each.path in there and sums.get(each.name) == (md5_of(each.etag) or digests[each.path])
            (good if fine else bad).append(each)
        self._record(errand, good, there)
        return bad

    def _record(self, errand: _Errand, verified: list[_Wanted], there: Mapping[str, SiteFile]) -> None:
        copies = [_copy(each, there[each.path]) for each in verified if each.path in there]
        with self._database.write() as work:
            store.record_copies(work, errand.cluster, errand.organisation, copies)

    def _check_unchanged(self, organisation: str, sent: Iterable[_Wanted]) -> None:
        """What was read is what was asked for: else one version's name would stand for another's content."""
        for each in sent:
            if self._objects.stat(organisation, each.bucket, each.key).etag != each.etag:
                raise changed(each.bucket, each.key)

    # and back

    def _fetch(self, errand: _Errand, sealed: Sequence[SealedFolder], files: dict[str, SiteFile]) -> None:
        source = {**errand.at_site(), "skip_links": "true"}
        left, sums = list(files), errand.site.checksums(errand.folder, list(files))
        for _ in range(_ROUNDS):
            try:
                self._rclone.copy(source, self._objects.remote(errand.organisation), left, errand.progress)
            except StoreBusy:
                _check_sealed(errand, files)
                raise
            stored = self._stored(errand.organisation, sealed)
            left = [
                name for name in files if not self._same(errand.organisation, name, stored, files[name], sums.get(name))
            ]
            if not left:
                break
        if left:
            _check_sealed(errand, files)
            raise StoreBusy(
                f"{left[0]} and {len(left) - 1} more did not arrive in the object store as they are at the cluster.",
                hint="Try again in a moment.",
            )
        with self._database.write() as work:
            copies = [_kept(errand, name, file, stored[name].etag) for name, file in files.items()]
            store.record_copies(work, errand.cluster, errand.organisation, copies)

    def _same(
        self, organisation: str, name: str, stored: Mapping[str, ObjectInfo], file: SiteFile, digest: str | None
    ) -> bool:
        """Whether an object is the file, by size and MD5."""
        found = stored.get(name)
        if found is None or found.size != file.size:
            return False
        bucket, _, key = name.partition("/")
        return (md5_of(found.etag) or self._objects.digest(organisation, bucket, key)) == digest

    def _stored(self, organisation: str, sealed: Sequence[SealedFolder]) -> dict[str, ObjectInfo]:
        return {
            f"{folder.bucket}/{each.key}": each
            for folder in sealed
            for each in objects_below(self._objects, organisation, folder.bucket, folder.prefix)
        }

    def _ensure_bucket(self, organisation: str, user: str, bucket: str) -> None:
        if (organisation, bucket) not in self._buckets:
            self._objects.make_bucket(organisation, bucket)
            with self._database.write() as work:
                store.add_bucket(work, organisation, bucket, user)
            self._buckets.add((organisation, bucket))

    def _log(self, errand: _Errand, direction: str, moved: Mapping[str, int], seconds: float) -> None:
        """One line for each bucket, of names and sizes; the link is measured over all of them."""
        with self._database.write() as work:
            for bucket in sorted({name.partition("/")[0] for name in moved}):
                sizes = {name.partition("/")[2]: size for name, size in moved.items() if name.startswith(f"{bucket}/")}
                share = Movement(
                    errand.organisation, errand.user, direction, bucket, _common(list(sizes)), errand.cluster,
                    len(sizes), sum(sizes.values()), seconds,
                )  # fmt: skip
                store.log(work, share)
            store.measure_link(work, errand.cluster, direction, sum(moved.values()), seconds)

    @contextmanager
    def _alone(self, errand: _Errand) -> Iterator[None]:
        """Nobody else sends to the same user's folder meanwhile, and takes our half-sent files for damaged ones."""
        with self._lock:
            mine = self._folders.setdefault((errand.cluster, errand.folder), threading.Lock())
        with mine:
            yield


def objects_below(objects: ObjectStore, organisation: str, bucket: str, prefix: str) -> list[ObjectInfo]:
    """Every object below a prefix, without the marks that keep folders."""
    found: list[ObjectInfo] = []
    after: str | None = ""
    while after is not None:
        page = objects.listing(organisation, bucket, prefix, after=after, limit=_PAGE)
        found += (each for each in page.objects if each.key.rpartition("/")[2] != FOLDER_MARK)
        after = page.next
    return found


def _check_path(key: str) -> None:
    """A key that is also a path which every site takes as it is."""
    check_key(key)
    if not key.isprintable() or "\\" in key:
        raise InvalidSpec(
            f"The key {key!a} cannot be a path at a cluster.", hint="Use printable characters and no backslash."
        )


def _listed(site: Site, paths: Sequence[str]) -> dict[str, SiteFile]:
    """What stands at the site at or below `paths` (and, when they are many, beside them), by path."""
    if not paths:
        return {}
    if len(paths) > _BY_PATH:
        paths = _topmost({path.rpartition("/")[0] for path in paths})
    found = {}
    for place, listing in site.list_files(paths).items():
        for file in listing.files:
            found[f"{place.rstrip('/')}/{file.path}" if file.path else place] = file
    return found


def _topmost(folders: Iterable[str]) -> list[str]:
    """Folders without those that lie in others of them."""
    kept: list[str] = []
    for folder in sorted(folders, key=lambda each: each.split("/")):
        if not kept or not f"{folder}/".startswith(f"{kept[-1]}/"):
            kept.append(folder)
    return kept


def _copy(each: _Wanted, file: SiteFile) -> Copy:
    return Copy(each.path, each.etag, each.size, file.mtime_ns, file.ctime_ns, file.inode)


def _kept(errand: _Errand, name: str, file: SiteFile, etag: str) -> Copy:
    return Copy(f"{errand.folder}/{name}", etag, file.size, file.mtime_ns, file.ctime_ns, file.inode)


def _keepable(errand: _Errand, sealed: Sequence[SealedFolder]) -> tuple[dict[str, SiteFile], tuple[str, ...]]:
    """The kept files by name below the user's folder, and those whose names cannot be keys."""
    files: dict[str, SiteFile] = {}
    skipped = []
    for folder in sealed:
        if folder.path.rstrip("/") != f"{errand.folder}/{folder.bucket}/{folder.prefix}".rstrip("/"):
            raise ValueError(f"{folder.path} does not mirror {folder.bucket}/{folder.prefix}")
        for file in folder.files:
            key = f"{folder.prefix.rstrip('/')}/{file.path}".lstrip("/")
            try:
                _check_path(key)
            except Refused:
                skipped.append(key)
            else:
                files[f"{folder.bucket}/{key}"] = file
    return files, tuple(skipped)


def _check_sealed(errand: _Errand, files: Mapping[str, SiteFile]) -> None:
    """NotFound when a file is not any more what was sealed: no other try could bring it."""
    there = _listed(errand.site, [f"{errand.folder}/{name}" for name in files])
    for name, file in files.items():
        now = there.get(f"{errand.folder}/{name}")
        if now is None or replace(now, path=file.path) != file:
            raise NotFound(
                f"{name} was changed or removed at {errand.cluster} after its job ended.",
                hint="Run the step again; results that the job wrote are kept as they are there.",
                detail={"name": name},
            )


def _common(keys: Sequence[str]) -> str:
    """What to call several objects in the log: their common folder."""
    if len(keys) == 1:
        return keys[0]
    common = []
    for level in zip(*(key.split("/")[:-1] for key in keys), strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/".join([*common, ""]) if common else ""
