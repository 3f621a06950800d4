"""What a job sees from inside, by each means of isolation, on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from heroes.api.errors import InvalidSpec
from heroes.api.ids import new_ulid
from heroes_spawners.isolation import Facts
from heroes_spawners.runtime.job import render
from heroes_spawners.site import Image, Mount, Shape
from tests.unit.runtime.conftest import Place


def test_only_its_own_folder_is_there(locked: Place) -> None:
    """Of the base directory a job sees its own folder only, and can write nothing of it but `out`."""
    other = locked.job("true")
    locked.run(other)
    script = f"ls {locked.base} {locked.base}/jobs {locked.base}/jobs/*; echo x > ../environment; echo out > result"
    ended = locked.run(locked.job("sh", "-c", script))
    assert ended.status == 0, ended.said
    assert other.key not in ended.out
    for hidden in ("records", "claims", "run", "launch", "lock", "energy"):
        assert hidden not in ended.out.split()
    assert "environment" in ended.said  # it could not be written


def test_inputs_are_there_read_only(locked: Place) -> None:
    """An input, file or folder, is at ../in/<name>, readable and not writable."""
    (locked.base / "data" / "deep").mkdir(parents=True)
    (locked.base / "data" / "one.txt").write_text("one")
    (locked.base / "data" / "deep" / "two.txt").write_text("two")
    script = "cat ../in/first ../in/second/two.txt; echo no > ../in/first; touch ../in/second/new"
    job = locked.job("sh", "-c", script, inputs=(Mount("first", "data/one.txt"), Mount("second", "data/deep/")))
    ended = locked.run(job)
    assert ended.out == "onetwo", ended.said
    assert ended.status != 0
    assert (locked.base / "data" / "one.txt").read_text() == "one"
    assert os.listdir(locked.base / "data" / "deep") == ["two.txt"]


def test_files_of_the_job_are_there_read_only(locked: Place) -> None:
    """Small files that come with the job are in ../in, whatever they hold, and cannot be changed."""
    job = locked.job("sh", "-c", "cat ../in/case.txt; echo no > ../in/case.txt", files={"case.txt": b"\0\xff $(id)\n"})
    ended = locked.run(job)
    assert ended.status != 0
    assert (locked.base / "jobs" / job.key / "in" / "case.txt").read_bytes() == b"\0\xff $(id)\n"
    assert "$(id)" in ended.out


def test_inputs_without_isolation_are_links(bare: Place) -> None:
    """Where nothing can be bound, inputs and files are at ../in all the same."""
    (bare.base / "data").mkdir()
    (bare.base / "data" / "one.txt").write_text("one")
    job = bare.job("cat", "../in/first", "../in/two", inputs=(Mount("first", "data/one.txt"),), files={"two": b"two"})
    assert bare.run(job).out == "onetwo"


def test_names_of_inputs_and_files_are_checked() -> None:
    """A name with a slash, a path that climbs, or one name for two things is refused."""
    place = Place(Path("/x"), {"runtime": "/x/runtime/d", "one_person": True})
    for wrong in (
        place.job("true", files={"../up": b""}),
        place.job("true", files={"same": b""}, inputs=(Mount("same", "data/x"),)),
        place.job("true", inputs=(Mount("up", "data/../../etc"),)),
        place.job("true", inputs=(Mount("root", "/etc"),)),
        place.job("-n"),
        place.job(),
        place.job("a\0b"),
        place.job("true", key="not a key"),
        place.job("true", environment={"A B": "x"}),
        place.job("true", environment={"IFS": "x"}),
        place.job("true", environments=("conda",)),
    ):
        with pytest.raises(InvalidSpec) as caught:
            render(wrong, "/base", place.facts)
        assert caught.value.hint


def test_it_sees_no_process_of_others(locked: Place) -> None:
    """The process list inside holds the job's own processes only, and its parent's environment is not among them."""
    job = locked.job("sh", "-c", "for each in /proc/[0-9]*; do cat $each/cmdline | tr '\\0' ' '; echo; done")
    ended = locked.run(job, HEROES_SECRET="canary")
    assert ended.status == 0, ended.said
    assert "job.sh" not in ended.out
    assert "pytest" not in ended.out
    assert "canary" not in locked.run(locked.job("env")).out


def test_home_and_temporary_folders_are_private(locked: Place) -> None:
    """The account's home is empty, /tmp and /dev/shm are the job's own and writable."""
    home, mine = locked.facts["home"], new_ulid()
    script = f"ls -A {home} | head; ls -A /dev/shm; touch /tmp/{mine} /dev/shm/{mine} && echo written"
    job = locked.job("sh", "-c", script)
    ended = locked.run(job)
    assert ended.out.splitlines()[-1] == "written", ended.said
    assert len(ended.out.splitlines()) == 1
    assert not Path("/tmp", mine).exists()
    assert not Path("/dev/shm", mine).exists()


def test_a_hidden_socket_is_not_there(locked: Place, base: Path) -> None:
    """A path that the probe names, such as munge's socket of an unusual place, cannot be reached."""
    aside = base.with_name(base.name + "-munge")
    aside.mkdir()
    (aside / "socket").write_text("munge")
    locked.facts["hide"] = [str(aside), "/no/such/place"]
    ended = locked.run(locked.job("cat", f"{aside}/socket"))
    shutil.rmtree(aside)
    assert ended.status == 1
    assert "No such file" in ended.said


def test_it_has_no_capability_and_gains_none(locked: Place) -> None:
    """Inside there is no effective capability, `no_new_privs` is set, and the user is an ordinary one."""
    ended = locked.run(locked.job("sh", "-c", "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status"))
    lines = ended.out.split()
    assert lines[0] != "0", ended.said
    assert lines[lines.index("CapEff:") + 1] == "0000000000000000"
    assert lines[lines.index("NoNewPrivs:") + 1] == "1"


def test_it_cannot_mount_the_hidden_back(locked: Place) -> None:
    """Unmounting what hides, by itself or from a further namespace of its own, shows nothing."""
    script = f"umount {locked.base}; unshare --user --map-root-user --mount umount {locked.base}; ls {locked.base}"
    ended = locked.run(locked.job("sh", "-c", script))
    assert "records" not in ended.out.split()


def test_its_exit_record_cannot_be_forged(locked: Place) -> None:
    """A job that writes a record of its own, wherever it can, changes nothing of the one that counts."""
    job = locked.job("sh", "-c", f"mkdir -p {locked.base}/records; echo '17 0 1.0' > {locked.base}/records/x; exit 9")
    ended = locked.run(job)
    assert ended.status == 9
    assert ended.record[0].split()[1] == "9"
    assert os.listdir(locked.base / "records") == [job.key]


def test_the_environment_is_exactly_what_was_asked(locked: Place) -> None:
    """Quotes, newlines and `$( )` arrive as they are; nothing of the scheduler's environment does."""
    nasty = 'it\'s "$(id)" `id`\n\\ ünï '
    ended = locked.run(locked.job("env", "-0", environment={"NASTY": nasty, "HEROES_USER_ID": "ada"}), LEAK="1")
    found = dict(each.split("=", 1) for each in ended.out.split("\0") if "=" in each)
    assert found["NASTY"] == nasty
    assert found["HEROES_USER_ID"] == "ada"
    assert "LEAK" not in found
    assert not [name for name in found if name.startswith("SLURM")]


def test_arguments_stay_arguments(locked: Place) -> None:
    """Each argument reaches the program as it is, whatever it holds."""
    nasty = ("a b", "it's", '"; id; "', "$(id)", "`id`", "new\nline", "", "*", "-n", "ünï", "\\")
    ended = locked.run(locked.job("printf", "%s\\0", *nasty))
    assert ended.out == "".join(f"{each}\0" for each in nasty), ended.said


def test_a_preloaded_library_stays_inside(locked: Place) -> None:
    """LD_PRELOAD in the job's environment is for its own program; nothing outside the isolation loads it."""
    source = locked.base / "evil.c"
    source.write_text(
        '#include <stdio.h>\n__attribute__((constructor)) static void hi(void) { FILE *f = fopen("MARK", "a");'
        ' if (f) { fputs("loaded\\n", f); fclose(f); } }\n'.replace("MARK", f"{locked.base}/mark")
    )
    library = locked.base / "evil.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    (locked.base / "mark").touch()
    (locked.base / "mark").chmod(0o666)
    locked.run(locked.job("true", environment={"LD_PRELOAD": str(library)}))
    assert (locked.base / "mark").read_text() == ""


def test_mpi_runs_within_one_node(locked: Place) -> None:
    """`mpirun -np 2` works inside, whatever the number of cores, with no option of ours on the command line."""
    if not shutil.which("mpirun"):
        pytest.skip("Open MPI is not installed")
    job = locked.job("mpirun", "-np", "2", "sh", "-c", "echo rank $OMPI_COMM_WORLD_RANK", shape=Shape(tasks=2))
    ended = locked.run(job)
    assert sorted(ended.out.splitlines()) == ["rank 0", "rank 1"], ended.said


def test_energy_is_reported_outside_the_job(locked: Place) -> None:
    """The record carries earl-run's report, one line of JSON that the job could not write."""
    locked.facts["queues"] = {"cpu": {"idle_watts": 50, "busy_watts": 150, "node_cpus": 4}}
    ended = locked.run(locked.job("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
    assert ended.status == 0, ended.said
    assert '"format": "heroes-energy"' in ended.record[1]
    assert '"busy_w": 150' in ended.record[1]


def test_without_namespaces_a_shared_account_is_refused() -> None:
    """Isolation `none` is accepted for an account of one person and no other: nothing is dropped silently."""
    job = Place(Path("/x")).job("true")
    with pytest.raises(InvalidSpec, match="cannot be isolated"):
        render(job, "/base", {"runtime": "/base/runtime/d", "isolation": "none"})
    with pytest.raises(InvalidSpec, match="cannot be isolated"):
        render(job, "/base", {"runtime": "/base/runtime/d", "isolation": "heroes-isolate", "programs": []})
    assert render(job, "/base", {"runtime": "/base/runtime/d", "isolation": "none", "one_person": True})


def test_an_isolation_that_fails_starts_nothing(locked: Place) -> None:
    """With a source to bind that is not there, the program does not start and the status is 125."""
    ended = locked.run(locked.job("sh", "-c", "echo ran", inputs=(Mount("gone", "data/gone"),)))
    assert (ended.status, ended.out) == (125, "")
    assert ended.record[0].split()[1] == "125"


def _fact(**more: object) -> dict[str, object]:
    return {"runtime": "/b/runtime/d", "isolation": "heroes-isolate", "programs": ["heroes-isolate"], **more}


def test_apptainer_is_told_to_contain_everything() -> None:
    """The rendered words hold every rule: contained, clean, no home, nothing of the host, own binds only."""
    image = Image("/images/a.sif", "sha256:" + "a" * 64)
    job = Place(Path("/x")).job("solve", "it's", image=image, inputs=(Mount("mesh", "data/m"),))
    text = render(job, "/b", _fact(container="apptainer", home="/home/x"))["launch"].decode()
    for word in ("--containall", "--cleanenv", "--no-home", "--no-mount hostfs", "/images/a.sif"):
        assert word in text
    assert f"/b/data/m:/b/jobs/{job.key}/in/mesh:ro" in text
    assert "--fakeroot" not in text
    assert text.startswith("ulimit -f")
    assert f"check_image /images/a.sif {'a' * 64}\n" in text


def test_an_image_needs_an_engine_and_a_digest() -> None:
    """Without an engine at the site, or without a digest, a job with an image is refused with the way out."""
    job = Place(Path("/x")).job("true", image=Image("/i.sif", "sha256:" + "a" * 64))
    with pytest.raises(InvalidSpec, match="no container engine"):
        render(job, "/b", _fact())
    with pytest.raises(InvalidSpec, match="digest"):
        render(Place(Path("/x")).job("true", image=Image("/i.sif", "latest")), "/b", _fact(container="ch-run"))


def test_charliecloud_runs_inside_the_isolation(locked: Place) -> None:
    """In a container the job sees the image's files, its inputs at ../in, and writes to its own folder."""
    if not shutil.which("ch-run") or not shutil.which("mksquashfs"):
        pytest.skip("Charliecloud or squashfs-tools is not installed")
    if os.geteuid() == 0:
        os.chmod("/dev/fuse", 0o666)  # as udev leaves it
    image = _busybox(locked.base)
    (locked.base / "data").mkdir()
    (locked.base / "data" / "one.txt").write_text("one")
    locked.facts["container"] = "ch-run"
    script = "cat ../in/first /marker; echo made > result; ls /"
    job = locked.job("/bin/sh", "-c", script, image=image, inputs=(Mount("first", "data/one.txt"),))
    ended = locked.run(job)
    assert ended.status == 0, ended.said
    assert ended.out.startswith("oneimage"), ended.said
    assert "root" not in ended.out.split()
    assert (locked.base / "jobs" / job.key / "out" / "result").read_text() == "made\n"


def _busybox(base: Path) -> Image:
    """A tiny image: the shell and a few programs with the libraries they need."""
    import hashlib

    root = base / "image"
    for name in ("bin", "dev", "etc", "lib64", "mnt", "proc", "sys", "tmp", "usr", "home", "var", "run"):
        (root / name).mkdir(parents=True)
    (root / "marker").write_text("image\n")
    for name in ("sh", "cat", "ls"):
        program = os.path.realpath(f"/bin/{name}")
        shutil.copy(program, root / "bin" / name)
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in [word for word in said.split() if word.startswith("/")]:
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    packed = base / "image.sqfs"
    subprocess.run(["mksquashfs", str(root), str(packed), "-quiet", "-no-progress"], check=True, capture_output=True)
    packed.chmod(0o644)
    shutil.rmtree(root)
    return Image(str(packed), f"sha256:{hashlib.sha256(packed.read_bytes()).hexdigest()}")


def test_facts_keep_the_strictest_meaning() -> None:
    """A probe's answer without a word about isolation isolates nothing and admits no shared account."""
    facts = Facts.of({"runtime": "/r"})
    assert (facts.isolation, facts.one_person, facts.container) == ("none", False, "")
