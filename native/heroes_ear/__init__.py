"""Energy of a job: the compiled programs `earl-run` and `heroes-isolate`, and the reader of energy reports."""

from __future__ import annotations

from pathlib import Path

PROGRAMS = ("earl-run", "heroes-isolate")
FOLDER = Path(__file__).parent / "bin"


def program(name: str) -> Path:
    """Path of a compiled program; FileNotFoundError says how to compile it, ValueError that there is none so named."""
    if name not in PROGRAMS:
        raise ValueError(f"no program is called {name!r}; there are {', '.join(PROGRAMS)}")
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} is not compiled ({path} is missing). Install a C compiler (cc), then: python -m heroes_ear.compile"
        )
    return path
