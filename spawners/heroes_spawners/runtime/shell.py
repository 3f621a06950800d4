"""The one place that writes text for a shell to read: everything is quoted, nothing is expanded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from heroes.api.errors import InvalidSpec

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Names that a shell refuses to set, or that change how it reads what follows.
_RESERVED = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_ENV", "ENV", "IFS", "OPTIND", "PS4"})


def words(argv: Sequence[str]) -> str:
    """`argv` as shell words that stay exactly these arguments. InvalidSpec for a NUL byte."""
    for word in argv:
        if "\0" in word:
            raise InvalidSpec(f"{word!r} holds a NUL byte", hint="Remove it: no program can be given one.")
    return shlex.join(argv)


def command(argv: Sequence[str]) -> str:
    """A line that makes `"$@"` exactly `argv`."""
    return f"set -- {words(argv)}\n"


def exports(variables: Mapping[str, str]) -> str:
    """Lines that export each variable with exactly its value. InvalidSpec for a name that is none."""
    lines = []
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or name in _RESERVED:
            hint = "Use letters, digits and underscores, and none of the shell's own names."
            raise InvalidSpec(f"{name!r} cannot name an environment variable", hint=hint)
        lines.append(f"export {name}={words([value])}\n")
    return "".join(lines)
