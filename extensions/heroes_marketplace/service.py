"""Agreements as the settings of the platform give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from heroes.api import marketplace as api
from heroes_clusters.model import Agreement
from heroes_core.work import Work
from heroes_marketplace import store


@dataclass(frozen=True)
class Agreed:
    """One agreement of the settings."""

    organisation: str
    cluster: str
    queue: str = "*"
    terms: str = ""


def configure(work: Work, agreed: Sequence[Agreed], actor: str) -> None:
    """Make the stored agreements those of the settings; each that comes, changes or goes is audited."""
    held = {(row.organisation, row.cluster, row.queue): row.terms for row in store.every(work)}
    wanted = {(each.organisation, each.cluster, each.queue): each.terms for each in agreed}
    for key in sorted(held.keys() | wanted.keys()):
        if held.get(key) == wanted.get(key):
            continue
        if key in held:
            store.remove(work, *key)
        if key in wanted:
            store.add(work, *key, wanted[key])
        organisation, cluster, queue = key
        action = "agreement.made" if key in wanted else "agreement.ended"
        work.audit(organisation, actor, action, f"{cluster}/{queue}", terms=wanted.get(key, ""))


def agreements(work: Work, organisation: str) -> list[Agreement] | None:
    """Where an organisation may run; None on a platform that keeps no agreements, where visibility decides."""
    rows = store.of(work, organisation)
    if not rows and not store.any_at_all(work):
        return None
    return [Agreement(row.organisation, row.cluster, row.queue) for row in rows]


def listing(work: Work, organisation: str) -> api.Agreements:
    """The agreements of an organisation, with their terms."""
    return api.Agreements(
        items=tuple(
            api.Agreement(
                organisation=row.organisation, cluster=row.cluster, queue=row.queue, terms=row.terms, since=row.since
            )
            for row in store.of(work, organisation)
        )
    )


def configure_rates(work: Work, rates: Mapping[tuple[str, str], Decimal], organisation: str, actor: str) -> None:
    """Make the stored exchange rates those of the settings: {(source, target): units of target for one of source}."""
    held = store.rates(work)
    for (source, target), rate in sorted(rates.items()):
        if held.get((source, target)) != str(rate):
            store.set_rate(work, source, target, str(rate))
            work.audit(organisation, actor, "exchange.rate", f"{source}/{target}", rate=str(rate))


def exchange_rate(work: Work, source: str, target: str) -> Decimal | None:
    """Units of `target` for one of `source`, None where the settings give none. A price is converted once, at
    submission, and the rate is kept with the reservation."""
    if source == target:
        return Decimal(1)
    rate = store.rates(work).get((source, target))
    return None if rate is None else Decimal(rate)
