"""What a probe reads, and what makes it refuse a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heroes.api.errors import InvalidSpec, SchedulerDown
from heroes_spawners.programs import APPLICATIONS, ENGINES, NEEDED
from heroes_spawners.slurm import canary, probe
from heroes_spawners.slurm.site import SlurmSettings, SlurmSite
from heroes_spawners.transport import LocalTransport

PARTITIONS = b"""PartitionName=cpu MaxTime=04:00:00 OverSubscribe=NO OverTimeLimit=NONE State=UP RootOnly=NO Default=YES
PartitionName=whole MaxTime=UNLIMITED OverSubscribe=EXCLUSIVE OverTimeLimit=5 State=UP RootOnly=NO Default=NO
PartitionName=off MaxTime=1-00:00:00 OverSubscribe=NO State=DOWN RootOnly=NO
PartitionName=root MaxTime=1-00:00:00 OverSubscribe=NO State=UP RootOnly=YES
PartitionName=empty MaxTime=1-00:00:00 OverSubscribe=NO State=UP RootOnly=NO
"""
NODES = b"""cpu|3|8|16000|(null)|idle
cpu|1|4|8000|(null)|mix
whole|2|64|500000|gpu:a100:4(S:0-1)|idle~
off|1|1|1|(null)|down
root|1|1|1|(null)|idle
"""


def test_partitions_are_read() -> None:
    """Open partitions with their limits, and of their nodes the smallest, so that what fits fits on each."""
    found = probe.partitions_of(PARTITIONS, NODES, {"OverTimeLimit": "2 min", "ResumeTimeout": "90 sec"})
    assert found == {
        "cpu": {
            "cpus_per_node": 4, "memory_mib_per_node": 8000, "gpus_per_node": 0, "nodes": 4, "max_walltime_s": 14400,
            "exclusive": False, "over_time_limit_s": 120, "default": True,
        },
        "whole": {
            "cpus_per_node": 64, "memory_mib_per_node": 500000, "gpus_per_node": 4, "nodes": 2, "max_walltime_s": 0,
            "exclusive": True, "over_time_limit_s": 300, "default": False, "boot_s": 90,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", 0),
        ("gpu:2", 2),
        ("gpu:a100:4", 4),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a:1,gpu:b:2", 3),
        ("gpu", 1),
        ("nic:2", 0),
    ],
)
def test_gpus_are_counted(gres: str, gpus: int) -> None:
    """Every way in which sinfo writes them."""
    found = probe.partitions_of(PARTITIONS, f"cpu|1|8|1000|{gres}|idle\n".encode(), {})
    assert found["cpu"]["gpus_per_node"] == gpus


def login(**changed: bytes) -> dict[str, bytes]:
    """The login node's parts."""
    facts = b"clock 1000.0\nhome /home/h\nbase /home/h/heroes\nversion slurm 24.05.1\n"
    config = b"AccountingStorageType   = accounting_storage/slurmdbd\nKillWait = 30 sec\n"
    config += b"AuthInfo = socket=/var/m/munge.s.2\n"
    return {
        "facts": facts,
        "config": config,
        "partitions": PARTITIONS,
        "nodes": NODES,
        "accounting": b"works\n",
        **changed,
    }


def test_the_login_node_is_read() -> None:
    """Version, folders, clock, accounting, and where munge's socket is."""
    facts = probe._login_facts(login(), 1001.5)
    assert (facts["scheduler"], facts["home"], facts["accounting"]) == ("slurm 24.05.1", "/home/h", "full")
    assert (facts["clock_skew_s"], facts["kill_wait_s"], facts["hide"], facts["epoch"]) == (-1.5, 30, ["/var/m"], 0)


def test_accounting_must_work_to_count() -> None:
    """A database that is configured and does not answer is none."""
    assert probe._login_facts(login(accounting=b""), 1000)["accounting"] == "none"
    assert (
        probe._login_facts(login(config=b"AccountingStorageType = accounting_storage/none\n"), 1000)["accounting"]
        == "none"
    )


def test_what_is_lacking_is_named() -> None:
    """A login node that lacks something is refused with all of it."""
    with pytest.raises(InvalidSpec) as refused:
        probe._login_facts(login(facts=login()["facts"] + b"lacks the program flock\nlacks GNU tar\n"), 1000)
    assert "the program flock, GNU tar" in refused.value.message


def test_clocks_must_agree() -> None:
    """Minutes of difference make times meaningless."""
    with pytest.raises(InvalidSpec) as refused:
        probe._login_facts(login(), 2000)
    assert "clock" in refused.value.message


def node(**changed: Any) -> canary.Node:
    """What a canary found."""
    found: dict[str, Any] = {
        "isolation": "unshare", "programs": frozenset({"earl-run"}), "applications": frozenset({"openfoam", "mpi"}),
        "container": "ch-run", "offline": True, "platform": {"arch": "x86_64"},
    }  # fmt: skip
    return canary.Node(**{**found, **changed})


def together(**nodes: canary.Node) -> dict[str, Any]:
    """The facts of a cluster with these nodes."""
    return probe._together({"partitions": {name: {} for name in nodes}}, nodes)


def test_a_cluster_has_what_each_partition_has() -> None:
    """Applications, programs and isolation hold everywhere, or do not hold."""
    facts = together(
        a=node(),
        b=node(isolation="heroes-isolate", applications=frozenset({"mpi"}), container="apptainer", offline=False),
    )
    assert (facts["isolation"], facts["applications"], facts["container"], facts["offline"]) == (
        "unshare",
        ["mpi"],
        "",
        False,
    )


def test_a_partition_that_refuses_us_is_left_out() -> None:
    """It is told with the scheduler's words; when all refuse, the cluster is refused."""
    facts = together(a=node(), b=canary.Node(refused="not permitted"))
    assert (set(facts["partitions"]), facts["refused_partitions"]) == ({"a"}, {"b": "not permitted"})
    with pytest.raises(InvalidSpec) as refused:
        together(b=canary.Node(refused="not permitted"))
    assert "not permitted" in refused.value.message


def test_without_isolation_a_shared_account_is_refused() -> None:
    """Jobs of one account could read each other."""
    with pytest.raises(InvalidSpec) as refused:
        together(a=node(isolation="none"))
    assert "isolated" in refused.value.message


ASKED = {"JobName": "K", "Partition": "cpu", "WorkDir": "/b/jobs/K", "Requeue": "0", "TimeLimit": "00:02:00"}


def site() -> SlurmSite:
    """A site that is asked nothing."""
    return SlurmSite(LocalTransport(), SlurmSettings("/b"))


def test_a_site_that_does_as_asked_passes() -> None:
    """The scheduler has what was asked for; a job that is forgotten already is not compared."""
    canary._compare(site(), "cpu", "K", ASKED)
    canary._compare(site(), "cpu", "K", {})


def test_a_canary_that_cannot_be_looked_at_proves_nothing(tmp_path: Path) -> None:
    """A scheduler that does not answer is asked again; one that has forgotten the job has answered."""
    program = tmp_path / "scontrol"
    transport = LocalTransport({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    here = SlurmSite(transport, SlurmSettings("/b"))
    for said, status in (("Unable to contact slurm controller", 1), ("Invalid job id specified", 1), ("JobName=K", 0)):
        program.write_text(f"#!/bin/sh\n[ {status} = 0 ] || exec >&2\necho '{said}'\nexit {status}\n")
        program.chmod(0o755)
        if "contact" in said:
            with pytest.raises(SchedulerDown, match="cannot be looked at: Unable to contact"):
                canary._show(here, "7")
        else:
            assert canary._show(here, "7") == ({} if status else {"JobName": "K"})


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("JobName", "site-K"),
        ("WorkDir", "/scratch"),
        ("Requeue", "1"),
        ("Partition", "other"),
        ("TimeLimit", "01:00:00"),
    ],
)
def test_a_site_that_changes_what_was_asked_is_refused(what: str, value: str) -> None:
    """The reason names what was asked for and what it is."""
    with pytest.raises(InvalidSpec) as refused:
        canary._compare(site(), "cpu", "K", {**ASKED, what: value})
    assert value in refused.value.message
    assert ASKED[what] in refused.value.message


def test_the_programs_sought_are_plain_words() -> None:
    """They stand in a script as they are."""
    for names in (*APPLICATIONS.values(), ENGINES, NEEDED, tuple(APPLICATIONS)):
        assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)
