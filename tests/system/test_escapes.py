"""What a hostile job tries, and never gets: on a real SLURM cluster over SSH, and on the machine itself.

A victim of the same account runs beside it, with a secret in its environment, in its folder and in its memory."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heroes.api.ids import new_ulid
from heroes_ear.compile import compile_all
from heroes_spawners.site import Accepted, Job, Record, Shape, Site, Submission
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from tests.contract.rigs import ssh_transport
from tests.lab import LabCluster
from tests.lab.fixtures import lab
from tests.unit.machine.conftest import Rig

__all__ = ["lab"]
EPOCH = 1
CANARY = "canary-5b1f"

#: Name -> a shell command that prints the canary, or the word ESCAPED, when it gets through. BASE, VICTIM, HOME stand
#: for the base directory, the victim's key and the account's home.
ATTEMPTS = {
    "victims folder": "cat BASE/jobs/VICTIM/out/secret",
    "victims script": "cat BASE/jobs/VICTIM/environment",
    "list of jobs": "ls BASE/jobs | grep -q VICTIM && echo ESCAPED",
    "find the secret": "find / -xdev -name secret -type f 2>/dev/null | head -3 | xargs -r cat",
    "by its own parent": "cat ../../VICTIM/out/secret",
    "victims environment": "cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
    "other programs": "cat /proc/[0-9]*/comm | grep -E 'slurm|earl|python|sshd|job' && echo ESCAPED",
    "signal everybody": "kill -0 -1 2>/dev/null; ps ax 2>/dev/null | grep -q 'sleep 300.7[5]' && echo ESCAPED",
    "root of init": "ls /proc/1/root/BASE/jobs/VICTIM && echo ESCAPED",
    "working folder of others": "cat /proc/[0-9]*/cwd/secret",
    "home": "ls -A HOME | grep -qv escapes && echo ESCAPED",
    "ssh keys": "cat HOME/.ssh/authorized_keys && echo ESCAPED",
    "write into home": "echo x > HOME/.ssh/authorized_keys 2>/dev/null && cat HOME/heroes-was-here 2>/dev/null",
    "munge socket": "test -S /run/munge/munge.socket.2 && echo ESCAPED",
    "munge": "munge -n </dev/null && echo ESCAPED",
    "any socket": "find /run /var/run -type s 2>/dev/null | grep -E 'munge|slurm|docker|dbus' && echo ESCAPED",
    "sbatch": "sbatch --wrap 'echo hi' && echo ESCAPED",
    "scancel": "scancel --name=VICTIM && echo ESCAPED",
    "squeue": "squeue -h && echo ESCAPED",
    "srun into the victim": "srun --jobid=1 hostname && echo ESCAPED",
    "forged record": "mkdir -p BASE/records; echo '1 0 0.01' | tee BASE/records/KEY ../../../records/KEY",
    "forged claim": "rm -rf BASE/run/KEY; mkdir -p BASE/run/VICTIM; echo tombstone x > BASE/run/VICTIM/owner",
    "forged energy": "echo '{\"energy_j\": 0}' > ../energy.json",
    "own launch file": "echo 'exec true' >> ../launch; echo x >> ../environment",
    "the runtime": "echo 'echo ESCAPED' >> BASE/runtime/*/job.sh",
    "victims output": "echo ESCAPED >> BASE/jobs/VICTIM/stdout",
    "shared memory": "ls /dev/shm | grep -q . && echo ESCAPED",
    "shared temporary files": "ls -A /tmp | grep -q . && echo ESCAPED",
    "message queues": "ipcs -q -m -s 2>/dev/null | grep -E '^0x' && echo ESCAPED",
    "unmount": "umount HOME BASE /tmp; ls BASE/claims 2>/dev/null && echo ESCAPED",
    "another namespace": "unshare -rm sh -c 'umount -l BASE; umount -l HOME; ls BASE/claims && echo ESCAPED'",
    "enter the first process": "nsenter --target 1 --mount --pid ls BASE/claims && echo ESCAPED",
    "become root": "su -c 'echo ESCAPED' </dev/null; sudo -n echo ESCAPED",
    "write the system": "echo x > /etc/heroes-was-here && echo ESCAPED; echo x > /usr/heroes-was-here && echo ESCAPED",
    "raw memory": "head -c1 /dev/mem && echo ESCAPED",
    "open files of others": "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -E 'jobs/VICTIM|socket.*slurm' && echo ESCAPED",
}


@dataclass
class Target:
    """A site, and where its things are."""

    site: Site
    base: Path
    home: Path
    queue: str

    def submit(self, argv: tuple[str, ...], secret: str = "", memory_mib: int = 0, **more: Any) -> str:
        tags = {"HEROES_ORGANIZATION_NAME": "acme", "HEROES_USER_ID": "ada", "SECRET": secret}
        shape = Shape(walltime_s=600, memory_mib=memory_mib)
        job = Job(new_ulid(), self.queue, shape, argv, environment=tags, **more)
        (answer,) = self.site.submit([Submission(job)], EPOCH)
        assert isinstance(answer, Accepted), answer
        return job.key

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + 90
        while not happened():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.2)

    def record(self, key: str) -> Record:
        found: list[Record] = []

        def there() -> bool:
            found[:] = [record for record in self.site.poll("").records if record.key == key]
            return bool(found)

        self.wait_for(there)
        return found[0]

    def said(self, key: str) -> str:
        return self.site.tail(key, "stdout", 0, 100000).data.decode(errors="replace")


def _machine() -> Iterator[Target]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-escape-"))
    rig = Rig(folder)
    yield Target(rig.site, folder, Path.home(), "large")
    rig.close()
    shutil.rmtree(folder)


def _alpha(cluster: LabCluster) -> Iterator[Target]:
    base = cluster.home / "escapes"
    facts = {"isolation": "heroes-isolate", "programs": ["earl-run", "heroes-isolate"], "home": str(cluster.home)}
    site = SlurmSite(ssh_transport(cluster), SlurmSettings(str(base), facts=facts))
    site.prepare(EPOCH)
    yield Target(site, base, cluster.home, "cpu")
    site.close()


@pytest.fixture(scope="module", params=["machine", "alpha"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Where the hostile job runs."""
    assert compile_all() == []
    if request.param == "machine":
        yield from _machine()
    else:
        yield from _alpha(request.getfixturevalue("lab").cluster("alpha"))


@pytest.fixture(scope="module")
def victim(target: Target) -> Iterator[str]:
    """A job of the same account that runs meanwhile and holds a secret; it ends well at the end."""
    held = f"echo {CANARY} > secret; echo up; exec sleep 300.75"
    key = target.submit(("sh", "-c", held), secret=CANARY)
    target.wait_for(lambda: "up" in target.said(key))
    yield key
    target.site.cancel([key], EPOCH)


@pytest.fixture(scope="module")
def attack(target: Target, victim: str) -> tuple[str, dict[str, str]]:
    """One hostile job that tries everything: its key, and what each attempt printed."""
    mark = new_ulid()
    lines = ["set +e"]
    for name, command in ATTEMPTS.items():
        lines += [f"echo '{mark} {name}'", f"( {command} ) 2>/dev/null </dev/null"]
    text = "\n".join([*lines, f"echo '{mark} end'", "exit 42"])
    text = text.replace("BASE", str(target.base)).replace("VICTIM", victim).replace("HOME", str(target.home))
    key = target.submit(("sh", "-c", text.replace("KEY", "$(basename $(dirname $PWD))")))
    target.record(key)
    parts = target.said(key).split(f"{mark} ")[1:]
    return key, {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_gets_nothing(attack: tuple[str, dict[str, str]], name: str) -> None:
    """The attempt was made and brought neither the victim's secret nor a foothold."""
    _, said = attack
    assert name in said, f"the hostile job did not come to it: {sorted(said)}"
    assert CANARY not in said[name]
    assert "ESCAPED" not in said[name]


def test_its_record_is_the_true_one(target: Target, attack: tuple[str, dict[str, str]]) -> None:
    """The hostile job wrote records that say 0; the record says 42, and the energy is what earl-run measured."""
    key, said = attack
    assert "end" in said
    record = target.record(key)
    assert record.exit_code == 42
    assert '"format": "heroes-energy"' in record.energy


def test_the_victim_is_unharmed(target: Target, victim: str, attack: tuple[str, dict[str, str]]) -> None:
    """It still runs under its own claim, and its log holds its own words only."""
    assert target.said(victim) == "up\n"
    claim = target.site.status([victim])[victim]
    assert claim.run_by == claim.job_id
    assert victim in {queued.key for queued in target.site.poll("").queue}


def test_nothing_was_left_in_the_system(attack: tuple[str, dict[str, str]], target: Target) -> None:
    """No file of the hostile job lies outside its own folder."""
    for path in (Path("/etc"), Path("/usr"), Path("/tmp"), target.home):
        assert not (path / "heroes-was-here").exists()
