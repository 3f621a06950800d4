"""What clusters need from those above: which organisation has agreed on which queue, and where jobs are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heroes_clusters.model import Agreement
from heroes_core.work import Work

#: The agreements of an organisation; None where a platform keeps none, and visibility alone decides.
Agreements = Callable[[Work, str], Sequence[Agreement] | None]


def no_agreements(_work: Work, _organisation: str) -> Sequence[Agreement] | None:
    """A platform without a marketplace."""
    return None


#: Whether jobs that have not ended are at a cluster, or planned there.
Occupied = Callable[[Work, str], bool]


def no_jobs(_work: Work, _cluster: str) -> bool:
    """A platform that runs none."""
    return False


_agreements: list[Agreements] = [no_agreements]
_occupied: list[Occupied] = [no_jobs]


def provide_agreements(source: Agreements) -> None:
    """Let `source` tell the agreements from now on; the marketplace calls this when it is loaded."""
    _agreements[0] = source


def agreements(work: Work, organisation: str) -> Sequence[Agreement] | None:
    """The agreements of an organisation."""
    return _agreements[0](work, organisation)


def provide_occupied(source: Occupied) -> None:
    """Let `source` tell from now on where jobs are; the jobs module calls this when it is loaded."""
    _occupied[0] = source


def occupied(work: Work, cluster: str) -> bool:
    """Whether jobs that have not ended are at a cluster, or planned there."""
    return _occupied[0](work, cluster)
