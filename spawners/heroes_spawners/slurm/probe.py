"""What a centre offers: asked at the login node, then proved on compute nodes by canaries."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from heroes.api.errors import InvalidSpec
from heroes_spawners.programs import NEEDED
from heroes_spawners.slurm import canary, commands, options, parse
from heroes_spawners.slurm.site import SlurmSettings, SlurmSite
from heroes_spawners.transport import Transport

#: By how much clocks may differ: scheduler times are compared with ours.
MOST_SKEW_S = 300.0


@dataclass(frozen=True)
class Findings:
    """The base directory, and the facts as a plain dict (docs/operators and runtime/README.md name them)."""

    base: str
    facts: dict[str, Any]


def probe(
    transport: Transport, base: str = "", partitions: Sequence[str] = (), *, patience_s: float = 300.0
) -> Findings:
    """Probe a cluster; `base` empty: ~/heroes. Canaries run in `partitions`, in every open one when none is named.

    InvalidSpec with the reason when the cluster cannot be used; LinkDown or SchedulerDown when it cannot be asked
    now."""
    asked_at = time.time()
    login = _login(transport, base)
    facts = _login_facts(login, (asked_at + time.time()) / 2)
    found = options.check_base(facts.pop("base"))
    epoch = int(facts.pop("epoch"))
    wanted = [name for name in partitions if name in facts["partitions"]] or sorted(facts["partitions"])
    site = SlurmSite(transport, SlurmSettings(found, facts["accounting"], "", facts))
    site.prepare(epoch)
    nodes = canary.run(site, wanted, facts, epoch, patience_s)
    return Findings(found, _together(facts, nodes))


def _login(transport: Transport, base: str) -> dict[str, bytes]:
    nonce = secrets.token_hex(8)
    script = resources.files("heroes_spawners.runtime").joinpath("probe-login.sh").read_text()
    argv = ("sh", "-c", script, "heroes", nonce, options.check_base(base) if base else "", *NEEDED)
    return parse.frame(transport.run(argv, deadline_s=120, limit=16 * commands.MIB), nonce)


def _login_facts(parts: Mapping[str, bytes], now: float) -> dict[str, Any]:
    """Facts of the login node and of the scheduler's configuration."""
    said = pairs(parts["facts"])
    if "lacks" in said:
        hint = "Ask the centre, or enrol with another base directory."
        raise InvalidSpec(f"the login node lacks {', '.join(said['lacks'])}", hint=hint)
    skew = float(said["clock"][0]) - now
    if abs(skew) > MOST_SKEW_S:
        raise InvalidSpec(f"the login node's clock differs from ours by {skew:.0f} s", hint="Synchronise the clocks.")
    config = dict(re.findall(r"^(\w+) *= (.*)$", parts["config"].decode(errors="replace"), re.MULTILINE))
    full = "slurmdbd" in config.get("AccountingStorageType", "") and b"works" in parts["accounting"]
    return {
        "base": said["base"][0],
        "epoch": parse.number(said.get("epoch", ["0"])[0]),
        "home": said["home"][0],
        "scheduler": said["version"][0],
        "clock_skew_s": round(skew, 3),
        "accounting": "full" if full else "none",
        "over_time_limit_s": 60 * parse.number(config.get("OverTimeLimit", "0")),
        "kill_wait_s": parse.number(config.get("KillWait", "30")),
        "slurmd_timeout_s": parse.number(config.get("SlurmdTimeout", "300")),
        "min_job_age_s": parse.number(config.get("MinJobAge", "300")),
        "hide": _munge_folder(config.get("AuthInfo", "")),
        "launcher": "srun",
        "partitions": partitions_of(parts["partitions"], parts["nodes"], config),
    }


def _munge_folder(auth: str) -> list[str]:
    """Where munge's socket is, when it is not where isolation hides it anyway."""
    match = re.search(r"socket=(/[^,\s]+)/[^/,\s]+", auth)
    return [match[1]] if match and match[1] not in ("/run/munge", "/var/run/munge") else []


def pairs(data: bytes) -> dict[str, list[str]]:
    """Lines "name value", every value of a name in order."""
    found: dict[str, list[str]] = {}
    for line in parse.lines(data):
        name, given, value = line.partition(" ")
        if given:
            found.setdefault(name, []).append(value.strip())
    return found


def partitions_of(shown: bytes, nodes: bytes, config: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Open partitions, from `scontrol -o show partition` and sinfo `partition|nodes|cpus|memory|gres|state`."""
    shapes = _shapes(nodes)
    found = {}
    for line in parse.lines(shown):
        said = dict(re.findall(r"(\w+)=(\S*)", line))
        name = said.get("PartitionName", "")
        if said.get("State") == "UP" and name in shapes and said.get("RootOnly") != "YES":
            found[name] = {**shapes[name], **_limits(said, config)}
            if found[name].pop("on_demand"):
                found[name]["boot_s"] = parse.number(config.get("ResumeTimeout", "60"))
    return found


def _limits(said: Mapping[str, str], config: Mapping[str, str]) -> dict[str, Any]:
    over = said.get("OverTimeLimit", "NONE")
    linear = "linear" in config.get("SelectType", "")
    return {
        "max_walltime_s": parse.duration(said.get("MaxTime", "")) or 0,
        "exclusive": linear or said.get("OverSubscribe", "").startswith("EXCLUSIVE"),
        "over_time_limit_s": 60 * parse.number(over if over != "NONE" else config.get("OverTimeLimit", "0")),
        "default": said.get("Default") == "YES",
    }


def _shapes(nodes: bytes) -> dict[str, dict[str, Any]]:
    """Nodes of each partition: how many, and the smallest of them, so that what fits fits on each."""
    found: dict[str, dict[str, Any]] = {}
    for line in parse.lines(nodes):
        fields = line.strip().split("|")
        if len(fields) != 6:
            continue
        name, count, cpus, memory, gres, state = fields
        gpus = sum(
            int(number or 1) for number in re.findall(r"gpu(?::[A-Za-z0-9_.-]+)??(?::(\d{1,4}))?(?=\(|,|$)", gres)
        )
        shape = {
            "cpus_per_node": parse.number(cpus),
            "memory_mib_per_node": parse.number(memory),
            "gpus_per_node": gpus,
        }
        known = found.setdefault(name, {**shape, "nodes": 0, "on_demand": False})
        known |= {key: min(known[key], value) for key, value in shape.items()}
        known["nodes"] += parse.number(count)
        known["on_demand"] = known["on_demand"] or state[-1:] in ("~", "#", "%", "!")
    return found


def _together(facts: dict[str, Any], nodes: Mapping[str, canary.Node]) -> dict[str, Any]:
    """The facts with what canaries found: of the whole cluster only what holds in each of its partitions."""
    good = {name: node for name, node in nodes.items() if not node.refused}
    if not good:
        told = "; ".join(f"{name}: {node.refused}" for name, node in nodes.items())
        raise InvalidSpec(f"no partition takes our jobs: {told}", hint="Ask the centre which partitions we may use.")
    weakest = min((node.isolation for node in good.values()), key=("none", "unshare", "heroes-isolate").index)
    if weakest == "none":
        hint = "Ask the centre to allow unprivileged user namespaces."
        raise InvalidSpec("jobs cannot be isolated from each other on the compute nodes", hint=hint)
    first, every = next(iter(good.values())), list(good.values())
    kept = {name: {**facts["partitions"][name], **node.own()} for name, node in good.items()}
    return {
        **facts,
        "partitions": kept,
        "refused_partitions": {name: node.refused for name, node in nodes.items() if node.refused},
        "isolation": weakest,
        "programs": sorted(frozenset.intersection(*(node.programs for node in every))),
        "applications": sorted(frozenset.intersection(*(node.applications for node in every))),
        "container": first.container if all(node.container == first.container for node in every) else "",
        "offline": all(node.offline for node in every),
        "ear": all(node.ear for node in every),
        "gpus": max(node.gpus for node in every),
        **first.platform,
        "shared": True,
        "node_clock_skew_s": first.clock_skew_s,
        "variables": sorted(frozenset.union(*(node.variables for node in every))),
    }
