"""The ledger's rules, the same on both databases: by functions of the database on PostgreSQL, by statements else."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotFound, OverBudget
from heroes.api.ids import new_ulid
from heroes.api.units import Money, PriceModel
from heroes_budget import books, counters, reserving, service, settling
from heroes_budget.model import Bill, Counter, Payer, Want, holder_of, window_of
from heroes_budget.store import ledger_account, ledger_credit, ledger_entry
from heroes_core.store import outbox
from heroes_core.work import Database, Work, again
from tests.conftest import StillClock

ADA = Payer("acme", "wind", "ada")
EVE = Payer("acme", None, "eve")
PRICE = PriceModel(per_core_hour="0.01")


def eur(micros: int) -> Money:
    """So many micro-euros."""
    return Money(micros=micros)


def give(work: Work, organisation: str, amount: int) -> None:
    """Credit, as `service.credit` enters it, without an organisation in the directory."""
    counters.open_account(work, organisation, "EUR")
    here = sa.and_(ledger_account.c.organisation == organisation, ledger_account.c.id == "0:organisation")
    work.execute(sa.update(ledger_account).where(here).values(ceiling=ledger_account.c.ceiling + amount))
    row = {"id": f"{organisation}-{random.random()}", "organisation": organisation, "amount": amount, "at": work.now}
    work.execute(sa.insert(ledger_credit).values(**row, currency="EUR", actor="test", reason="test"))


def limit(work: Work, organisation: str, scope: str, subject: str, ceiling: int, period: str = "month") -> str:
    """A budget."""
    window = window_of(period, work.now)
    made = Counter(
        organisation, holder_of(scope, subject), period, new_ulid(), "EUR", 0, 0,
        ceiling, window.starts, window.ends, None,
    )  # fmt: skip
    work.execute(sa.insert(ledger_account).values(**vars(made)))
    return made.id


@pytest.fixture
def funded(database: Database) -> Database:
    """An organisation `acme` with 1000 of credit, and budgets of 500 for the month, 300 for wind, 200 for ada."""
    with database.write() as work:
        give(work, "acme", 1000)
        limit(work, "acme", "organisation", "", 500)
        limit(work, "acme", "project", "wind", 300)
        limit(work, "acme", "user", "ada", 200)
    return database


def reserve(database: Database, key: str, amount: int, payer: Payer = ADA) -> None:
    """One reservation in a transaction of its own."""
    with database.write() as work:
        service.reserve(work, key, payer, "centre", eur(amount), {"core-hours": amount}, PRICE, "alpha")


def settle(database: Database, key: str, amount: int) -> int:
    """One settlement in a transaction of its own; micro-units charged."""
    with database.write() as work:
        return service.settle(work, key, eur(amount), {"core-hours": amount}).micros


def standing(database: Database, holder: str) -> tuple[int, int]:
    """What is posted and pending on an account of acme."""
    here = sa.and_(ledger_account.c.organisation == "acme", ledger_account.c.holder == holder)
    with database.read() as work:
        row = work.execute(sa.select(ledger_account).where(here)).one_or_none()
    return (row.posted, row.pending) if row else (0, 0)


def check_sound(database: Database) -> books.Proof:
    """The books are proven."""
    with database.read() as work:
        proof = books.verify(work)
    assert proof.sound, proof
    return proof


HOLDERS = ("1:user:ada", "2:project:wind", "3:organisation", "0:organisation")


def test_a_reservation_counts_everywhere_at_once(funded: Database) -> None:
    """What is reserved is pending in every budget and in the credit, and nothing is posted."""
    reserve(funded, "k", 150)
    assert [standing(funded, each) for each in HOLDERS] == [(0, 150)] * 4
    check_sound(funded)


def test_settling_charges_what_was_used_and_returns_the_rest(funded: Database) -> None:
    """Settled: the charge is posted, nothing is pending, and the provider is owed the charge."""
    reserve(funded, "k", 150)
    assert settle(funded, "k", 40) == 40
    assert [standing(funded, each) for each in HOLDERS] == [(40, 0)] * 4
    assert standing(funded, "5:provider:centre") == (-40, 0)
    check_sound(funded)


def test_settling_again_changes_nothing(funded: Database) -> None:
    """The first settlement stands, whatever a second one says."""
    reserve(funded, "k", 150)
    settle(funded, "k", 40)
    assert settle(funded, "k", 90) == 40
    assert standing(funded, "3:organisation") == (40, 0)
    assert check_sound(funded).entries == 2


def test_reserving_again_changes_nothing(funded: Database) -> None:
    """A key is reserved once, also when the second time would pass a limit."""
    reserve(funded, "k", 150)
    reserve(funded, "k", 150)
    assert standing(funded, "1:user:ada") == (0, 150)
    check_sound(funded)


def test_voiding_returns_everything_and_may_come_again(funded: Database) -> None:
    """A void reservation leaves nothing posted nor pending."""
    reserve(funded, "k", 150)
    for _ in range(2):
        with funded.write() as work:
            service.void(work, "k")
    assert [standing(funded, each) for each in HOLDERS] == [(0, 0)] * 4
    assert check_sound(funded).entries == 2


def test_what_is_settled_is_not_void_and_the_other_way_round(funded: Database) -> None:
    """Resolved one way, a reservation refuses the other, and the work goes on."""
    reserve(funded, "a", 10)
    reserve(funded, "b", 10)
    settle(funded, "a", 5)
    with funded.write() as work:
        service.void(work, "b")
        with pytest.raises(Conflict, match="settled already"):
            service.void(work, "a")
        with pytest.raises(Conflict, match="void already"):
            service.settle(work, "b", eur(5), {})
    assert standing(funded, "0:organisation") == (5, 0)
    check_sound(funded)


def test_more_than_reserved_is_the_platforms(funded: Database) -> None:
    """A user never pays more than was reserved; the provider gets all, the rest from the platform."""
    reserve(funded, "k", 100)
    assert settle(funded, "k", 130) == 100
    assert standing(funded, "0:organisation") == (100, 0)
    assert standing(funded, "5:provider:centre") == (-130, 0)
    assert standing(funded, "6:platform:overrun") == (30, 0)
    check_sound(funded)


@pytest.mark.parametrize(
    ("payer", "amount", "named", "short"),
    [
        (ADA, 201, "user ada, month 2026-03", 1),
        (ADA, 2000, "user ada, month 2026-03", 1800),
        (EVE, 2000, "organisation acme, month 2026-03", 1500),
        (Payer("acme", "wind", "bob"), 301, "project wind, month 2026-03", 1),
        (EVE, 503, "organisation acme, month 2026-03", 3),
    ],
)
def test_a_refusal_names_the_budget_and_by_how_much(
    funded: Database, payer: Payer, amount: int, named: str, short: int
) -> None:
    """The first limit in the order user, project, organisation is named, and nothing is reserved, although the work
    that was refused commits."""
    with funded.write() as work, pytest.raises(OverBudget) as refused:
        service.reserve(work, "k", payer, "centre", eur(amount), {}, PRICE)
    assert refused.value.message.startswith(named)
    assert refused.value.detail["short"] == {"micros": short, "currency": "EUR"}
    assert [standing(funded, each) for each in HOLDERS] == [(0, 0)] * 4
    assert check_sound(funded).entries == 0


def test_without_credit_nothing_is_spent(funded: Database) -> None:
    """The credit limits what no budget does; an organisation that never had any may use what is free."""
    with funded.write() as work:
        work.execute(sa.delete(ledger_account).where(ledger_account.c.ends.is_not(None)))
    with pytest.raises(OverBudget, match="credit of acme"):
        reserve(funded, "k", 1001)
    with pytest.raises(OverBudget, match="credit of nobody"):
        reserve(funded, "l", 1, Payer("nobody", "", "x"))
    reserve(funded, "m", 0, Payer("nobody", "", "x"))
    assert settle(funded, "m", 0) == 0
    check_sound(funded)


def test_nothing_fits_to_the_last_micro_unit(funded: Database) -> None:
    """A limit may be used up entirely, and then nothing more fits but what is free."""
    reserve(funded, "k", 200)
    with pytest.raises(OverBudget):
        reserve(funded, "l", 1)
    reserve(funded, "m", 0)
    check_sound(funded)


def test_the_warning_comes_once_at_80_percent(funded: Database) -> None:
    """The reservation that brings a budget to 80 % says so; later ones do not."""
    reserve(funded, "a", 159)
    reserve(funded, "b", 1)
    reserve(funded, "c", 5)
    with funded.read() as work:
        news = work.execute(sa.select(outbox).where(outbox.c.kind == reserving.WARNING)).all()
    assert [(each.organisation, each.detail["budget"]) for each in news] == [("acme", "user ada, month 2026-03")]


def test_a_repeated_or_refused_reservation_neither_warns_nor_silences(funded: Database) -> None:
    """A key that comes again, and one that is refused, leave the warning to whoever really comes to 80 %."""
    reserve(funded, "a", 100)
    reserve(funded, "a", 100)
    with pytest.raises(OverBudget):
        reserve(funded, "b", 101)
    reserve(funded, "c", 60)
    reserve(funded, "c", 60)
    with funded.read() as work:
        assert work.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one() == 1


def test_a_batch_is_reserved_whole_or_not_at_all(funded: Database) -> None:
    """Twenty jobs that fit are pending; one more than fits refuses all of them."""
    wants = [Want(f"k{n}", "centre", eur(10), {"use": 10}, PRICE, "alpha") for n in range(20)]
    with funded.write() as work:
        service.reserve_all(work, ADA, wants[:10])
    with funded.write() as work, pytest.raises(OverBudget):
        service.reserve_all(work, ADA, [*wants, Want("more", "centre", eur(1))])
    with funded.write() as work:
        service.reserve_all(work, ADA, wants)
    assert standing(funded, "1:user:ada") == (0, 200)
    check_sound(funded)


def test_a_batch_is_settled_as_one_by_one(funded: Database) -> None:
    """Many keys of several payers at once, some of them settled before, some beyond what was reserved."""
    reserve(funded, "a", 50)
    reserve(funded, "b", 50)
    reserve(funded, "c", 50, EVE)
    settle(funded, "a", 20)
    bills = {"a": Bill(eur(99)), "b": Bill(eur(30), {"use": 30}), "c": Bill(eur(60))}
    with funded.write() as work:
        charged = service.settle_all(work, bills)
    assert {key: each.micros for key, each in charged.items()} == {"a": 20, "b": 30, "c": 50}
    assert standing(funded, "1:user:ada") == (50, 0)
    assert standing(funded, "3:organisation") == (100, 0)
    assert standing(funded, "5:provider:centre") == (-110, 0)
    assert standing(funded, "6:platform:overrun") == (10, 0)
    check_sound(funded)


def test_a_batch_is_void_at_once(funded: Database) -> None:
    """Many reservations are given back in one go."""
    for key in "abc":
        reserve(funded, key, 10)
    with funded.write() as work:
        service.void_all(work, list("abc"))
        service.void_all(work, [])
        assert service.settle_all(work, {}) == {}
    assert standing(funded, "0:organisation") == (0, 0)
    check_sound(funded)


def test_a_new_month_begins_with_nothing_spent(funded: Database, clock: StillClock) -> None:
    """A budget begins anew with its period; a run belongs to the period of its reservation."""
    reserve(funded, "march", 200)
    clock.at = datetime(2026, 4, 1, tzinfo=UTC)
    reserve(funded, "april", 150)
    settle(funded, "march", 180)
    assert standing(funded, "1:user:ada") == (0, 150)
    assert standing(funded, "0:organisation") == (180, 150)
    with pytest.raises(OverBudget, match="user ada, month 2026-04"):
        reserve(funded, "more", 51)
    check_sound(funded)


def test_a_batch_too_begins_the_new_month(funded: Database, clock: StillClock) -> None:
    """The same by the statements for batches."""
    reserve(funded, "march", 200)
    clock.at = datetime(2026, 5, 31, 23, tzinfo=UTC)
    with funded.write() as work:
        service.reserve_all(work, ADA, [Want("x", "centre", eur(90)), Want("y", "centre", eur(90))])
        service.void_all(work, ["march", "x"])
    assert standing(funded, "1:user:ada") == (0, 90)
    check_sound(funded)


def test_fixed_dates_limit_between_them_only(database: Database, clock: StillClock) -> None:
    """A budget with fixed dates counts nothing before and nothing after them, and never begins anew."""
    starts, ends = datetime(2026, 3, 10, tzinfo=UTC), datetime(2026, 3, 20, tzinfo=UTC)
    fixed = Counter("acme", "1:user:ada", "fixed:1", "1", "EUR", 0, 0, 10, starts, ends, None)
    with database.write() as work:
        give(work, "acme", 1000)
        work.execute(sa.insert(ledger_account).values(**vars(fixed)))
    reserve(database, "before", 100)
    clock.at = starts
    with pytest.raises(OverBudget, match="2026-03-10 to 2026-03-20"):
        reserve(database, "within", 11)
    reserve(database, "within", 10)
    clock.at = ends
    reserve(database, "after", 100)
    for key in ("before", "within", "after"):
        settle(database, key, 5)
    assert standing(database, "1:user:ada") == (5, 0)
    check_sound(database)


def test_another_currency_is_refused(funded: Database) -> None:
    """Books are kept in one currency: neither reservation nor settlement in another, and nothing has changed."""
    francs = Money(micros=5, currency="CHF")
    reserve(funded, "k", 10)
    with funded.write() as work:
        for attempt in (
            lambda: service.reserve(work, "l", ADA, "centre", francs, {}, PRICE),
            lambda: service.reserve_all(work, ADA, [Want("l", "c", francs), Want("m", "c", francs)]),
            lambda: service.settle(work, "k", francs, {}),
            lambda: service.settle_all(work, {"k": Bill(francs), "z": Bill(francs)}),
        ):
            with pytest.raises((InvalidSpec, NotFound)):
                attempt()
    check_sound(funded)


def test_negative_amounts_are_refused(funded: Database) -> None:
    """Neither reservation nor charge is below nothing."""
    reserve(funded, "k", 10)
    with pytest.raises(InvalidSpec, match="negative"):
        reserve(funded, "l", -1)
    with pytest.raises(InvalidSpec, match="negative"):
        settle(funded, "k", -1)


def test_an_unknown_key_is_told(database: Database) -> None:
    """Settling, voiding or correcting what was never reserved names the key."""
    for attempt in (service.void, lambda work, key: service.settle(work, key, eur(1), {})):
        with database.write() as work, pytest.raises(NotFound, match="nothing-here"):
            attempt(work, "nothing-here")
    with database.write() as work, pytest.raises(Conflict, match="not settled"):
        service.correct(work, "nothing-here", eur(1), "why")


@pytest.mark.parametrize(
    ("first", "then", "charged", "overrun"), [(40, 70, 70, 0), (40, 10, 10, 0), (40, 120, 100, 20), (130, 60, 60, 0)]
)
def test_a_correction_enters_the_difference(
    funded: Database, first: int, then: int, charged: int, overrun: int
) -> None:
    """After a correction the books stand as if the right amount had been settled; doing it again changes nothing."""
    reserve(funded, "k", 100)
    settle(funded, "k", first)
    for _ in range(2):
        with funded.write() as work:
            assert service.correct(work, "k", eur(then), "accounting came late").micros == charged
    assert [standing(funded, each) for each in HOLDERS] == [(charged, 0)] * 4
    assert standing(funded, "5:provider:centre") == (-charged - overrun, 0)
    assert standing(funded, "6:platform:overrun") == (overrun, 0)
    check_sound(funded)


def test_a_correction_never_passes_a_limit(funded: Database) -> None:
    """What was given back and reserved by others since is not there any more: the platform bears the difference."""
    reserve(funded, "k", 200)
    settle(funded, "k", 50)
    reserve(funded, "l", 140)
    with funded.write() as work:
        assert service.correct(work, "k", eur(80), "late").micros == 60
    assert standing(funded, "1:user:ada") == (60, 140)
    assert standing(funded, "6:platform:overrun") == (20, 0)
    check_sound(funded)


@pytest.mark.parametrize("table", [ledger_entry, ledger_credit], ids=str)
@pytest.mark.parametrize("change", [sa.update, sa.delete])
def test_what_is_entered_is_never_changed(
    funded: Database, table: sa.Table, change: Callable[[sa.Table], sa.Update | sa.Delete]
) -> None:
    """The database itself refuses to change or delete entries, whoever asks."""
    reserve(funded, "k", 10)
    statement = change(table)
    statement = statement.values(amount=1) if isinstance(statement, sa.Update) else statement
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), funded.write() as work:
        work.execute(statement)
    check_sound(funded)


@pytest.mark.parametrize("column", ["posted", "pending"])
@pytest.mark.parametrize("holder", ["1:user:ada", "0:organisation"])
def test_the_proof_finds_a_counter_that_was_altered(funded: Database, column: str, holder: str) -> None:
    """A counter that disagrees with its entries shows, by how much."""
    reserve(funded, "k", 10)
    here = sa.and_(ledger_account.c.organisation == "acme", ledger_account.c.holder == holder)
    with funded.write() as work:
        work.execute(sa.update(ledger_account).where(here).values({column: ledger_account.c[column] + 3}))
        proof = books.verify(work)
    assert proof.difference == 3
    assert proof.imbalance == (3 if (column, holder) == ("posted", "0:organisation") else 0)


def test_the_proof_finds_an_overdraft_and_credit_from_nowhere(funded: Database) -> None:
    """A limit below what is pending shows as an overdraft, and credit that nobody gave as a difference."""
    reserve(funded, "k", 150)
    here = sa.and_(ledger_account.c.organisation == "acme", ledger_account.c.holder == "0:organisation")
    with funded.write() as work:
        work.execute(sa.update(ledger_account).where(here).values(ceiling=100))
        proof = books.verify(work)
    assert (proof.overdraft, proof.difference) == (50, 900)


# ------------------------------------------------------------------------------------------------------------ races


@pytest.fixture
def crowd(funded: Database, clock: StillClock) -> Iterator[Database]:
    """The same database with a connection for each of 64 threads, so that they wait for rows only."""
    opened = Database(funded.url.render_as_string(hide_password=False), audit_key=b"x", clock=clock, pool_size=64)
    yield opened
    opened.close()


def race(clients: int, action: Callable[[int], None]) -> None:
    """Let so many threads do `action(n)`, begun together."""
    together = threading.Barrier(clients)

    def run(n: int) -> None:
        together.wait(30)
        action(n)

    with ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(run, n) for n in range(clients)]:
            each.result(100)


def test_64_clients_never_pass_a_limit(crowd: Database) -> None:
    """64 threads fight for budgets that hold a part of what they ask: no overdraft, no imbalance, and what was granted
    is exactly what fits."""
    granted: list[int] = []

    def client(n: int) -> None:
        payer = Payer("acme", "wind" if n % 2 else None, f"user{n % 5}")
        for turn in range(4):
            key = f"{n}-{turn}"
            try:
                again(lambda key=key: reserve(crowd, key, 7, payer), tries=20)
            except OverBudget:
                continue
            granted.append(7)

    race(64, client)
    assert standing(crowd, "3:organisation") == (0, sum(granted))
    assert 500 - 7 < sum(granted) <= 500
    check_sound(crowd)


def test_64_clients_reserve_and_settle(crowd: Database) -> None:
    """64 threads reserve, then settle, void or exceed; some are refused. The books balance to the micro-unit."""

    def client(n: int) -> None:
        dice = random.Random(n)
        payer = Payer("acme", dice.choice(["wind", None]), dice.choice(["ada", "bob", "eve"]))
        for turn in range(4):
            key = f"{n}-{turn}"
            try:
                again(lambda key=key: reserve(crowd, key, dice.randrange(60), payer), tries=20)
            except OverBudget:
                continue
            if dice.random() < 0.3:
                again(lambda key=key: _void(crowd, key), tries=20)
            else:
                again(lambda key=key: settle(crowd, key, dice.randrange(80)), tries=20)

    race(64, client)
    proof = check_sound(crowd)
    assert proof.entries > 0
    assert standing(crowd, "0:organisation")[1] == 0


def _void(database: Database, key: str) -> None:
    with database.write() as work:
        service.void(work, key)


def test_settling_races_with_voiding_and_one_wins(crowd: Database) -> None:
    """Of a settlement and a void at the same instant exactly one takes effect, every time."""
    for turn in range(20):
        reserve(crowd, f"k{turn}", 10)
    wins: list[tuple[int, str]] = []

    def client(n: int) -> None:
        for turn in range(20):
            try:
                if n % 2:
                    again(lambda turn=turn: _void(crowd, f"k{turn}"), tries=20)
                else:
                    again(lambda turn=turn: settle(crowd, f"k{turn}", 3), tries=20)
            except Conflict:
                continue
            wins.append((turn, "void" if n % 2 else "settle"))

    race(8, client)
    for turn in range(20):
        assert len({how for at, how in wins if at == turn}) == 1
    check_sound(crowd)


def test_the_same_key_is_reserved_once_by_many(crowd: Database) -> None:
    """32 threads reserve the same key: it is reserved once, and nobody is refused."""
    race(32, lambda _: again(lambda: reserve(crowd, "k", 150), tries=20))
    assert standing(crowd, "1:user:ada") == (0, 150)
    assert check_sound(crowd).entries == 1


def test_batches_and_single_ones_do_not_block_each_other_for_good(crowd: Database) -> None:
    """Batches of several payers race with single reservations of each: all end, and the books balance."""
    payers = [ADA, EVE, Payer("acme", "wind", "bob")]

    def client(n: int) -> None:
        for turn in range(5):
            keys = {f"{n}-{turn}-{m}": payer for m, payer in enumerate(payers)}

            def open_all(keys: dict[str, Payer] = keys) -> None:
                with crowd.write() as work:
                    for key in sorted(keys, key=lambda each: keys[each].user):
                        settling_payer = keys[key]
                        service.reserve_all(
                            work, settling_payer, [Want(key, "c", eur(1)), Want(f"{key}+", "c", eur(1))]
                        )

            def close_all(keys: dict[str, Payer] = keys) -> None:
                with crowd.write() as work:
                    settling.settle(work, {key: Bill(eur(1)) for each in keys for key in (each, f"{each}+")})

            again(open_all, tries=50)
            again(close_all, tries=50)

    race(8, client)
    check_sound(crowd)
    assert standing(crowd, "3:organisation") == (8 * 5 * 3 * 2, 0)
