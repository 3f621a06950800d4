"""Sentences for users: how an attempt ended, or why it waits, and the way out. A table for each source of trouble."""

from __future__ import annotations

from collections.abc import Sequence

from heroes_spawners.site import Refusal, State
from heroes_spawners.slurm.words import never_clears

#: Words in a scheduler's refusal -> what it means for the user. First match counts; lower case.
_REFUSALS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("invalid partition",), "The cluster has no partition for queue {queue}. Choose another one, or tell its owner."),
    (("invalid account", "account/partition combination"),
     "The cluster refuses the account of queue {queue}. Choose another queue; its owner must correct the account."),
    (("time limit",), "The requested time is longer than queue {queue} allows. Ask for less, or choose another queue."),
    (("node count", "node configuration is not available", "more processors", "memory specification"),
     "No node of queue {queue} has that shape. Ask for fewer CPUs, nodes or less memory, or choose another queue."),
    (("image", "container"),
     "The container image {image} is missing at the cluster, or is another one. Have it put there."),
)  # fmt: skip

#: The way out of pending reasons that never clear by waiting; `slurm.words.never_clears` says which those are.
_HOPELESS: dict[str, str] = {
    "PartitionNodeLimit": "it asks for more nodes than queue {queue} gives. Ask for fewer, or choose another queue.",
    "PartitionTimeLimit": "it asks for more time than queue {queue} gives. Ask for less, or choose another queue.",
    "BadConstraints": "no node of queue {queue} can ever satisfy it. Ask for less, or choose another queue.",
    "InvalidAccount": "the cluster refuses the account of queue {queue}. Its owner must correct it.",
    "InvalidQOS": "the cluster refuses the quality of service of queue {queue}. Its owner must correct it.",
    "AccountNotAllowed": "the account may not use queue {queue}. Choose another queue.",
    "QOSNotAllowed": "the quality of service may not use queue {queue}. Choose another queue.",
    "AssocMaxWallDurationPerJobLimit": "the account may not run that long. Ask for less time.",
    "QOSMaxWallDurationPerJobLimit": "queue {queue} lets no job run that long. Ask for less time.",
    "AssocMaxCpuPerJobLimit": "the account may not use that many CPUs in one job. Ask for fewer.",
    "QOSMaxCpuPerJobLimit": "queue {queue} gives no job that many CPUs. Ask for fewer.",
    "AssocMaxNodePerJobLimit": "the account may not use that many nodes in one job. Ask for fewer.",
    "QOSMaxNodePerJobLimit": "queue {queue} gives no job that many nodes. Ask for fewer.",
    "QOSMaxMemoryPerJob": "queue {queue} gives no job that much memory. Ask for less.",
    "DependencyNeverSatisfied": "the cluster waits for a job that will never come. Submit it again.",
}


def hopeless(reason: str, queue: str) -> str:
    """The sentence for a pending `reason` that never clears; "" where waiting helps."""
    meaning = never_clears(reason)
    if not meaning:
        return ""
    told = _HOPELESS.get(reason.strip("()"), f"{meaning}. Ask for less, or choose another queue than {{queue}}.")
    return f"The job would wait forever: {told.format(queue=queue)}"


def refused(kind: Refusal, text: str, queue: str, image: str = "") -> str:
    """The sentence for a scheduler's refusal; its own words are kept at the end."""
    words = " ".join(text.split())[:300]
    if kind is Refusal.LIMIT:
        return f"The centre lets us have no more jobs in queue {queue} now; it waits for its turn. ({words})"
    if kind is Refusal.STORAGE:
        return f"The disk or quota of the cluster is full; its owner must make room, or choose another one. ({words})"
    for needles, sentence in _REFUSALS:
        if any(needle in text.lower() for needle in needles):
            return f"{sentence.format(queue=queue, image=image or 'of this step')} ({words})"
    return f"The scheduler refused the job, and would again: {words}. Change what it asks for, or choose another queue."


#: Exit status of the job script when another job executes its attempt: the site launched it a second time.
DUPLICATE = 122
#: A command ended by SIGKILL or SIGTERM.
KILLED = (137, 143)
#: Exit status of the job script when the image is missing or is another one; it leaves no record then.
WRONG_IMAGE = 123

#: Exit statuses that mean something of their own to a shell (POSIX, 2.8.2) or to our job script.
_CODES = {
    125: "its isolation could not be made, or it ended so by itself",
    126: "the command cannot be executed: check that the file is executable and made for this cluster's CPUs",
    127: "the command was not found: check its name, the image, or the modules it needs",
    134: "it aborted (SIGABRT)",
    136: "it divided by zero or the like (SIGFPE)",
    137: "it was killed (SIGKILL): often out of memory",
    139: "it touched memory that is not its own (SIGSEGV)",
    143: "it was told to stop (SIGTERM)",
    153: "it wrote a file that is larger than all of its outputs may be (SIGXFSZ): write less, or raise max_mib of the "
    "template's outputs",
}


def exited(code: int) -> str:
    """The sentence for a command that failed by itself."""
    more = _CODES.get(code, "its own message stands in stderr")
    return f"The command ended with exit code {code}: {more}. Read stderr.txt among the results, then run it again."


def by_state(state: State, walltime_s: float = 0.0, memory_mib: int = 0) -> str:
    """The sentence for an end that the scheduler decided; limits that are 0 are not named."""
    if state is State.TIMEOUT:
        limit = f" of {walltime_s:.0f} s" if walltime_s else ""
        return f"It needed more time than its limit{limit}. Run it again with a longer walltime, or a smaller problem."
    if state is State.OUT_OF_MEMORY:
        asked = f"the {memory_mib} MiB that it asked for" if memory_mib else "its share"
        return f"It needed more memory than {asked}. Run it again with more memory, or a smaller problem."
    if state is State.CANCELLED:
        return "The centre cancelled it, or somebody with its account did. Ask the centre why, or run it again."
    return "The cluster failed under it (a node died, or it was displaced). Nothing is charged."


def why(state: State, exit_code: int, walltime_s: float, memory_mib: int, image: str) -> str:
    """The sentence for an end that the scheduler decided and that the step's own figures explain; "" for others."""
    if state in (State.TIMEOUT, State.OUT_OF_MEMORY):
        return by_state(state, walltime_s, memory_mib)
    return no_image(image) if state is State.FAILED and exit_code == WRONG_IMAGE else ""


LOST = (
    "The cluster lost it: it ended without leaving an exit record (a node died, or the cluster's disk is full). "
    "Nothing is charged. Run it again, or choose another cluster."
)
NEVER_KEPT = (
    "The cluster took it several times and lost it each time. Nothing is charged. Choose another cluster, and tell its "
    "owner."
)
CANCELLED = "It was cancelled by {actor}."
SCHEDULER_DISAGREES = (
    "The command left exit code 0, but the scheduler says that the job failed. Read stderr.txt among the results, then "
    "run it again."
)


def outgrown(cpus: int, nodes: int, more: str) -> str:
    """What ends a job that was given more than is reserved for it, where the rest cannot be reserved."""
    return (
        f"The cluster allocated {cpus} CPUs on {nodes} nodes, more than was reserved for it, and the difference could "
        f"not be reserved: {more} Have the budget raised, or choose another queue."
    )


def unreachable(cluster: str, since: str, trouble: str = "") -> str:
    """What is shown while a cluster does not answer, or cannot work: its own trouble is told at the end."""
    words = f" ({' '.join(trouble.split())[:300]})" if trouble else ""
    return (
        f"{cluster} has not been reachable since {since}. Nothing is lost: jobs go on there, and are followed again."
        f"{words}"
    )


def no_image(image: str = "") -> str:
    """The sentence for an image that is not there, or is another one."""
    return (
        f"The container image {image or 'of this step'} is missing on the cluster's nodes, or is not the one that its "
        "digest names. Have it put there, or choose another queue."
    )


def outputs(missing: Sequence[str], links: Sequence[str], large: Sequence[tuple[str, int, int]]) -> str:
    """The sentence for outputs that are not as declared; "" where all is well. `large`: (path, bytes, cap)."""
    faults = [f"no file matches {glob!r}" for glob in missing]
    faults += [f"{path!r} is a link or not a regular file, and was left behind" for path in links]
    faults += [f"{path!r} has {size:,} bytes, and {cap:,} are allowed" for path, size, cap in large]
    if not faults:
        return ""
    shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
    return (
        f"Its outputs are not as declared: {shown}. What it did leave stands among the results. Correct the command or "
        "the template's outputs, then run it again."
    )
