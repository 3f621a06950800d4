"""The programs are compiled where a compiler is, and their absence is told where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

import heroes_ear
from heroes_ear import compile as compiling


def test_without_a_compiler_the_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails without a compiler: each program that is missing is named."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = compiling.compile_all(target=tmp_path / "bin")
    assert [sentence.split()[0] for sentence in told] == list(heroes_ear.PROGRAMS)
    assert "no C compiler" in told[0]


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's own words are told, and no program is left."""
    monkeypatch.setenv("CC", "sh -c 'echo broken >&2; exit 1'")
    told = compiling.compile_all(target=tmp_path / "bin")
    assert len(told) == 2
    assert "broken" in told[0]
    assert list((tmp_path / "bin").iterdir()) == []


def test_what_is_fresh_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Path) -> None:
    """A program newer than its source is left alone, so that no compiler is asked for."""
    del programs
    monkeypatch.setenv("CC", "false")
    assert compiling.compile_all() == []


def test_static_is_tried_first(tmp_path: Path) -> None:
    """A static program is wanted, a dynamic one taken where the C library has no static form."""
    first, second = compiling.commands("ccache gcc", tmp_path / "a.c", tmp_path / "a")
    assert first[:2] == ["ccache", "gcc"]
    assert "-static" in first
    assert [word for word in first if word != "-static"] == second


def test_paths_of_programs(programs: Path) -> None:
    """A program is found by name; a name that is none is a mistake."""
    assert heroes_ear.program("earl-run").is_file()
    with pytest.raises(ValueError, match="no program is called 'rm'"):
        heroes_ear.program("rm")


def test_a_program_that_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to compile is told."""
    monkeypatch.setattr(heroes_ear, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="not compiled"):
        heroes_ear.program("earl-run")
