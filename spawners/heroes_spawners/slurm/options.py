"""What a job asks sbatch for. Every resource option is on the command line, so that nothing in a script counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from heroes.api.errors import InvalidSpec
from heroes.api.ids import NAME, ULID
from heroes_spawners.site import Job, Shape

#: Options that a queue may add, and nothing that names a file, a program, an environment, a mail or another job.
ALLOWED = (
    "account",
    "clusters",
    "comment",
    "constraint",
    "exclusive",
    "gpu-bind",
    "gres-flags",
    "hint",
    "licenses",
    "mem-bind",
    "network",
    "nice",
    "overcommit",
    "prefer",
    "qos",
    "reservation",
    "spread-job",
    "switches",
    "threads-per-core",
    "use-min-nodes",
    "wckey",
)
_VALUE = re.compile(r"[A-Za-z0-9_.,:/@+*&-]{1,200}")
JOB_ID = re.compile(r"[0-9]{1,18}")
#: Paths that go to the shell and to SLURM, which gives "%" and "\" a meaning of its own.
BASE = re.compile(r"(/[A-Za-z0-9_.-]+)+")


def render(job: Job) -> tuple[str, ...]:
    """The options of one job. `InvalidSpec` for anything that is not a plain value."""
    if not ULID.fullmatch(job.key):
        raise InvalidSpec(f"{job.key!r} is not a key", hint="Keys are made by the platform.")
    if not NAME.fullmatch(job.queue):
        hint = "Use letters, digits, '.', '_' and '-' only."
        raise InvalidSpec(f"{job.queue!r} cannot be the name of a queue", hint=hint)
    return (f"--partition={job.queue}", *shape(job.shape), *site_options(job.options))


def shape(wanted: Shape) -> tuple[str, ...]:
    """Resources. SLURM counts walltime in whole minutes and rounds up."""
    options = [f"--nodes={wanted.nodes}", f"--ntasks={wanted.tasks}", f"--cpus-per-task={wanted.cpus_per_task}"]
    options.append(f"--time={-(-wanted.walltime_s // 60)}")
    if wanted.memory_mib:
        options.append(f"--mem={wanted.memory_mib}M")
    if wanted.gpus:
        options.append(f"--gres=gpu:{wanted.gpus}")
    if min(wanted.nodes, wanted.tasks, wanted.cpus_per_task, wanted.walltime_s) < 1 or wanted.tasks < wanted.nodes:
        hint = "Give at least one of each, and no fewer tasks than nodes."
        raise InvalidSpec(f"{wanted} asks for nothing", hint=hint)
    return tuple(options)


def site_options(options: Sequence[str]) -> tuple[str, ...]:
    """A queue's own options, when each is allowed and plain."""
    for option in options:
        name, given, value = option.removeprefix("--").partition("=")
        plain = option.startswith("--") and name in ALLOWED and (not given or _VALUE.fullmatch(value))
        if not plain:
            hint = f"Allowed are --{', --'.join(ALLOWED)} with plain values."
            raise InvalidSpec(f"{option!r} is not an option that a queue may add", hint=hint)
    return tuple(options)


def check_base(base: str) -> str:
    """An absolute base directory without characters that the shell or SLURM would read."""
    if not BASE.fullmatch(base) or ".." in base.split("/"):
        hint = "Use letters, digits, '.', '_', '-' and '/' only."
        raise InvalidSpec(f"{base!r} cannot be the base directory of a cluster", hint=hint)
    return base


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Keys, each a ULID."""
    for key in keys:
        if not ULID.fullmatch(key):
            raise InvalidSpec(f"{key!r} is not a key", hint="Keys are made by the platform.")
    return tuple(keys)


def check_job_ids(job_ids: Sequence[str]) -> tuple[str, ...]:
    """Job ids, plain numbers."""
    for job_id in job_ids:
        if not JOB_ID.fullmatch(job_id):
            raise InvalidSpec(f"{job_id!r} is not a job id", hint="Ids come from the queue.")
    return tuple(job_ids)


def check_path(path: str, below: str = "", depth: int = 1) -> str:
    """A path relative to the base, at least `depth` deep, without "..", control characters or a leading "/"."""
    parts = path.rstrip("/").split("/")
    plain = path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)
    if not plain or len(parts) < depth or (below and parts[0] != below):
        place = f"below {below}/" if below else "below the base directory"
        hint = "Use printable names, no '..' and no '\\'."
        raise InvalidSpec(f"{path!r} is not a path {place}", hint=hint)
    return path.rstrip("/")
