"""What the contract suites run on: fakes and the real thing behind one face."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from heroes_spawners.site import Accepted, Job, Shape, Site, Submission
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from heroes_spawners.transport import Endpoint, SshTransport
from tests.lab import LabCluster


def ssh_endpoint(cluster: LabCluster, *, host_key: str = "", private_key: str = "", port: int = 0) -> Endpoint:
    """The account of a lab cluster, as an enrolment stores it."""
    return Endpoint(
        cluster.host,
        cluster.account,
        host_key or cluster.host_key,
        private_key or cluster.key_path.read_text(),
        port or cluster.port,
    )


def ssh_transport(cluster: LabCluster) -> SshTransport:
    """A transport to a lab cluster's login node."""
    return SshTransport(ssh_endpoint(cluster))


class SiteRig(Protocol):
    """A site, a queue on it that takes small jobs, and a way to let time pass."""

    site: Site
    queue: str

    def now(self) -> datetime:
        """The site's present time."""

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Let time pass until `happened()`; fails after a minute of the site's time."""

    def stray(self, name: str) -> str:
        """The id of a job of that name that somebody else hands in under the same account; it lasts for a while.
        "" where nobody else can."""

    def close(self) -> None:
        """Give back what it holds."""


#: What the jobs of the suite do: the argv for real sites, the outcome for the one in memory.
_HELLO = "echo hello; echo x > a.txt; mkdir d; echo yy > d/b.txt; ln -s /etc/passwd link"
PROGRAMS: dict[tuple[str, ...], Outcome] = {
    ("/bin/sh", "-c", _HELLO): Outcome(
        1.0, files={"a.txt": b"x\n", "d/b.txt": b"yy\n"}, links=("link",), stdout=b"hello\n"
    ),
    ("/bin/sh", "-c", "echo trouble >&2; exit 3"): Outcome(0.5, exit_code=3, stderr=b"trouble\n"),
    ("/bin/sleep", "45"): Outcome(45.0),
    ("/bin/true",): Outcome(0.2),
}
HELLO, FAILING, SLEEPING, TRIVIAL = PROGRAMS


class FakeRig:
    """The cluster in memory."""

    queue = "cpu"

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.site = FakeSite(self.clock, lambda job: PROGRAMS[job.argv])

    def now(self) -> datetime:
        """The clock's time."""
        return self.clock.now()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Advance the clock in small steps."""
        for _ in range(240):
            if happened():
                return
            self.clock.advance(0.25)
        raise AssertionError("it did not happen within a minute")

    def stray(self, name: str) -> str:
        """One that the fake takes as it is."""
        [answer] = self.site.submit([Submission(Job(name, self.queue, Shape(), SLEEPING))], self.site._epoch)
        assert isinstance(answer, Accepted)
        return answer.job_id

    def close(self) -> None:
        """Nothing is held."""


class SlurmRig:
    """A real cluster of the lab, over real SSH."""

    queue = "cpu"

    def __init__(self, cluster: LabCluster, folder: str = "contract") -> None:
        facts = {"isolation": "none", "one_person": True, "home": str(cluster.home)}
        kind = "full" if cluster.accounting else "none"
        settings = SlurmSettings(f"{cluster.home}/{folder}", kind, "", facts)
        self.site = SlurmSite(ssh_transport(cluster), settings)

    def now(self) -> datetime:
        """This machine's time."""
        return datetime.now(UTC)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Ask until it is so."""
        until = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < until, "it did not happen within a minute"
            time.sleep(0.2)

    def stray(self, name: str) -> str:
        """By sbatch itself."""
        asks = ("sbatch", "--parsable", f"--job-name={name}", "--output=/dev/null", "--chdir=/tmp", "--wrap=sleep 60")
        done = self.site.transport.run(asks, deadline_s=60, limit=10_000)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def close(self) -> None:
        """Close the connections."""
        self.site.close()
