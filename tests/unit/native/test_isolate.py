"""heroes-isolate shows a job its own folder and nothing of the account, and fails closed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.unit.native.conftest import forbidding, user_namespaces_work

ROOT = os.geteuid() == 0
UID = 200001 if ROOT else os.geteuid()
pytestmark = pytest.mark.skipif(not ROOT and not user_namespaces_work(), reason="user namespaces are not allowed here")


class Isolate:
    """Runs programs isolated, as root under another uid, else in a user namespace."""

    def __init__(self, program: str, site: Path) -> None:
        self.home = site / "home"
        (self.home / "job" / "out").mkdir(parents=True)
        (self.home / "secret").write_text("of the account")
        for folder in (self.home, self.home / "job", self.home / "job" / "out"):
            folder.chmod(0o777)
        self.out = str(self.home / "job" / "out")
        user = ["--user", f"{UID}:{UID}"] if ROOT else []
        self.words = [program, *user, "--home", str(self.home)]

    def argv(self, *options: str, argv: tuple[str, ...]) -> list[str]:
        """The whole command."""
        return [*self.words, *options, "--", *argv]

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script isolated."""
        return subprocess.run(
            self.argv(*options, argv=("/bin/sh", "-c", script)), capture_output=True, text=True, timeout=60
        )

    def say(self, script: str, *options: str) -> str:
        """What a script prints that must succeed."""
        done = self.run(script, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def isolate(programs: Path, site: Path) -> Isolate:
    """heroes-isolate with a home that holds a secret and a job."""
    return Isolate(str(programs / "heroes-isolate"), site)


def test_the_home_is_hidden(isolate: Isolate) -> None:
    """Of the account's home nothing is seen."""
    assert isolate.say(f"ls -A {isolate.home}") == ""


def test_a_job_folder_in_the_hidden_home_stays(isolate: Isolate) -> None:
    """A folder below the home that is bound can be written, and the rest stays hidden."""
    script = f"echo result > file; pwd; ls -A {isolate.home}"
    assert isolate.say(script, "--rw", isolate.out, "--cd", isolate.out) == f"{isolate.out}\njob"
    assert Path(isolate.out, "file").read_text() == "result\n"


def test_an_input_is_bound_read_only(isolate: Isolate, site: Path) -> None:
    """An input is readable at its name, which is made, and cannot be changed there."""
    data = site / "an input's $name"
    data.write_text("input")
    data.chmod(0o666)
    target = f"{isolate.home}/job/in/x"
    done = isolate.run(f"cat {target}; echo more > {target}", "--ro-at", str(data), target)
    assert done.stdout == "input"
    assert done.returncode != 0
    assert data.read_text() == "input"


def test_a_folder_is_bound_read_only(isolate: Isolate, site: Path) -> None:
    """Nothing can be made in a folder bound read-only."""
    (site / "data").mkdir(mode=0o777)
    (site / "data").chmod(0o777)
    done = isolate.run("touch /tmp/data/new", "--ro-at", str(site / "data"), "/tmp/data")
    assert "Read-only" in done.stderr
    assert list((site / "data").iterdir()) == []


def test_tmp_and_shm_are_private(isolate: Isolate) -> None:
    """/tmp, /var/tmp and /dev/shm are empty, writable, and their files are gone afterwards."""
    script = "ls -A /tmp /var/tmp /dev/shm; touch /tmp/heroes-x /var/tmp/heroes-x /dev/shm/heroes-x"
    Path("/dev/shm/heroes-outside").touch()
    try:
        told = isolate.say(script)
    finally:
        Path("/dev/shm/heroes-outside").unlink()
    assert "heroes-outside" not in told
    assert not any(Path(folder, "heroes-x").exists() for folder in ("/tmp", "/var/tmp", "/dev/shm"))


def test_a_folder_serves_as_tmp(isolate: Isolate) -> None:
    """With --tmp, /tmp is a folder on disk, and binds inside it are still seen."""
    isolate.say("echo here > /tmp/file", "--tmp", isolate.out)
    assert Path(isolate.out, "file").read_text() == "here\n"
    assert isolate.say("cat /tmp/p", "--tmp", isolate.out, "--ro-at", "/etc/hostname", "/tmp/p") != ""


def test_a_place_is_hidden_on_demand(isolate: Isolate, site: Path) -> None:
    """A folder given with --hide is empty, a file is /dev/null, and one that does not exist is no matter."""
    (site / "folder").mkdir()
    (site / "folder" / "file").write_text("secret")
    (site / "file").write_text("secret")
    folder, file = "/opt/folder", "/opt/file"
    bound = ("--rw-at", str(site / "folder"), folder, "--rw-at", str(site / "file"), file)
    outside = isolate.say(f"ls -A {folder}; cat {file}", "--hide", "/opt", *bound)
    assert outside == "file\nsecret"
    hidden = ("--hide", "/opt", "--hide", "/usr/share", "--hide", "/etc/hostname", "--hide", "/no/such/place")
    assert isolate.say("ls -A /opt /usr/share | grep -v :; cat /etc/hostname", *hidden) == ""


def test_other_processes_are_not_seen(isolate: Isolate) -> None:
    """Only processes of the isolation are in /proc, and none of the others can be signalled."""
    assert isolate.say("ls /proc | grep -c '^[0-9]'") in ("3", "4")
    assert isolate.run(f"kill -0 {os.getpid()}").returncode != 0


def test_no_privileges_are_left(isolate: Isolate) -> None:
    """No capability is left in any set, and no setuid program can give one."""
    told = isolate.say("grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    values = dict(line.split(":") for line in told.splitlines())
    assert values.pop("NoNewPrivs").strip() == "1"
    assert {int(value, 16) for value in values.values()} == {0}


def test_the_user_is_the_one_wanted(isolate: Isolate) -> None:
    """The job runs under the account's own uid, or as root's --user says, without further groups as root."""
    assert isolate.say("id -u") == str(UID)
    if ROOT:
        assert isolate.say("id -G") == str(UID)


def test_the_hidden_home_cannot_be_uncovered(isolate: Isolate) -> None:
    """A user namespace of the job's own does not bring the home back."""
    done = isolate.run(
        f"unshare --user --map-root-user --mount sh -c 'umount {isolate.home}; cat {isolate.home}/secret'"
    )
    assert "of the account" not in done.stdout


def test_the_first_process_is_guarded(isolate: Isolate) -> None:
    """The first process of the namespace can neither be killed nor looked into by the job."""
    done = isolate.run("kill -9 1; ls /proc/1/fd; echo alive")
    assert done.stdout == "alive\n"


def test_open_folders_are_closed(isolate: Isolate) -> None:
    """A file descriptor of a hidden folder does not reach the job, one to keep does."""
    opened = os.open(isolate.home, os.O_RDONLY)
    try:
        os.set_inheritable(opened, True)
        argv = isolate.argv("--keep-fd", "0", argv=("/bin/sh", "-c", f"cat /proc/self/fd/{opened}/secret"))
        done = subprocess.run(argv, capture_output=True, text=True, pass_fds=(opened,))
    finally:
        os.close(opened)
    assert "of the account" not in done.stdout
    assert done.returncode != 0


def test_a_file_descriptor_is_kept(isolate: Isolate) -> None:
    """A descriptor named with --keep-fd is open in the job."""
    argv = isolate.argv("--keep-fd", "7", argv=("/bin/sh", "-c", "echo kept >&7"))
    done = subprocess.run(["sh", "-c", 'exec "$@" 7>&1', "sh", *argv], check=True, capture_output=True, text=True)
    assert done.stdout == "kept\n"


def test_a_folder_as_standard_input_is_refused(isolate: Isolate) -> None:
    """A folder opened as standard input would lead round the mounts: refused."""
    opened = os.open(isolate.home, os.O_RDONLY)
    try:
        done = subprocess.run(isolate.argv(argv=("/bin/true",)), stdin=opened, capture_output=True, text=True)
    finally:
        os.close(opened)
    assert done.returncode == 125
    assert "standard input" in done.stderr


def test_without_network(isolate: Isolate) -> None:
    """With --no-network only the isolation's own loopback is there."""
    assert isolate.say("ls /sys/class/net; tail -n +3 /proc/net/dev | cut -d: -f1", "--no-network").split()[-1] == "lo"
    assert len(isolate.say("tail -n +3 /proc/net/dev", "--no-network").splitlines()) <= 3


def test_everything_else_read_only(isolate: Isolate, site: Path) -> None:
    """With --read-only only what is bound writable, and the private places, can be written."""
    script = f"echo a > {site}/new; echo b > file; echo c > /tmp/file && cat file /tmp/file"
    done = isolate.run(script, "--read-only", "--rw", isolate.out, "--cd", isolate.out)
    assert done.stdout == "b\nc\n"
    assert not (site / "new").exists()


def test_the_start_is_the_root_unless_named(isolate: Isolate) -> None:
    """The folder that the caller stood in is not kept: it may be a hidden one."""
    argv = isolate.argv(argv=("/bin/pwd",))
    assert subprocess.run(argv, cwd=isolate.home, capture_output=True, text=True, check=True).stdout == "/\n"


def test_what_the_program_left_is_killed(isolate: Isolate) -> None:
    """A process left running ends with the program: the pipe that it held closes at once."""
    done = isolate.run("sleep 1000 & echo left")
    assert (done.returncode, done.stdout) == (0, "left\n")


def test_killing_the_outside_kills_all(isolate: Isolate) -> None:
    """When heroes-isolate is killed nothing of the job lives on."""
    argv = isolate.argv(argv=("/bin/sh", "-c", "echo ready; exec sleep 1000"))
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b""


COUNTING = """
n=0; trap 'n=$((n+1))' TERM; echo ready
while [ $n = 0 ]; do sleep 0.02; done
sleep 0.5; exit $((10+n))
"""


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_arrives_once(isolate: Isolate, to_all: bool) -> None:
    """A signal for heroes-isolate alone, and one for all its processes, reaches the program exactly once."""
    argv = isolate.argv(argv=("/bin/sh", "-c", COUNTING))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 11


@pytest.mark.parametrize("status", [0, 3, 125, 255])
def test_exit_status_is_the_programs(isolate: Isolate, status: int) -> None:
    """The exit status comes through."""
    assert isolate.run(f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_by_signal_is_the_programs(isolate: Isolate, number: int) -> None:
    """A program killed by a signal looks so to whoever waits."""
    assert isolate.run(f"kill -{int(number)} $$").returncode == -number


def test_missing_program(isolate: Isolate) -> None:
    """A program that does not exist gives 127."""
    done = subprocess.run(isolate.argv(argv=("/no/such/program",)), capture_output=True, text=True)
    assert done.returncode == 127
    assert "/no/such/program: not found" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rw", "/no/such/folder"), "binding /no/such/folder"),
        (("--cd", "/no/such/folder"), "starting in /no/such/folder"),
        (("--rw", "relative"), "absolute path is needed, not relative"),
        (("--frobnicate",), "unknown option --frobnicate"),
        (("--keep-fd", "900"), "keeping file descriptor 900"),
        (("--keep-fd", "many"), "--keep-fd needs a number, not many"),
        (("--home", "/"), "cannot be hidden: /"),
        (("--ro-at", "/etc/hostname", "/proc/version/x"), "making /proc/version/x"),
    ],
)
def test_it_fails_closed(isolate: Isolate, options: tuple[str, ...], said: str) -> None:
    """A step that is impossible is named, the program does not start, and the status is 125."""
    done = isolate.run("echo started", *options)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr


def test_without_namespaces_nothing_runs(isolate: Isolate) -> None:
    """Where the kernel refuses namespaces the program does not start: the step is named, the status is 125."""
    words = [*forbidding(272, 97), *isolate.argv(argv=("/bin/echo", "started"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert "making namespaces" in done.stderr


@pytest.mark.skipif(not ROOT, reason="only root can ask for another user")
@pytest.mark.parametrize("user", ["0:0", "1000", "1000:0", "me:me"])
def test_root_becomes_nobody_else(isolate: Isolate, user: str) -> None:
    """Root must name a user that is not root."""
    argv = [isolate.words[0], "--home", "/root", "--user", user, "--", "/bin/true"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 125
    assert "--user needs UID:GID" in done.stderr


@pytest.mark.skipif(not ROOT, reason="root only")
def test_root_must_name_a_user(isolate: Isolate) -> None:
    """Root without --user is refused: user code never runs as root."""
    done = subprocess.run([isolate.words[0], "--home", "/root", "--", "/bin/true"], capture_output=True, text=True)
    assert done.returncode == 125
    assert "root needs --user" in done.stderr


@pytest.mark.skipif(not ROOT or not user_namespaces_work(), reason="needs root to become an unprivileged account")
def test_an_unprivileged_account_isolates_itself(isolate: Isolate, site: Path) -> None:
    """Without root the same isolation is made in a user namespace, under the account's own uid."""
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    argv = [*drop, isolate.words[0], "--home", str(isolate.home), "--rw", isolate.out, "--cd", isolate.out, "--"]
    script = f"id -u; ls -A {isolate.home}; ls /proc | grep -c '^[0-9]'; grep CapEff /proc/self/status; echo x > file"
    done = subprocess.run([*argv, "/bin/sh", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["65534", "job", done.stdout.split()[2], "CapEff:", "0" * 16]
    assert Path(isolate.out, "file").exists()


def test_the_help_names_every_documented_option(isolate: Isolate) -> None:
    """The page beside the source and the program's own help name the same options."""
    page = (Path(__file__).parents[3] / "native" / "src" / "README.md").read_text().split("## heroes-isolate")[1]
    documented = {word.strip(",`") for word in page.split() if word.startswith("--") and len(word) > 3}
    printed = subprocess.run([isolate.words[0], "--help"], capture_output=True, text=True, check=True).stdout
    assert documented <= {word.strip(",`") for word in printed.split()}
