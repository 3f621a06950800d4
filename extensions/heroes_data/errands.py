"""What a transfer is about: the objects that are wanted at a site, what stands there, and what of it may be kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from heroes.api.errors import InvalidSpec, NotFound, Refused
from heroes_data.model import FOLDER_MARK, ObjectInfo, SealedFolder, check_key
from heroes_data.ports import ObjectStore
from heroes_data.rclone import Progress
from heroes_data.store import Copy
from heroes_spawners.site import Site, SiteFile

#: Objects in one listing; S3 servers give fewer.
_PAGE = 100_000
#: Up to here each file is asked for by its path, beyond by folders.
_BY_PATH = 100


class Wanted(NamedTuple):
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
class Errand:
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


def objects_below(objects: ObjectStore, organisation: str, bucket: str, prefix: str) -> list[ObjectInfo]:
    """Every object below a prefix, without the marks that keep folders."""
    found: list[ObjectInfo] = []
    after: str | None = ""
    while after is not None:
        page = objects.listing(organisation, bucket, prefix, after=after, limit=_PAGE)
        found += (each for each in page.objects if each.key.rpartition("/")[2] != FOLDER_MARK)
        after = page.next
    return found


def after(progress: Progress | None, sent: int, total: int) -> Progress | None:
    """The progress of what comes after `sent` bytes."""
    return None if progress is None else lambda done, _: progress(sent + done, total)


def check_path(key: str) -> None:
    """A key that is also a path which every site takes as it is."""
    check_key(key)
    if not key.isprintable() or "\\" in key:
        raise InvalidSpec(
            f"The key {key!a} cannot be a path at a cluster.", hint="Use printable characters and no backslash."
        )


def listed(site: Site, paths: Sequence[str]) -> dict[str, SiteFile]:
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


def copy_of(each: Wanted, file: SiteFile) -> Copy:
    """The object's copy that `file` is."""
    return Copy(each.path, each.etag, each.size, file.mtime_ns, file.ctime_ns, file.inode)


def kept_copy(errand: Errand, name: str, file: SiteFile, etag: str) -> Copy:
    """The copy that a job's own file is of the object that was made of it."""
    return Copy(f"{errand.folder}/{name}", etag, file.size, file.mtime_ns, file.ctime_ns, file.inode)


def keepable(errand: Errand, sealed: Sequence[SealedFolder]) -> tuple[dict[str, SiteFile], tuple[str, ...]]:
    """The kept files by name below the user's folder, and those whose names cannot be keys."""
    files: dict[str, SiteFile] = {}
    skipped = []
    for folder in sealed:
        if folder.path.rstrip("/") != f"{errand.folder}/{folder.bucket}/{folder.prefix}".rstrip("/"):
            raise ValueError(f"{folder.path} does not mirror {folder.bucket}/{folder.prefix}")
        for file in folder.files:
            key = f"{folder.prefix.rstrip('/')}/{file.path}".lstrip("/")
            try:
                check_path(key)
            except Refused:
                skipped.append(key)
            else:
                files[f"{folder.bucket}/{key}"] = file
    return files, tuple(skipped)


def check_sealed(errand: Errand, files: Mapping[str, SiteFile]) -> None:
    """NotFound when a file is not any more what was sealed: no other try could bring it."""
    there = listed(errand.site, [f"{errand.folder}/{name}" for name in files])
    for name, file in files.items():
        now = there.get(f"{errand.folder}/{name}")
        if now is None or replace(now, path=file.path) != file:
            raise NotFound(
                f"{name} was changed or removed at {errand.cluster} after its job ended.",
                hint="Run the step again; results that the job wrote are kept as they are there.",
                detail={"name": name},
            )


def common_folder(keys: Sequence[str]) -> str:
    """What to call several objects in the log: their common folder."""
    if len(keys) == 1:
        return keys[0]
    common = []
    for level in zip(*(key.split("/")[:-1] for key in keys), strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/".join([*common, ""]) if common else ""
