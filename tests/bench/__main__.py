"""Run the benches named on the command line, all of them without a name; the figures come last on standard output."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

from tests import bench


def main(names: list[str]) -> int:
    """Run each; how many could not be run."""
    known = sorted(each.name for each in pkgutil.iter_modules(bench.__path__) if not each.name.startswith("_"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"There is no bench {', '.join(unknown)}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    lines, failed = [], []
    for name in names or known:
        began = time.monotonic()
        module = importlib.import_module(f"tests.bench.{name}")
        if not hasattr(module, "run"):
            continue
        print(f"bench {name} …", file=sys.stderr, flush=True)
        try:
            lines += [figure.line() for figure in module.run()]
        except Exception as error:  # noqa: BLE001 - one bench that cannot run must not hide the others' figures
            failed.append(f"{name}: {type(error).__name__}: {error}")
        print(f"bench {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for line in lines:
        print(line)
    for line in failed:
        print(line, file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
