"""Commands that say more than their operation alone would: they take the place of the contract's verb."""

from __future__ import annotations

import click

#: Words -> command.
OWN: dict[str, click.Command] = {}
