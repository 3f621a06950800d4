"""The command line `heroes`: the users' verbs made from the contract, and further ones from `heroes.commands`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never ends in a traceback."""
    from heroes.cli.app import run

    raise SystemExit(run())
