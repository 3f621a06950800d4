"""A job as files of its folder at a site: what job.sh sources, and what the isolated program finds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heroes.api.errors import InvalidSpec
from heroes.api.ids import NAME, ULID
from heroes_spawners.containers import INSIDE, contain, hexdigest
from heroes_spawners.isolation import Bind, Facts, View, enclose, lock
from heroes_spawners.runtime.shell import command, exports, words
from heroes_spawners.site import Job

PATH = "/usr/local/bin:/usr/bin:/bin"
#: Open MPI counts cores itself when no scheduler tells it, binds every job's first rank to core 0, and looks for ssh:
#: several jobs of one node would share a core. What a user sets wins.
_MPI = {
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_plm_rsh_agent": "",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
#: Facts of a queue, and earl-run's options for them.
_POWER = {
    "idle_watts": "idle-watts",
    "busy_watts": "busy-watts",
    "gpu_watts": "gpu-watts",
    "node_cpus": "node-cpus",
    "uncertainty": "watts-uncertainty",
}
_HANDED = """[ -z "${PMI_FD-}" ] || set -- --keep-fd "$PMI_FD" "$@"
for each in "${PMIX_SERVER_TMPDIR-}" "${PMIX_SYSTEM_TMPDIR-}"; do
    [ -z "$each" ] || [ ! -d "$each" ] || set -- --rw-at "$each" "$each" "$@"
done
"""
#: Jobs that may last longer touch run/<key>/alive each minute.
HEARTBEAT_ABOVE_S = 900


def tags(organisation: str, user: str, template: str, instance: str) -> dict[str, str]:
    """The variables by which measurements know whose job it is; they win over what a user sets."""
    return {
        "HEROES_ORGANIZATION_ID": organisation,
        "HEROES_ORGANIZATION_NAME": organisation,
        "HEROES_USER_ID": user,
        "HEROES_TEMPLATE_WORKFLOW_ID": template,
        "HEROES_INSTANCE_WORKFLOW_ID": instance,
    }


def render(job: Job, base: str, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of `jobs/<key>/`, by name: `launch` and `environment`, `task` where each task of a parallel job enters
    the isolation by itself, `lock` where `unshare` isolates. `base` is absolute; `facts` as in runtime/README.md.

    InvalidSpec for what can never run there: an empty command, a NUL byte, no isolation, no container engine."""
    _check(job, base)
    known = Facts.of(facts)
    view = _view(job, base, known)
    files = {"environment": environment(job, view)}
    if _tasked(job, view):
        files["launch"] = _launch(job, view, _by_srun(job, view))
        files["task"] = _task(job, view)
    else:
        inside = contain(view, job.image) if job.image else enclose(view)
        files["launch"] = _launch(job, view, [*_report(view, _measured(job, view)), *inside, *_program(job, view)])
    if known.isolation == "unshare":
        files["lock"] = lock(view)
    texts = {name: text.encode() for name, text in files.items()}
    return texts | {f"in/{name}": content for name, content in job.files.items()}


def give(folder: Path, uid: int, gid: int) -> None:
    """Make a rendered job folder usable by a job that becomes another user: what it reads or writes is that user's,
    the rest stays the caller's. Needs root."""
    (folder / "out").mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o711)
    for path in (*(folder / name for name in ("out", "environment", "lock", "in")), *folder.glob("in/*")):
        if path.exists():
            os.chown(path, uid, gid)


def _check(job: Job, base: str) -> None:
    if not ULID.fullmatch(job.key):
        raise InvalidSpec(f"{job.key!r} is not a key", hint="A key is a ULID of 26 characters.")
    if not base.startswith("/"):
        raise InvalidSpec(f"the base directory {base!r} is not absolute", hint="Give its path from the root.")
    if not job.argv or not job.argv[0] or job.argv[0].startswith("-"):
        raise InvalidSpec(f"{job.argv!r} names no program to run", hint="Put a program's name or path first.")
    for mount in job.inputs:
        if not NAME.fullmatch(mount.name) or mount.path.startswith("/") or ".." in mount.path.split("/"):
            raise InvalidSpec(
                f"input {mount.name!r} at {mount.path!r} is not a name and a path below the base directory",
                hint="Use letters, digits, dots, dashes and underscores in the name, and no '..' in the path.",
            )
    taken = {mount.name for mount in job.inputs}
    for name in job.files:
        if not NAME.fullmatch(name) or name in taken:
            hint = "Give each input and each file a name of its own, of letters, digits, dots, dashes and underscores."
            raise InvalidSpec(f"the file {name!r} of the job cannot be named so", hint=hint)


def _view(job: Job, base: str, facts: Facts) -> View:
    folder = f"{base}/jobs/{job.key}"
    binds = [
        Bind(f"{folder}/out", f"{folder}/out", writable=True),
        Bind(f"{folder}/environment", f"{folder}/environment"),
    ]
    binds += [Bind(f"{base}/{mount.path.rstrip('/')}", f"{folder}/in/{mount.name}") for mount in job.inputs]
    binds += [Bind(f"{folder}/in/{name}", f"{folder}/in/{name}") for name in job.files]
    binds += [Bind(path, path) for path in _environment_folders(job, base, facts)]
    if job.environments and facts.python_prefix not in ("", "/usr", "/usr/local"):
        binds.append(Bind(facts.python_prefix, facts.python_prefix))
    if job.image:
        binds.append(Bind(job.image.path, job.image.path))
    return View(base, folder, tuple(binds), facts)


def _environment_folders(job: Job, base: str, facts: Facts) -> list[str]:
    missing = [name for name in job.environments if name not in facts.environments]
    if missing:
        hint = "The platform pushes environments before it submits; look at the cluster's health."
        raise InvalidSpec(f"the environment {missing[0]!r} is not at this site", hint=hint)
    return [f"{base}/runtime/{facts.environments[name]}" for name in job.environments]


def environment(job: Job, view: View) -> str:
    """What the isolated shell sources: modules, the pushed environments on PATH, and the job's own variables."""
    modules = "".join(f"module load {words([name])} || exit 125\n" for name in job.modules)
    if modules:
        modules = (
            'for each in /etc/profile.d/*mod*.sh /etc/profile.d/lmod.sh; do [ -r "$each" ] && . "$each"; done\n'
            + modules
        )
    places = [f"{path}/bin" for path in _environment_folders(job, view.base, view.facts)]
    inherited = [] if "PATH" in job.environment else ["$PATH"] if modules else [PATH]
    first = "".join(f"{place}:" for place in places)
    variables = dict(job.environment)
    if "PATH" in variables:
        variables["PATH"] = first + variables["PATH"]
    own = "" if not inherited else f'export PATH={words([first])}"{inherited[0]}"\n'
    return modules + own + exports({**_home(job, view), **_MPI, **variables})


def _home(job: Job, view: View) -> dict[str, str]:
    inputs = f"{INSIDE}/in" if job.image and view.facts.container == "ch-run" else f"{view.job_folder}/in"
    return {"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "HEROES_INPUTS": inputs}  # noqa: S108


def _launch(job: Job, view: View, argv: list[str]) -> str:
    lines = [f"ulimit -f {-(-job.max_output_bytes // 512)}\n"]
    if job.image:
        lines.append(f"check_image {words([job.image.path, hexdigest(job.image)])}\n")
    if job.shape.walltime_s > HEARTBEAT_ABOVE_S:
        lines.append("heartbeat\n")
    if view.facts.isolation == "none":
        lines += [_linked(f"{view.base}/{mount.path.rstrip('/')}", view.job_folder, mount.name) for mount in job.inputs]
    return "".join([*lines, command(argv)])


def _linked(source: str, job_folder: str, name: str) -> str:
    """Where nothing can be bound, an input is a link."""
    return (
        f"{words(['mkdir', '-p', f'{job_folder}/in'])} && {words(['ln', '-sfn', source, f'{job_folder}/in/{name}'])}\n"
    )


def _measured(job: Job, view: View) -> list[str]:
    """earl-run with all but its report, where the site can run it. `cpus`: those of this program on its node."""
    if "earl-run" not in view.facts.programs:
        return []
    queue = view.facts.queues.get(job.queue, {})
    cpus = job.shape.cpus_per_task * (1 if _tasked(job, view) else job.shape.tasks)
    options = {"cpus": f"{cpus}", "gpus": f"{job.shape.gpus}"}
    options |= {option: f"{queue[name]:g}" for name, option in _POWER.items() if name in queue}
    return [view.facts.program("earl-run"), *(f"--{name}={value}" for name, value in options.items())]


def _report(view: View, measured: list[str], name: str = "energy.json") -> list[str]:
    return [*measured, f"--report={view.job_folder}/{name}", "--"] if measured else []


def _tasked(job: Job, view: View) -> bool:
    return job.parallel and view.facts.launcher == "srun"


def _program(job: Job, view: View) -> list[str]:
    """The job's own words, run by a shell that first takes the environment; never before the isolation, since a
    variable such as LD_PRELOAD would reach it."""
    folder = INSIDE if job.image and view.facts.container == "ch-run" else view.job_folder
    argv = job.argv
    if job.parallel and view.facts.launcher == "mpirun":
        argv = ("mpirun", "-np", f"{job.shape.tasks}", *argv)
    enter = f'cd {words([f"{folder}/out"])} && . {words([f"{folder}/environment"])} && exec "$@"'
    return ["/bin/sh", "-c", enter, "heroes", *argv]


def _by_srun(job: Job, view: View) -> list[str]:
    shape = job.shape
    argv = ["/usr/bin/env", "SLURM_EXPORT_ENV=ALL", "srun", f"--nodes={shape.nodes}", f"--ntasks={shape.tasks}"]
    argv += [f"--cpus-per-task={shape.cpus_per_task}", "--kill-on-bad-exit=1", "--input=none"]
    argv += [f"--mpi={view.facts.mpi}"] if view.facts.mpi else []
    return [*argv, "/bin/sh", view.facts.program("job.sh"), view.base, job.key, "task"]


def _task(job: Job, view: View) -> str:
    """Each task: measured by itself, isolated by itself, its environment kept, since the launcher speaks to MPI by
    variables; what they name (a file descriptor, a folder) is handed through. Words are put before "$@", last first."""
    enclosing = contain(view, job.image, cleared=False) if job.image else enclose(view, cleared=False)
    lines = [command(_program(job, view))]
    if view.facts.isolation == "heroes-isolate":
        end = len(enclosing) - enclosing[::-1].index("--cd") - 1
        lines += [_before(enclosing[end:]), _HANDED, _before(enclosing[:end])]
    else:
        lines += [_before(enclosing)]
    measured = _measured(job, view)
    if measured:
        report = words([f"{view.job_folder}/energy."])
        lines.append(f'set -- {words(measured)} --report={report}"${{SLURM_PROCID:-0}}".json -- "$@"\n')
    return "".join(lines)


def _before(argv: list[str]) -> str:
    return f'set -- {words(argv)} "$@"\n' if argv else ""
