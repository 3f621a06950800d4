"""The engine as the crash tests start it, to be killed.

A real engine in a process of its own, on a real cluster of the lab, over real SSH, with the real mover and object
server. It is forked from a server that has imported everything, so that forty lives do not import it forty times.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from heroes_core import failpoints
from heroes_core.work import Database
from heroes_data.embedded import EmbeddedServer
from heroes_data.s3 import S3Store
from heroes_data.staging import Mover
from heroes_jobs.desk import EngineSettings
from heroes_jobs.engine import Engine
from heroes_jobs.model import Rules
from heroes_jobs.ports import ClusterFacts, QueueFacts
from heroes_spawners.site import Site
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from heroes_spawners.slurm.commands import Place
from heroes_spawners.transport import Endpoint, SshTransport
from tests.crash.weak import weakened
from tests.lab import LabCluster, LabError, lifecycle

AUDIT_KEY = b"a key for crash tests, of 32 bytes"
#: As the architecture sets them, never below 8 s, but for a lab whose faults are over soon.
RULES = Rules(
    unsure_s=12, gap_s=4, ask_s=2, reclaim_s=2, tentative_s=10, relist_s=24, silent_s=120, limit_s=3, cancel_s=6
)


@dataclass(frozen=True)
class Plan:
    """What an engine of a campaign is told."""

    url: str
    lab: str
    cluster: str
    base: str
    queue: str
    objects: str
    endpoint: str
    guard: str = ""
    chunk: int = 8
    rules: dict[str, float] = field(default_factory=dict)
    port: int = 0
    keep_days: float = 14.0

    def lab_cluster(self) -> LabCluster:
        """The cluster of the lab."""
        lab = lifecycle.stored(Path(self.lab))
        if lab is None:
            raise LabError(f"no lab in {self.lab}")
        return lab.cluster(self.cluster)


@dataclass(frozen=True)
class OneSite:
    """Opens the one site."""

    site: Site

    def open(self, _cluster: str) -> Site:
        """The site."""
        return self.site


@dataclass(frozen=True)
class OneCluster:
    """Knows the one cluster and its one queue."""

    plan: Plan

    def names(self) -> list[str]:
        """Its name."""
        return [self.plan.cluster]

    def facts(self, cluster: str) -> ClusterFacts:
        """Its queue, without limits of ours."""
        rules = Rules(**{**RULES.__dict__, **self.plan.rules})
        return ClusterFacts(cluster, "centre", {self.plan.queue: QueueFacts(self.plan.queue)}, rules)

    def reached(self, _cluster: str, _since: datetime | None, _trouble: str) -> None:
        """Nobody asks."""


def open_site(plan: Plan) -> SlurmSite:
    """The cluster over SSH, with the runtime that the plan wants."""
    cluster = plan.lab_cluster()
    port = plan.port or cluster.port
    endpoint = Endpoint(cluster.host, cluster.account, cluster.host_key, cluster.key_path.read_text(), port)
    facts: dict[str, Any] = {"isolation": "none", "one_person": True, "home": str(cluster.home)}
    kind = "full" if cluster.accounting else "none"
    site = SlurmSite(SshTransport(endpoint), SlurmSettings(plan.base, kind, "", facts))
    if plan.guard:
        site._bundle = weakened(site._bundle, plan.guard)
        site.place = Place(f"{plan.base}/runtime/{site._bundle.digest}", plan.base)
        site._facts["runtime"] = site.place.runtime
    return site


def objects_of(plan: Plan) -> S3Store:
    """The object store."""
    return S3Store(EmbeddedServer(Path(plan.objects), plan.endpoint).account)


def serve(plan: Plan, folder: Path, failpoint: str, ready: Connection) -> None:
    """The engine's process: tell that it is about to serve, then serve until told to stop (SIGTERM)."""
    log = os.open(folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    failpoints._WANTED = failpoint
    database = Database(plan.url, audit_key=AUDIT_KEY)
    settings = EngineSettings(
        chunk=plan.chunk, keep_days=plan.keep_days, address=f"unix:{folder}/engine.sock", secret=b"secret of a test"
    )
    mover = Mover(database, objects_of(plan))
    engine = Engine(database, OneSite(open_site(plan)), mover, settings, OneCluster(plan))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready.send("ready")
    engine.run(stop)
    mover.close()
    database.close()
