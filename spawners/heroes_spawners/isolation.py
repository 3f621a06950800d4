"""Around every job: namespaces of its own, so that one UNIX account can run jobs that cannot see each other.

Each function gives the words that come before the job's own command line. What is bound keeps its own path: the whole
base directory is hidden, and `jobs/<key>/out` (writable), `jobs/<key>/in/…`, the environment file and the pushed
environments (read-only) are brought back. Nothing here drops a lock silently: what a site cannot do is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heroes.api.errors import InvalidSpec
from heroes_spawners.runtime.shell import words

#: Hidden by heroes-isolate too; the rendered mounts of `unshare` need the list.
ALWAYS_HIDDEN = (
    "/run/munge",
    "/run/slurm",
    "/var/spool/slurmd",
    "/var/spool/slurm",
    "/run/user",
    "/run/dbus",
    "/run/docker.sock",
    "/run/containerd",
    "/run/podman",
)


@dataclass(frozen=True)
class Facts:
    """What the probe found on a compute node, as far as starting a job needs it; runtime/README.md names each key."""

    runtime: str
    isolation: str = "none"
    programs: frozenset[str] = frozenset()
    container: str = ""
    home: str = ""
    hide: tuple[str, ...] = ()
    one_person: bool = False
    python_prefix: str = ""
    environments: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    launcher: str = "srun"
    mpi: str = ""
    user: str = ""

    @staticmethod
    def of(facts: Mapping[str, Any]) -> Facts:
        """The facts of a probe's answer; keys that are absent keep the strictest meaning."""
        return Facts(
            runtime=facts["runtime"],
            isolation=facts.get("isolation") or "none",
            programs=frozenset(facts.get("programs") or ()),
            container=facts.get("container") or "",
            home=facts.get("home") or "",
            hide=tuple(facts.get("hide") or ()),
            one_person=bool(facts.get("one_person")),
            python_prefix=facts.get("python_prefix") or "",
            environments=facts.get("environments") or {},
            queues=facts.get("queues") or {},
            launcher=facts.get("launcher") or "srun",
            mpi=facts.get("mpi") or "",
            user=facts.get("user") or "",
        )

    def program(self, name: str) -> str:
        """The absolute path of a pushed program."""
        return f"{self.runtime}/{name}"


@dataclass(frozen=True)
class Bind:
    """`source` appears at `target` inside; absolute paths."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class View:
    """What a job sees of a site: `base` and `facts.hide` are hidden, `binds` brought back, it starts in `folder`."""

    base: str
    job_folder: str
    binds: tuple[Bind, ...]
    facts: Facts

    @property
    def folder(self) -> str:
        """The job's working folder."""
        return f"{self.job_folder}/out"


def enclose(view: View, *, cleared: bool = True) -> list[str]:
    """The words that isolate what follows them, by the means that the probe proved. InvalidSpec where there is none
    and the account is not one person's. `cleared`: the environment outside does not reach the inside."""
    facts = view.facts
    emptied = clear(facts) if cleared else []
    if facts.isolation == "heroes-isolate" and "heroes-isolate" in facts.programs:
        return [*emptied, *_by_program(view)]
    if facts.isolation == "unshare":
        return [*emptied, *_as_user(facts), *_by_unshare(view)]
    if facts.isolation == "none" and facts.one_person:
        return [*emptied, *_as_user(facts)]
    raise InvalidSpec(
        f"jobs cannot be isolated from each other here (isolation {facts.isolation!r}), and the account is shared",
        hint="Use an account that is bound to one person, or ask the centre to allow user namespaces.",
    )


def clear(facts: Facts) -> list[str]:
    """The words that start what follows with an almost empty environment."""
    return ["/usr/bin/env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=job", f"HOME={facts.home or '/'}"]


def _as_user(facts: Facts) -> list[str]:
    if not facts.user:
        return []
    uid, _, gid = facts.user.partition(":")
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--"]


def _by_program(view: View) -> list[str]:
    facts = view.facts
    argv = [facts.program("heroes-isolate")]
    argv += ["--user", facts.user] if facts.user else []
    argv += ["--home", facts.home] if facts.home else []
    for path in (view.base, *facts.hide):
        argv += ["--hide", path]
    for bind in view.binds:
        argv += ["--rw-at" if bind.writable else "--ro-at", bind.source, bind.target]
    return [*argv, "--cd", view.folder, "--"]


def _by_unshare(view: View) -> list[str]:
    """Root of a namespace to mount; the script then enters a nested one as oneself, without any capability."""
    flags = ["--user", "--map-root-user", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"]
    return ["unshare", *flags, "/bin/sh", f"{view.job_folder}/lock"]


def lock(view: View) -> str:
    """The sh script that `unshare` runs as root of its namespaces: hide, bind, give up root, run its arguments.

    What is bound is first brought aside to the new /dev/shm, since hiding covers it. A step that fails ends the job
    with 125 before its program starts.
    """
    aside = {f"/dev/shm/{number}": bind for number, bind in enumerate(view.binds)}  # noqa: S108
    hidden = ("/tmp", "/var/tmp", view.facts.home, view.base, *view.facts.hide, *ALWAYS_HIDDEN)  # noqa: S108
    lines = ['trap \'[ -n "$locked" ] || { echo "heroes: isolation failed" >&2; exit 125; }\' EXIT', "set -e"]
    lines += [_covered("/dev/shm")]  # noqa: S108
    lines += [_bound(bind.source, place) for place, bind in aside.items()]
    lines += [_covered(path) for path in hidden if path]
    for place, bind in aside.items():
        lines += [_bound(place, bind.target)]
        lines += [] if bind.writable else [words(["mount", "-o", "remount,bind,ro", bind.target])]
    lines += [words(["umount", "-l", *aside]), words(["rm", "-rf", *aside])] if aside else []
    lines += ["read -r _ uid _ < /proc/self/uid_map", "read -r _ gid _ < /proc/self/gid_map"]
    lines += [words(["cd", view.folder]), "locked=1", "set +e"]
    lines += ['unshare --user --map-user="$uid" --map-group="$gid" setpriv --no-new-privs -- "$@"', "exit $?"]
    return "\n".join(lines) + "\n"


def _bound(source: str, target: str) -> str:
    parent = words(["mkdir", "-p", target.rpartition("/")[0]])
    made = (
        f"if [ -d {words([source])} ]; then {words(['mkdir', '-p', target])}; else {parent}; : > {words([target])}; fi"
    )
    return f"{made}; {words(['mount', '--rbind', source, target])}"


def _covered(path: str) -> str:
    tmpfs = words(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", path])
    null = words(["mount", "--bind", "/dev/null", path])
    name = words([path])
    return f"if [ -d {name} ]; then {tmpfs}; elif [ -e {name} ]; then {null}; fi"
