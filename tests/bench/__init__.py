"""Figures, each as a ratio against a peer or a limit measured in the same run: `make bench [BENCH=name]`.

A bench is a module `tests.bench.<name>` with a function `run()` that yields `Figure`s named `<name>.<figure>`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One figure. `better` "between": `goal` holds both ends. `peer` says what it was measured against."""

    name: str
    value: float
    unit: str
    goal: float | tuple[float, float] | None
    better: Literal["lower", "higher", "between"]
    peer: str
    n: int

    def line(self) -> str:
        """The figure as one JSON object on a line."""
        return json.dumps({**asdict(self), "value": round(self.value, 4)})
