"""Random histories of the ledger against a plain model of it, on both databases; the books are proven after each.

HEROES_LEDGER_EXAMPLES sets how many histories of 50 steps are tried on SQLite (a fifth as many on PostgreSQL).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from heroes.api.errors import Conflict, OverBudget
from heroes.api.units import Money
from heroes_budget import books, counters, service
from heroes_budget.model import Bill, Counter, Payer, Want, holder_of, window_of
from heroes_budget.store import ledger_account, ledger_credit
from heroes_core.work import Database, Work
from tests.conftest import StillClock

EXAMPLES = int(os.environ.get("HEROES_LEDGER_EXAMPLES", "200"))
#: The same histories every time, unless somebody asks for more.
ALWAYS_THE_SAME = "HEROES_LEDGER_EXAMPLES" not in os.environ
STEPS = 50
_numbers = itertools.count()
users = st.sampled_from(["ada", "bob"])
projects = st.sampled_from(["", "wind"])
amounts = st.integers(0, 60)
holders = st.sampled_from([("user", "ada"), ("user", "bob"), ("project", "wind"), ("organisation", "")])
periods = st.sampled_from(["month", "quarter"])


class Crash(Exception):
    """The process dies: what it had not committed is gone."""


@dataclass(frozen=True)
class Held:
    """What the model knows of a reservation."""

    payer: Payer
    amount: int
    at: datetime
    charged: int | None = None
    borne: int = 0

    @property
    def pending(self) -> int:
        return self.amount if self.charged is None else 0


class Ledger(RuleBasedStateMachine):
    """Reservations and what became of them, budgets and credit; counters are what follows from those."""

    database: Database
    clock: StillClock

    def __init__(self) -> None:
        super().__init__()
        self.organisation = f"o{next(_numbers)}"
        self.clock.at = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a history must not depend on the one before
        self.held: dict[str, Held] = {}
        self.limits: dict[tuple[str, str], int] = {}
        self.credit = 0
        self.numbers = itertools.count()

    # what the model says

    def used(self, holder: str, starts: datetime | None, ends: datetime | None) -> tuple[int, int]:
        mine = [
            each
            for each in self.held.values()
            if holder in each.payer.holders and (starts is None or ends is None or starts <= each.at < ends)
        ]
        return sum(each.charged or 0 for each in mine), sum(each.pending for each in mine)

    def room(self, payer: Payer) -> int:
        """The least that any limit of the payer leaves now."""
        left = [self.credit - sum(self.used("0:organisation", None, None))]
        for (holder, period), ceiling in self.limits.items():
            if holder in payer.holders:
                window = window_of(period, self.clock.at)
                left.append(ceiling - sum(self.used(holder, window.starts, window.ends)))
        return min(left)

    def payer(self, user: str, project: str) -> Payer:
        return Payer(self.organisation, project, user)

    def open_keys(self) -> list[str]:
        return [key for key, each in self.held.items() if each.charged is None]

    # what happens

    @rule(user=users, project=projects, amount=amounts)
    def reserve(self, user: str, project: str, amount: int) -> None:
        payer, key = self.payer(user, project), f"{self.organisation}-{next(self.numbers)}"
        fits = amount == 0 or amount <= self.room(payer)
        with self.database.write() as work:
            assert _admitted(lambda: service.reserve(work, key, payer, "centre", _eur(amount), {})) is fits
        if fits:
            self.held[key] = Held(payer, amount, self.clock.at)

    @rule(user=users, project=projects, each=amounts, count=st.integers(2, 4))
    def reserve_many(self, user: str, project: str, each: int, count: int) -> None:
        payer = self.payer(user, project)
        keys = [f"{self.organisation}-{next(self.numbers)}" for _ in range(count)]
        fits = each == 0 or each * count <= self.room(payer)
        with self.database.write() as work:
            wants = [Want(key, "cloud", _eur(each)) for key in keys]
            assert _admitted(lambda: service.reserve_all(work, payer, wants)) is fits
        if fits:
            self.held |= {key: Held(payer, each, self.clock.at) for key in keys}

    @precondition(lambda self: self.open_keys())
    @rule(data=st.data(), percent=st.integers(0, 130), again=st.booleans())
    def settle(self, data: st.DataObject, percent: int, again: bool) -> None:
        key = data.draw(st.sampled_from(self.open_keys()))
        held = self.held[key]
        used = held.amount * percent // 100
        for _ in range(1 + again):
            with self.database.write() as work:
                assert service.settle(work, key, _eur(used), {}).micros == min(used, held.amount)
        self._charge(key, used)

    @precondition(lambda self: len(self.open_keys()) > 1)
    @rule(percent=st.integers(0, 130))
    def settle_many(self, percent: int) -> None:
        bills = {key: self.held[key].amount * percent // 100 for key in self.open_keys()}
        with self.database.write() as work:
            service.settle_all(work, {key: Bill(_eur(used)) for key, used in bills.items()})
        for key, used in bills.items():
            self._charge(key, used)

    def _charge(self, key: str, used: int) -> None:
        held = self.held[key]
        charged = min(used, held.amount)
        self.held[key] = replace(held, charged=charged, borne=used - charged)

    @precondition(lambda self: self.open_keys())
    @rule(data=st.data(), again=st.booleans())
    def void(self, data: st.DataObject, again: bool) -> None:
        key = data.draw(st.sampled_from(self.open_keys()))
        for _ in range(1 + again):
            with self.database.write() as work:
                service.void(work, key)
        del self.held[key]
        with self.database.write() as work, pytest.raises(Conflict):
            service.settle(work, key, _eur(1), {})

    @precondition(lambda self: len(self.held) > len(self.open_keys()))
    @rule(data=st.data(), right=amounts)
    def correct(self, data: st.DataObject, right: int) -> None:
        key = data.draw(st.sampled_from([key for key, each in self.held.items() if each.charged is not None]))
        held = self.held[key]
        assert held.charged is not None
        more = min(right, held.amount) - held.charged
        if more > 0:
            more = min(more, max(0, self._room_then(held)))
        with self.database.write() as work:
            assert service.correct(work, key, _eur(right), "late").micros == held.charged + more
        charged = held.charged + more
        self.held[key] = replace(held, charged=charged, borne=right - charged)

    def _room_then(self, held: Held) -> int:
        """What the limits leave that counted the reservation, in the windows that their counters are in."""
        with self.database.read() as work:
            found = counters.of_holders(work, self.organisation, held.payer.holders)
        return min(
            each.ceiling - sum(self.used(each.holder, each.starts, each.ends))
            for each in found
            if each.ceiling is not None and each.covers(held.at)
        )

    @rule(amount=st.integers(1, 200))
    def top_up(self, amount: int) -> None:
        with self.database.write() as work:
            _give(work, self.organisation, amount)
        self.credit += amount

    @rule(holder=holders, period=periods, extra=st.integers(0, 150))
    def limit(self, holder: tuple[str, str], period: str, extra: int) -> None:
        name, window = holder_of(*holder), window_of(period, self.clock.at)
        posted, pending = self.used(name, window.starts, window.ends)
        ceiling = posted + pending + extra
        with self.database.write() as work:
            counters.shut_out(work, self.organisation)
            found = books.used(work, self.organisation, name, window.starts, window.ends)
            assert found == (posted, pending)
            work.execute(sa.delete(ledger_account).where(*self._at(name, period)))
            made = Counter(
                self.organisation, name, period, f"{name}-{period}", "EUR", posted, pending, ceiling, window.starts,
                window.ends, None,
            )  # fmt: skip
            work.execute(sa.insert(ledger_account).values(**vars(made)))
        self.limits[name, period] = ceiling

    @precondition(lambda self: self.limits)
    @rule(data=st.data())
    def no_limit(self, data: st.DataObject) -> None:
        name, period = data.draw(st.sampled_from(sorted(self.limits)))
        with self.database.write() as work:
            work.execute(sa.delete(ledger_account).where(*self._at(name, period)))
        del self.limits[name, period]

    def _at(self, holder: str, period: str) -> tuple[sa.ColumnElement[bool], ...]:
        columns = ledger_account.c
        return columns.organisation == self.organisation, columns.holder == holder, columns.period == period

    @rule(days=st.sampled_from([1, 10, 40]))
    def time_passes(self, days: int) -> None:
        self.clock.at += timedelta(days=days)

    @rule(user=users, amount=amounts)
    def crash(self, user: str, amount: int) -> None:
        """What was done in a work that does not end is not done."""
        with pytest.raises(Crash):
            self._begin_and_crash(user, amount)

    def _begin_and_crash(self, user: str, amount: int) -> None:
        with self.database.write() as work:
            key, payer = f"{self.organisation}-crashed", self.payer(user, "wind")
            if _admitted(lambda: service.reserve(work, key, payer, "centre", _eur(amount), {})):
                service.settle(work, key, _eur(amount), {})
            for each in self.open_keys():
                service.void(work, each)
            raise Crash

    def teardown(self) -> None:
        """Counters are what follows from the model, and the books are proven."""
        with self.database.read() as work:
            here = ledger_account.c.organisation == self.organisation
            rows = books.counters_of(work, sa.select(*books.COLUMNS).where(here))
            proof = books.verify(work, self.organisation)
        assert proof.sound, proof
        for each in rows:
            if each.holder < "5":
                assert (each.posted, each.pending) == self.used(each.holder, each.starts, each.ends), each
            elif each.holder.startswith("6"):
                assert each.posted == sum(held.borne for held in self.held.values())


def _eur(micros: int) -> Money:
    return Money(micros=micros)


def _admitted(action: Callable[[], None]) -> bool:
    try:
        action()
    except OverBudget:
        return False
    return True


def _give(work: Work, organisation: str, amount: int) -> None:
    counters.open_account(work, organisation, "EUR")
    here = sa.and_(ledger_account.c.organisation == organisation, ledger_account.c.id == "0:organisation")
    work.execute(sa.update(ledger_account).where(here).values(ceiling=ledger_account.c.ceiling + amount))
    row = {"id": f"c{next(_numbers)}", "organisation": organisation, "amount": amount, "at": work.now}
    work.execute(sa.insert(ledger_credit).values(**row, currency="EUR", actor="test", reason="test"))


@pytest.mark.timeout(600)
def test_random_histories_leave_sound_books(database: Database, clock: StillClock) -> None:
    """Reserve, settle, void, correct, top up, limit, let months pass, crash: no overdraft, no imbalance, and every
    counter is what the history says."""

    class Here(Ledger):
        pass

    if database.dialect == "sqlite":  # one file and no crash of the machine: its syncs prove nothing here
        connection = database.engine.raw_connection()
        connection.cursor().execute("PRAGMA synchronous=OFF")
        connection.close()
    Here.database, Here.clock = database, clock
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES if database.dialect == "sqlite" else max(1, EXAMPLES // 5),
            stateful_step_count=STEPS,
            derandomize=ALWAYS_THE_SAME,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
