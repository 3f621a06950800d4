"""What clusters need from those above: which organisation has agreed on which queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heroes_clusters.model import Agreement
from heroes_core.work import Work

#: The agreements of an organisation; None where a platform keeps none, and visibility alone decides.
Agreements = Callable[[Work, str], Sequence[Agreement] | None]


def no_agreements(_work: Work, _organisation: str) -> Sequence[Agreement] | None:
    """A platform without a marketplace."""
    return None


_agreements: list[Agreements] = [no_agreements]


def provide_agreements(source: Agreements) -> None:
    """Let `source` tell the agreements from now on; the marketplace calls this when it is loaded."""
    _agreements[0] = source


def agreements(work: Work, organisation: str) -> Sequence[Agreement] | None:
    """The agreements of an organisation."""
    return _agreements[0](work, organisation)
