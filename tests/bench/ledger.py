"""Reserve and settle on PostgreSQL by 64 clients, against pgbench's TPC-B-like script on the same server.

A pair is a reservation and its settlement, each a transaction of its own through the service, committed to the disk.
Every client is a user of an organisation with three budgets (its own, its project's, the organisation's); one
reservation in twenty asks for too much, is refused and not counted. The clients are 2 processes of 32 threads, as
pgbench has 2 threads of 32 clients. Both take turns, so that whatever else the machine does hits both alike, and the
middle one of the ratios counts.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import sqlalchemy as sa

from heroes.api.errors import OverBudget
from heroes.api.units import Money, PriceModel
from heroes_budget import books, service
from heroes_budget.model import Counter, Payer, holder_of, window_of
from heroes_budget.store import ledger_account, ledger_credit
from heroes_core.migrate import upgrade
from heroes_core.work import Database, Work, again
from tests.bench import Figure
from tests.lab import postgres

CLIENTS = 64
PROCESSES = 2
ROUNDS = 5
SECONDS = 4.0
MUCH = 10**15
_PRICE = PriceModel(per_core_hour="0.01")


@dataclass(frozen=True)
class Client:
    """A user of an organisation, and the names of what it reserves."""

    number: int
    organisations: int

    @property
    def payer(self) -> Payer:
        """Eight projects in each organisation."""
        return Payer(f"org{self.number % self.organisations}", f"project{self.number % 8}", f"user{self.number}")

    def pairs(self, database: Database, seconds: float, prefix: str) -> int:
        """Reserve and settle for that long; how many pairs."""
        ends, done = time.monotonic() + seconds, 0
        for turn in itertools.count():
            if time.monotonic() >= ends:
                return done
            key = f"{prefix}-{self.number}-{turn}"
            if turn % 20 == 19:
                with suppress(OverBudget):
                    again(lambda key=key: self.reserve(database, key, MUCH))
                continue
            again(lambda key=key: self.reserve(database, key, 1_000_000))
            again(lambda key=key: self.settle(database, key, 400_000))
            done += 1
        raise AssertionError("counts forever")

    def reserve(self, database: Database, key: str, amount: int) -> None:
        """One transaction."""
        with database.write() as work:
            lines = {"core-hours": amount}
            service.reserve(work, key, self.payer, "centre", Money(micros=amount), lines, _PRICE, "alpha")

    def settle(self, database: Database, key: str, amount: int) -> None:
        """One transaction."""
        with database.write() as work:
            service.settle(work, key, Money(micros=amount), {"core-hours": amount})


def run() -> Iterator[Figure]:
    """The figures."""
    server = postgres.server(durable=True)
    overdraft = imbalance = 0
    for name, organisations, scale, goal in (("one_org", 1, 1, 0.3), ("many_orgs", 60, 64, 0.5)):
        url, peer = server.fresh_database(), _pgbench_database(server, scale)
        database = Database(url, audit_key=b"bench")
        _prepare(database, organisations)
        peers, ours = [], []
        for turn in range(ROUNDS):
            peers.append(_pgbench(server, peer))
            ours.append(_pairs(url, organisations, f"r{turn}"))
        ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]
        told = f"pgbench TPC-B-like -s {scale}, {CLIENTS} clients: {statistics.median(peers):.0f}/s"
        yield Figure(f"ledger.{name}_ratio", statistics.median(ratios), "ratio", goal, "higher", told, ROUNDS)
        yield Figure(f"ledger.{name}_pairs", statistics.median(ours), "pairs/s", None, "higher", told, ROUNDS)
        proof = _proof(database)
        overdraft, imbalance = overdraft + proof.overdraft, imbalance + proof.imbalance + proof.difference
        database.close()
    rate, proof = _sqlite()
    yield Figure("ledger.sqlite_pairs", rate, "pairs/s", None, "higher", "SQLite, 8 threads, synchronous=FULL", 1)
    told = "audited in SQL over all three stores, micro-units"
    yield Figure("ledger.overdraft", overdraft + proof.overdraft, "micros", 0, "lower", told, 3)
    yield Figure("ledger.imbalance", imbalance + proof.imbalance + proof.difference, "micros", 0, "lower", told, 3)


def _pgbench_database(server: postgres.PostgresServer, scale: int) -> str:
    name = server.fresh_database().split("/@/")[-1].split("@/")[-1].split("?")[0]
    options = ["-h", server.folder, "-U", "heroes", "-i", "-q", "-s", str(scale)]
    subprocess.run([server.programs / "pgbench", *options, name], check=True, capture_output=True)
    return name


def _pgbench(server: postgres.PostgresServer, name: str) -> float:
    options = ["-h", server.folder, "-U", "heroes", "-n", "-c", str(CLIENTS), "-j", str(PROCESSES)]
    command = [server.programs / "pgbench", *options, "-T", f"{SECONDS:.0f}", name]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return next(float(line.split()[2]) for line in told.splitlines() if line.startswith("tps"))


def _prepare(database: Database, organisations: int) -> None:
    upgrade(database)
    with database.write() as work:
        for organisation in range(organisations):
            _open(work, f"org{organisation}")
        for number in range(CLIENTS):
            payer = Client(number, organisations).payer
            _budget(work, payer.organisation, "user", payer.user, MUCH // 100)
    if database.dialect == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")


def _open(work: Work, organisation: str) -> None:
    account = Counter(organisation, "0:organisation", "", "0:organisation", "EUR", 0, 0, MUCH, None, None, None)
    work.execute(sa.insert(ledger_account).values(**vars(account)))
    row = {"id": organisation, "organisation": organisation, "amount": MUCH, "currency": "EUR", "at": work.now}
    work.execute(sa.insert(ledger_credit).values(**row, actor="bench", reason="bench"))
    _budget(work, organisation, "organisation", "", MUCH // 2)
    for number in range(8):
        _budget(work, organisation, "project", f"project{number}", MUCH // 4)


def _budget(work: Work, organisation: str, scope: str, subject: str, ceiling: int) -> None:
    window = window_of("year", work.now)
    made = Counter(
        organisation, holder_of(scope, subject), "year", f"{organisation}-{scope}-{subject}", "EUR", 0, 0, ceiling,
        window.starts, window.ends, None,
    )  # fmt: skip
    work.execute(sa.insert(ledger_account).values(**vars(made)))


def _pairs(url: str, organisations: int, prefix: str) -> float:
    """Pairs a second of all clients together."""
    processes = multiprocessing.get_context("fork")
    ready, results = processes.Barrier(PROCESSES), processes.Queue()
    share = CLIENTS // PROCESSES
    begun = [
        processes.Process(target=_clients, args=(url, organisations, prefix, n * share, share, ready, results))
        for n in range(PROCESSES)
    ]
    for each in begun:
        each.start()
    done = [results.get(timeout=120) for _ in begun]
    for each in begun:
        each.join()
    return sum(done) / SECONDS


def _clients(
    url: str, organisations: int, prefix: str, first: int, count: int, ready: Barrier, results: Queue[int]
) -> None:
    database = Database(url, audit_key=b"bench", pool_size=count)
    for connection in [database.engine.connect() for _ in range(count)]:
        connection.close()
    ready.wait(60)
    results.put(_in_threads(database, [Client(first + n, organisations) for n in range(count)], prefix))
    database.close()


def _in_threads(database: Database, clients: list[Client], prefix: str) -> int:
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda each=each: done.append(each.pairs(database, SECONDS, prefix)))
        for each in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) != len(clients):
        raise RuntimeError("a client failed")
    return sum(done)


def _sqlite() -> tuple[float, books.Proof]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"bench")
        _prepare(database, 1)
        done = _in_threads(database, [Client(n, 1) for n in range(8)], "s")
        proof = _proof(database)
        database.close()
    return done / SECONDS, proof


def _proof(database: Database) -> books.Proof:
    with database.read() as work:
        return books.verify(work)
