"""Moves objects to clusters and results back: only what differs, verified by checksum, in few and large steps.

A copy at a site is exact while its size, mtime, ctime and inode are those that were recorded when its content was
verified: a byte changed by someone who restores the mtime still changes the ctime. What was sent before a transfer
broke off is found by its checksum and not sent again. Small files go in one tar stream, large ones by rclone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from heroes.api.errors import InvalidSpec, NotFound, StoreBusy
from heroes_core.work import Database
from heroes_data import store
from heroes_data.errands import (
    Errand,
    Wanted,
    after,
    check_path,
    check_sealed,
    common_folder,
    copy_of,
    keepable,
    kept_copy,
    listed,
    objects_below,
)
from heroes_data.model import (
    Moved,
    ObjectInfo,
    ObjectRef,
    SealedFolder,
    StagedPath,
    changed,
    check_collisions,
    data_path,
    folder_etag,
    md5_of,
)
from heroes_data.packing import SMALL, pack, parents
from heroes_data.ports import ObjectStore
from heroes_data.rclone import Progress, Rclone
from heroes_data.store import Copy, Movement
from heroes_spawners.site import Site, SiteFile

#: Files in one call.
MOST_FILES = 200_000
_ROUNDS = 2


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
        errand = Errand(site, cluster, organisation, user, progress)
        with self._alone(errand):
            places = [data_path(organisation, user, ref.bucket, ref.key) for ref in objects]
            with ThreadPoolExecutor(1, "listed") as beside:  # the cluster looks while we do
                standing = beside.submit(listed, site, places)
                wanted = self._expand(errand, objects)
                there = standing.result()
            with self._database.read() as work:
                recorded = store.copies(work, cluster, there)
            self._clear(errand, objects, [path for path in recorded if path not in wanted], epoch)
            missing = self._missing(errand, list(wanted.values()), there, recorded)
            if missing:
                self._send(errand, missing)
        size, seconds = sum(each.size for each in missing), time.perf_counter() - began
        self._log(errand, "stage-in", {each.name: each.size for each in missing}, seconds)
        return Moved(
            size, seconds, tuple(StagedPath(ref, path.rstrip("/")) for ref, path in zip(objects, places, strict=True))
        )

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
        errand = Errand(site, cluster, organisation, user, progress)
        files, skipped = keepable(errand, sealed)
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

    def _expand(self, errand: Errand, objects: Sequence[ObjectRef]) -> dict[str, Wanted]:
        found: dict[str, Wanted] = {}
        for ref in objects:
            for each in self._objects_of(errand.organisation, ref):
                check_path(each.key)
                path = data_path(errand.organisation, errand.user, ref.bucket, each.key)
                found[path] = Wanted(ref.bucket, each.key, each.etag, each.size, path)
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

    def _clear(self, errand: Errand, objects: Sequence[ObjectRef], others: Sequence[str], epoch: int | None) -> None:
        """Delete copies, in the wanted folders, of objects that are no more. Only what was recorded is deleted: a job's
        results that are not in their bucket yet lie there too."""
        folders = tuple(
            data_path(errand.organisation, errand.user, ref.bucket, ref.key) for ref in objects if ref.key.endswith("/")
        )
        if epoch is None or not folders:
            return
        gone = [path for path in others if path.startswith(folders) and self._is_gone(errand, path)]
        if gone:
            errand.site.remove_data(gone, epoch)
            with self._database.write() as work:
                store.forget_copies(work, errand.cluster, gone)

    def _is_gone(self, errand: Errand, path: str) -> bool:
        """Whether there is no object any more (or yet: it may have come since we looked) for a copy."""
        bucket, _, key = path.removeprefix(f"{errand.folder}/").partition("/")
        try:
            self._objects.stat(errand.organisation, bucket, key)
        except NotFound:
            return True
        return False

    def _missing(
        self, errand: Errand, wanted: list[Wanted], there: Mapping[str, SiteFile], recorded: Mapping[str, Copy]
    ) -> list[Wanted]:
        """Those without an exact copy. One that is there, of the right size but not recorded, is judged by content."""
        missing: list[Wanted] = []
        doubtful: list[Wanted] = []
        for each in wanted:
            file = there.get(each.path)
            if file is not None and recorded.get(each.path) == copy_of(each, file):
                continue
            likely = file is not None and file.size == each.size
            (doubtful if likely else missing).append(each)
        return missing + self._verify(errand, doubtful, self._digests(errand.organisation, doubtful))

    # there

    def _send(self, errand: Errand, missing: list[Wanted]) -> None:
        total, left = sum(each.size for each in missing), missing
        for _ in range(_ROUNDS):
            digests = self._send_small(errand, left, total)
            small = [each for each in left if each.path in digests]
            large = [each for each in left if each.path not in digests]
            if large:
                remote, names = self._objects.remote(errand.organisation), [each.name for each in large]
                progress = after(errand.progress, sum(each.size for each in small), total)
                self._rclone.copy(remote, errand.at_site(), names, progress, verify=True)
            self._check_unchanged(errand.organisation, [each for each in left if md5_of(each.etag) is None])
            self._record(errand, large, listed(errand.site, [each.path for each in large]))
            left = self._verify(errand, small, digests)
            if not left:
                return
            self._check_unchanged(errand.organisation, left)
        raise StoreBusy(
            f"{left[0].name} and {len(left) - 1} more did not arrive as they were sent.",
            hint="Try again; should it go on, the cluster's storage may be damaged.",
        )

    def _digests(self, organisation: str, objects: Iterable[Wanted]) -> dict[str, str]:
        """The MD5 of objects by path at the site."""
        return {
            each.path: md5_of(each.etag) or self._objects.digest(organisation, each.bucket, each.key)
            for each in objects
        }

    def _send_small(self, errand: Errand, missing: list[Wanted], total: int) -> dict[str, str]:
        """The small ones of `missing`, and the folders of all, in one tar stream for each bucket. The MD5 of what was
        sent, by path."""
        digests: dict[str, str] = {}
        sent = 0
        for bucket in sorted({each.bucket for each in missing}):
            mine = {each.key: each for each in missing if each.bucket == bucket}
            sizes = {key: each.size for key, each in mine.items() if each.size <= SMALL}
            folders = parents(mine)
            if not (sizes or folders):
                continue
            sink = errand.site.stream_tar(f"{errand.folder}/{bucket}")
            for key, digest in pack(self._objects, errand.organisation, bucket, sizes, folders, sink):
                digests[mine[key].path] = digest
                sent += mine[key].size
                if errand.progress is not None:
                    errand.progress(sent, total)
        return digests

    def _verify(self, errand: Errand, sent: list[Wanted], digests: Mapping[str, str]) -> list[Wanted]:
        """Record those whose content at the site is the object's; the others. What identifies a file is read before its
        content, so that whoever changes it in between is found out."""
        if not sent:
            return []
        there = listed(errand.site, [each.path for each in sent])
        names = [each.name for each in sent if each.path in there]
        sums = errand.site.checksums(errand.folder, names) if names else {}
        good: list[Wanted] = []
        bad: list[Wanted] = []
        for each in sent:
            fine = each.path in there and sums.get(each.name) == (md5_of(each.etag) or digests[each.path])
            (good if fine else bad).append(each)
        self._record(errand, good, there)
        return bad

    def _record(self, errand: Errand, verified: list[Wanted], there: Mapping[str, SiteFile]) -> None:
        copies = [copy_of(each, there[each.path]) for each in verified if each.path in there]
        with self._database.write() as work:
            store.record_copies(work, errand.cluster, errand.organisation, copies)

    def _check_unchanged(self, organisation: str, sent: Iterable[Wanted]) -> None:
        """What was read is what was asked for: else one version's name would stand for another's content."""
        for each in sent:
            if self._objects.stat(organisation, each.bucket, each.key).etag != each.etag:
                raise changed(each.bucket, each.key)

    # and back

    def _fetch(self, errand: Errand, sealed: Sequence[SealedFolder], files: dict[str, SiteFile]) -> None:
        source = {**errand.at_site(), "skip_links": "true"}
        left, sums = list(files), errand.site.checksums(errand.folder, list(files))
        for _ in range(_ROUNDS):
            try:
                self._rclone.copy(source, self._objects.remote(errand.organisation), left, errand.progress)
            except StoreBusy:
                check_sealed(errand, files)
                raise
            stored = self._stored(errand.organisation, sealed)
            left = [
                name for name in files if not self._same(errand.organisation, name, stored, files[name], sums.get(name))
            ]
            if not left:
                break
        if left:
            check_sealed(errand, files)
            raise StoreBusy(
                f"{left[0]} and {len(left) - 1} more did not arrive in the object store as they are at the cluster.",
                hint="Try again in a moment.",
            )
        with self._database.write() as work:
            copies = [kept_copy(errand, name, file, stored[name].etag) for name, file in files.items()]
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

    def _log(self, errand: Errand, direction: str, moved: Mapping[str, int], seconds: float) -> None:
        """One line for each bucket, of names and sizes; the link is measured over all of them."""
        with self._database.write() as work:
            for bucket in sorted({name.partition("/")[0] for name in moved}):
                sizes = {name.partition("/")[2]: size for name, size in moved.items() if name.startswith(f"{bucket}/")}
                share = Movement(
                    errand.organisation, errand.user, direction, bucket, common_folder(list(sizes)), errand.cluster,
                    len(sizes), sum(sizes.values()), seconds,
                )  # fmt: skip
                store.log(work, share)
            store.measure_link(work, errand.cluster, direction, sum(moved.values()), seconds)

    @contextmanager
    def _alone(self, errand: Errand) -> Iterator[None]:
        """Nobody else sends to the same user's folder meanwhile, and takes our half-sent files for damaged ones."""
        with self._lock:
            mine = self._folders.setdefault((errand.cluster, errand.folder), threading.Lock())
        with mine:
            yield
