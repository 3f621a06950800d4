"""Building and pushing environments, with a package index of one tiny wheel in a folder."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from pathlib import Path

import pytest

from heroes.api.errors import InvalidSpec, LinkDown, NotFound, Unavailable
from heroes_spawners import environment
from heroes_spawners.environment import Archive, build, ensure_environment, names
from heroes_spawners.transport.local import LocalTransport

FACTS = {"python": "/usr/bin/python3", "python_version": "3.11", "glibc": "2.36", "arch": "x86_64"}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of an environment of one package, which comes from a folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("tiny/__init__.py", "answer = 42\n")
        made.writestr("tiny/tests/__init__.py", "raise SystemExit\n")
        made.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        made.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("tiny-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "tiny.txt").write_text(f"--no-index\n--find-links {wheels}\ntiny==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(environment, "_locks", lambda: locks)
    return locks


def test_the_shipped_environment_is_locked() -> None:
    """There is an environment for the shipped workflows, and every package of it has hashes."""
    lock = environment._lock("python").decode()
    assert names() == ["python"]
    for package in ("pandas", "lightgbm", "matplotlib"):
        assert f"\n{package}==" in f"\n{lock}"
    assert "--hash=sha256:" in lock


def test_an_environment_is_built_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the archive comes from the cache, with the same checksum."""
    first = build("tiny", tmp_path / "cache")
    monkeypatch.setattr(environment, "_make", None)
    assert build("tiny", tmp_path / "cache") == first
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256


def test_the_same_packages_make_the_same_archive(tiny: Path, tmp_path: Path) -> None:
    """Two builds agree byte by byte, so that a site which has it is not pushed to again; test suites stay behind."""
    one, two = build("tiny", tmp_path / "one"), build("tiny", tmp_path / "two")
    assert one.sha256 == two.sha256
    with tarfile.open(one.path) as tar:
        inside = tar.getnames()
    assert "tiny/__init__.py" in inside
    assert not [each for each in inside if "tests" in each]


def test_an_unknown_environment_is_named(tiny: Path, tmp_path: Path) -> None:
    """The error says which there are."""
    with pytest.raises(NotFound, match=r"'conda'.*tiny"):
        build("conda", tmp_path)


def test_an_index_out_of_reach_is_told(tiny: Path, tmp_path: Path) -> None:
    """A package that cannot be had leaves nothing in the cache, and the error says what to check."""
    (tiny / "tiny.txt").write_text(f"--no-index\ntiny==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Unavailable, match=r"(?s)cannot be built.*package index"):
        build("tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))


def test_it_is_pushed_and_works(tiny: Path, tmp_path: Path) -> None:
    """At the site there is a Python that imports the package; the second push finds it there."""
    base, transport = str(tmp_path / "site"), LocalTransport()
    sha = ensure_environment(transport, base, FACTS, "tiny", tmp_path / "cache")
    argv = (f"{base}/runtime/{sha}/bin/python", "-c", "import tiny; print(tiny.answer)")
    assert transport.run(argv, deadline_s=30, limit=1000).stdout == b"42\n"
    before = (tmp_path / "site" / "runtime" / sha).stat().st_ino
    assert ensure_environment(transport, base, FACTS, "tiny", tmp_path / "cache") == sha
    assert (tmp_path / "site" / "runtime" / sha).stat().st_ino == before
    assert [each.name for each in (tmp_path / "site" / "runtime").iterdir()] == [sha]


def test_a_damaged_transfer_is_found(tiny: Path, tmp_path: Path) -> None:
    """What arrives with another checksum is not unpacked, and nothing of it stays."""
    made = build("tiny", tmp_path / "cache")
    wrong = Archive(made.path, "0" * 64)
    with pytest.raises(LinkDown, match="was damaged"):
        environment._push(LocalTransport(), str(tmp_path / "site"), wrong, FACTS["python"], 60)
    assert list((tmp_path / "site" / "runtime").iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "no Python 3.11"),
        ({**FACTS, "python_version": "3.9"}, "found: 3.9"),
        ({**FACTS, "glibc": "2.17"}, "C library 2.17"),
    ],
)
def test_a_site_that_is_too_old_is_told_so(tmp_path: Path, facts: dict[str, str], said: str) -> None:
    """The error names what the site has and the way out: a container image."""
    with pytest.raises(InvalidSpec, match=said) as caught:
        ensure_environment(LocalTransport(), str(tmp_path), facts, "python", tmp_path / "cache")
    assert "image" in caught.value.hint
