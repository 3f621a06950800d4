"""Container engines as rendered words: what is bound is the job's own folder, nothing of the host's home, no way up.

Charliecloud runs inside the isolation of `heroes_spawners.isolation`, which hides the host from it; the job's folder
appears at /mnt, a folder that images have. Apptainer isolates by itself (`--containall`), since its own start needs
what an isolated process may not do. Network is the host's: a job that must be offline is refused where the probe did
not prove `--network none`, the flag is never dropped silently.
"""

from __future__ import annotations

import re

from heroes.api.errors import InvalidSpec
from heroes_spawners.isolation import View, clear, enclose
from heroes_spawners.site import Image

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Where a job's folder appears inside a Charliecloud container.
INSIDE = "/mnt"


def hexdigest(image: Image) -> str:
    """The image's SHA-256 in hex. InvalidSpec where the image is not named by an absolute path and a digest."""
    if not image.path.startswith("/") or not _DIGEST.fullmatch(image.digest):
        raise InvalidSpec(
            f"the image {image.path!r} with digest {image.digest!r} is not an absolute path and sha256:<64 hex digits>",
            hint="Register the image by its absolute path at the site and its digest (`sha256sum FILE`).",
        )
    return image.digest.removeprefix("sha256:")


def contain(view: View, image: Image, *, cleared: bool = True) -> list[str]:
    """The words that run what follows in `image`. InvalidSpec where the site has no engine. `cleared`: the environment
    outside does not reach the inside."""
    hexdigest(image)
    engine = view.facts.container
    if engine == "ch-run":
        return [*enclose(view, cleared=cleared), *_ch_run(view, image)]
    if engine in ("apptainer", "singularity"):
        return _apptainer(engine, view, image, cleared=cleared)
    raise InvalidSpec(
        "this cluster has no container engine, and the job needs an image",
        hint="Choose a cluster with Charliecloud, Apptainer or Singularity, or a template without an image.",
    )


def _ch_run(view: View, image: Image) -> list[str]:
    bind = f"--bind={view.job_folder}:{INSIDE}"
    return ["ch-run", "--private-tmp", "--no-passwd", bind, f"--cd={INSIDE}/out", image.path, "--"]


def _apptainer(engine: str, view: View, image: Image, *, cleared: bool) -> list[str]:
    argv = [*clear(view.facts)] if cleared else []
    argv += [engine, "exec", "--containall", *(["--cleanenv"] if cleared else []), "--no-home", "--no-mount", "hostfs"]
    for bind in view.binds:
        if any(mark in bind.source + bind.target for mark in ":,"):
            raise InvalidSpec(f"{bind.target!r} holds ':' or ',', which {engine} cannot bind", hint="Rename the input.")
        argv += ["--bind", f"{bind.source}:{bind.target}:{'rw' if bind.writable else 'ro'}"]
    return [*argv, "--pwd", view.folder, image.path]
