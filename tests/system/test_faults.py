"""What can go wrong after a run was accepted, on this machine and at a real centre over SSH: the run's end says why and
what to do, what was used is charged and no more, and what the job left is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heroes.api import clusters, jobs
from heroes.api.errors import InvalidSpec
from heroes.api.ids import new_ulid
from heroes.api.units import Money
from heroes.runs import ENDED, Run
from heroes_clusters.keys import new_key_pair
from tests.lab import Lab, LabCluster, faults
from tests.lab.fixtures import lab
from tests.lab.relay import Link
from tests.system.rig import SCRIPT, System, enrol, running_system, said, shown, wait_ready, wait_until

__all__ = ["lab"]
pytestmark = pytest.mark.timeout(300)
DIGEST = f"sha256:{hashlib.sha256(b'no image').hexdigest()}"
IMAGE = "/images/absent.sqfs"
#: The script workflow, with an output that must be there and may have one MiB.
DECLARED = (
    SCRIPT.replace("name: script", "name: declared", 1)
    + "    outputs: [{glob: wanted.txt, required: true, max_mib: 1}, {glob: '*', max_mib: 7}]\n"
)
IMAGED = (
    SCRIPT.replace("name: script", "name: imaged", 1)
    + f"    application: {{image: {{path: {IMAGE}, digest: '{DIGEST}'}}}}\n"
)
CHAIN = (
    SCRIPT.replace("name: script", "name: chain", 1)
    + """  - name: later
    needs: [work]
    argv: [cat, "{{needs.work}}/part.txt"]
    resources: {walltime_s: 120}
"""
)


@dataclass(frozen=True)
class Case:
    """A job that goes wrong. `says`: words of the reason; `kept`: files that are there afterwards."""

    script: str
    says: tuple[str, ...]
    kept: frozenset[str] = frozenset({"part.txt", "stdout.txt"})
    workflow: str = "script"
    places: tuple[str, ...] = ("local/small", "alpha/cpu")
    values: Mapping[str, Any] = field(default_factory=dict)


LEAVE = "echo begun; echo half > part.txt"
#: What a job does that believes it can help itself: forge its end and its energy, ask the scheduler, look at others.
FORGE = f"""{LEAVE}
key=$(basename $(dirname $PWD))
for file in ../../../records/$key ../record ../exit; do echo "1 0 0.01" > $file; done 2> /dev/null
echo '{{"format": "heroes-energy", "energy_j": 0}}' > ../energy.json
sbatch --wrap 'touch ESCAPED' && echo ESCAPED
scancel --me && echo ESCAPED
squeue --me && echo ESCAPED
cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep CANARY && echo ESCAPED
cat ../../*/environment ../../*/script ../../../jobs/*/stdout && echo ESCAPED
exit 42"""

CASES: dict[str, Case] = {
    "script failing": Case(f"{LEAVE}; echo why >&2; exit 3", ("exit code 3", "stderr.txt"),
                           frozenset({"part.txt", "stdout.txt", "stderr.txt"})),
    "no such command": Case(f"{LEAVE}; /no/such/program", ("exit code 127", "not found", "stderr.txt"),
                            frozenset({"part.txt", "stdout.txt", "stderr.txt"})),
    "output missing": Case(LEAVE, ("no file matches 'wanted.txt'", "Correct the command"), workflow="declared"),
    "output a link": Case(f"{LEAVE}; ln -s /etc/passwd wanted.txt", ("'wanted.txt' is a link", "Correct the command"),
                          workflow="declared"),
    "output too large": Case(f"{LEAVE}; head -c 2097152 /dev/zero > wanted.txt",
                             ("'wanted.txt' has 2,097,152 bytes, and 1,048,576 are allowed",), workflow="declared"),
    "output beyond all bounds": Case(
        f"{LEAVE}; head -c 20000000 /dev/zero > huge.bin",
        ("exit code 153", "larger than all of its outputs may be", "max_mib"),
        workflow="declared",
    ),
    "walltime exceeded": Case(f"{LEAVE}; exec sleep 600", ("limit of 2 s", "longer walltime"),
                              places=("local/small",), values={"walltime_s": 2}),
    "walltime exceeded at the centre": Case(f"{LEAVE}; exec sleep 600", ("limit of 60 s", "longer walltime"),
                                            places=("alpha/cpu",), values={"walltime_s": 60}),
    "out of memory": Case(
        f"{LEAVE}; held=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 600",
        ("the 32 MiB that it asked for", "more memory"),
        places=("local/small",),
        values={"memory_mib": 32},
    ),
    "image missing": Case(LEAVE, (IMAGE, "Have it put there"), frozenset(), "imaged", ("alpha/cpu",)),
    "a step before fails": Case(f"{LEAVE}; exit 1", ("work: ", "exit code 1"), workflow="chain"),
    "forged": Case(FORGE, ("exit code 42",)),
}  # fmt: skip
WHERE = [(what, place) for what, case in CASES.items() for place in case.places]


# ------------------------------------------------------------------------------------------------------------- the rig


@pytest.fixture(scope="module")
def alpha(lab: Lab) -> LabCluster:
    """The HPC centre."""
    return lab.cluster("alpha")


@pytest.fixture(scope="module")
def link(alpha: LabCluster) -> Iterator[Link]:
    """The way to it, which can be cut."""
    with faults.relay(alpha) as made:
        yield made


@pytest.fixture(scope="module")
def system(link: Link, alpha: LabCluster) -> Iterator[System]:
    """A platform with the machine itself and the centre behind the link; the centre has taken one of the two partitions
    away since it was enrolled."""
    with running_system() as made:
        alpha.run("scontrol", "create", "partitionname=ghost", "nodes=ALL", "maxtime=60", "state=up")
        try:
            enrol(made, link.cluster, "alpha", partitions=("cpu", "ghost"))
            for document in (DECLARED, IMAGED, CHAIN):
                made.publish(document)
            wait_ready(made, "alpha")
            wait_until("its canaries are gone", lambda: not alpha.run("squeue", "-h", "-p", "ghost").stdout)
        finally:
            alpha.run("scontrol", "delete", "partitionname=ghost")
        yield made


@pytest.fixture(scope="module")
def submitted(system: System) -> dict[tuple[str, str], Run]:
    """All failing jobs, submitted at once; beside them one that holds a secret on each cluster and ends well."""
    found = {}
    for place in ("local/small", "alpha/cpu"):
        secret = "CANARY=5b1f; export CANARY; echo $CANARY; sleep 4"
        found["victim", place] = system.script(secret, place=place)
    for what, place in WHERE:
        case = CASES[what]
        values = {"walltime_s": 120, **case.values}
        found[what, place] = system.script(case.script, place=place, workflow=case.workflow, **values)
    return found


def attempts(run: Run, system: System) -> list[jobs.Attempt]:
    """The attempts of a run."""
    return list(system.emma.client.pages(jobs.LIST, jobs.ListAttempts(instance=run.id)))


def reason(run: Run, system: System) -> str:
    """Why its first attempt waits, or ended."""
    return attempts(run, system)[0].reason


def story(run: Run, system: System) -> str:
    """What happened to the first attempt of a run, as text."""
    (first, *_) = attempts(run, system)
    told: jobs.Story = system.emma.client.call(jobs.STORY, jobs.OneAttempt(key=first.key))
    return "\n".join(each.text for each in told.story)


def charged(system: System, run: Run) -> Money:
    """What its attempts cost, by their own account."""
    return sum((each.cost or Money.zero() for each in attempts(run, system)), Money.zero())


# ----------------------------------------------------------------------------------------------- what jobs do wrong


@pytest.mark.parametrize(("what", "place"), WHERE)
def test_a_job_that_goes_wrong(system: System, submitted: Mapping[tuple[str, str], Run], what: str, place: str) -> None:
    """The run fails and says why, with the value and the way out; what was used is charged, what was left is kept."""
    case, run = CASES[what], submitted[what, place]
    ended = system.ended(run)
    assert ended.state == "failed", said(run)
    for words in case.says:
        assert words in ended.reason
    kept = {Path(each.key).name for each in run.results}
    assert case.kept <= kept
    assert "wanted.txt" not in kept
    if "part.txt" in case.kept:
        assert run.results.read("part.txt") == b"half\n"
        assert "ESCAPED" not in (run.log("work") or "")
    assert ended.cost == charged(system, run) <= ended.reserved
    assert len(attempts(run, system)) == (2 if case.workflow == "chain" else 1), "it is not the cluster's fault"
    assert run.report().told.returned == ended.reserved - ended.cost


@pytest.mark.parametrize("place", ["local/small", "alpha/cpu"])
def test_who_ran_beside_them_is_unharmed(system: System, submitted: Mapping[tuple[str, str], Run], place: str) -> None:
    """The job whose secret was looked for ended well, and its log holds its own words only."""
    run = submitted["victim", place]
    assert system.ended(run).state == "done", said(run)
    assert run.log("work") == "5b1f\n"
    (job,) = run.jobs
    assert job.cost == charged(system, run)
    if place == "alpha/cpu":
        assert job.cost.micros >= 400, "4 s of a core at 100 micro-units"


def test_a_step_that_is_never_run_costs_nothing(system: System, submitted: Mapping[tuple[str, str], Run]) -> None:
    """The step after a failed one is void, its reservation returned."""
    run = submitted["a step before fails", "alpha/cpu"]
    system.ended(run)
    states = {job.step: (job.state, job.reason) for job in run.jobs}
    assert states["work"][0] == "failed"
    assert states["later"] == ("void", "never run: step work did not end well")
    assert {each.step: each.cost for each in attempts(run, system)}["later"] == Money.zero()


# --------------------------------------------------------------------------------------------------- the centre's own


def test_an_invalid_partition_is_named(system: System) -> None:
    """A queue of a partition that the centre does not have is refused; where the centre took it away later, a run fails
    at once, says so, and costs nothing."""
    asked = clusters.SetQueue(cluster_id="alpha", queue="spook", partition="spook")
    with pytest.raises(InvalidSpec, match="alpha has no partition spook"):
        system.carla.client.call(clusters.SET_QUEUE, asked)
    run = system.script("true", place="alpha/ghost")
    ended = system.ended(run)
    assert (ended.state, ended.cost.micros) == ("failed", 0), said(run)
    for words in ("no partition for queue ghost", "Choose another one", "nvalid partition"):
        assert words in ended.reason
    system.carla.client.call(clusters.REMOVE_QUEUE, clusters.AskQueue(cluster_id="alpha", queue="ghost"))


def test_the_centres_own_limit_is_waited_for(system: System, alpha: LabCluster) -> None:
    """What the centre does not take yet waits with us and says so, its money reserved; then all of it is run."""
    with faults.submit_limit(alpha, 0):
        held = [system.script("echo ran", place="alpha/cpu") for _ in range(2)]
        wait_until("they wait", lambda: all("no more jobs in queue cpu" in reason(run, system) for run in held))
        assert not {run.state for run in held} & ENDED
        assert system.pending() >= held[0].seen.reserved + held[1].seen.reserved
    for run in held:
        assert system.ended(run).state == "done", said(run)
        assert len(attempts(run, system)) == 1
        assert run.log("work") == "ran\n"


def test_a_full_disk_is_waited_for(system: System, alpha: LabCluster) -> None:
    """Nothing can be written at the centre: nothing is lost or charged, and the attempt says what is wrong and what to
    do; with room again the same run ends well."""
    path = f"{alpha.home}/narrow-{new_ulid()}"
    with faults.small_disk(alpha, path, mib=16) as disk:
        enrol(system, alpha, "narrow", base=path)
        wait_ready(system, "narrow")
        disk.fill()
        run = system.script("echo ran", place="narrow/cpu")
        told = wait_until("it is told", lambda: full(reason(run, system)))
        assert "Free space or quota at the centre" in told
        assert run.state not in ENDED
        assert system.pending() >= run.seen.reserved
        disk.free()
        assert system.ended(run).state == "done", said(run)
        assert run.log("work") == "ran\n"
        change = clusters.ChangeCluster(cluster_id="narrow", disabled=True)
        system.carla.client.call(clusters.CHANGE, change)


def full(reason: str) -> str:
    """The reason, where it is a full disk."""
    return reason if "cannot write" in reason else ""


def test_a_wrong_host_key_is_never_spoken_to(system: System, alpha: LabCluster) -> None:
    """A host that shows another key than the pinned one is not used, and the administrator is told."""
    other = " ".join(new_key_pair("other").public_key.split()[:2])
    enrol(system, alpha, "mallory", host_key=other)
    told = wait_until("it is told", lambda: shown(system, "mallory").reason)
    assert "not the pinned one" in told
    assert shown(system, "mallory").status != "ready"
    system.carla.client.call(clusters.CHANGE, clusters.ChangeCluster(cluster_id="mallory", disabled=True))
    system.carla.client.call(clusters.REMOVE, clusters.AskCluster(cluster_id="mallory"))


# ----------------------------------------------------------------------------------------------------------- the link


def test_a_cluster_that_cannot_be_reached_loses_nothing(system: System, link: Link) -> None:
    """Nothing fails and nothing is released; the cluster and its runs say since when; then all of it goes on."""
    running = system.script("echo begun; sleep 2; echo half > part.txt; echo ended", place="alpha/cpu")
    wait_until("it runs", lambda: running.state == "running")
    link.cut()
    try:
        wait_until("the cluster is known to be away", lambda: shown(system, "alpha").unreachable_since)
        options = system.emma.workflows["script"].decide(script="true")
        assert "alpha/cpu" not in {each.told.place for each in options}
        (away,) = [each for each in options.rejected if each.place == "alpha/cpu"]
        assert "reachable" in away.reason
        assert running.state == "running"
        assert "not been reachable since" in reason(running, system)
        assert system.pending() >= running.seen.reserved
    finally:
        link.restore()
    assert system.ended(running).state == "done", said(running)
    assert running.log("work") == "begun\nended\n"
    assert shown(system, "alpha").unreachable_since is None
    assert len(attempts(running, system)) == 1


def test_cancelled_while_its_submission_is_unknown(system: System, link: Link, alpha: LabCluster) -> None:
    """The link is lost while sbatch is under way, and the user cancels: it ends cancelled, and never runs later."""
    with faults.delayed_sbatch(alpha, seed=11, longest_s=4.0) as calls:
        run = system.script("echo ran", place="alpha/cpu")
        wait_until("sbatch was called", lambda: calls.seen("sbatch"))
        link.cut()
        wait_until("it is in doubt", lambda: "not known whether submitted" in story(run, system))
        assert run.cancel().seen.state not in ENDED
        assert run.cancel().seen.state not in ENDED
        assert system.pending() >= run.seen.reserved
        link.restore()
        ended = system.ended(run)
        (attempt,) = attempts(run, system)
        assert calls.submissions()[attempt.key] <= 1
    assert (ended.state, ended.reason) == ("cancelled", "cancelled by emma@acme")
    assert ended.cost == charged(system, run) <= ended.reserved
