"""`growth.decide_ratio`, `growth.list_ratio`: that neither a decision nor a list costs more as history grows.

One run is carried out for real, then its rows are copied: past jobs (attempts, their ledger entries and outcomes) for
the decision, runs for the list. Each measurement opens the database anew, and the small and the large one take turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from heroes.api import decision as decision_api
from heroes.api import workflows as api
from heroes_budget.store import ledger_entry
from heroes_core.migrate import upgrade
from heroes_core.work import Database
from heroes_decision import service as decision
from heroes_decision.store import decision as decision_table
from heroes_decision.store import outcome, ring
from heroes_jobs.store import attempt
from heroes_workflows import service
from heroes_workflows.store import instance
from tests.bench import Figure
from tests.lab import postgres
from tests.unit.workflows.platform import ALICE, Objects, Platform

FEW_JOBS, MANY_JOBS, IN_CLASS = 10_000, 1_000_000, 10_000
FEW_RUNS, MANY_RUNS = 1_000, 100_000
TURNS = 60
TEMPLATE = """
name: sums
title: Sums
summary: Adds numbers.
parameters: {count: {type: integer, default: 4, minimum: 1, maximum: 8, help: How many.}}
steps:
  - name: add
    argv: [echo, "{{count}}"]
    resources: {tasks: count, walltime_s: 600, memory_mib: 100}
    outputs: [{glob: out.txt}]
"""
KINDS = ("sqlite", "postgresql")


def run() -> Iterator[Figure]:
    """The worse of both databases counts; what each gave is told beside it."""
    decided, listed = {}, {}
    for kind in KINDS:
        with ExitStack() as stack:
            few, many = (stack.enter_context(_store(kind)) for _ in range(2))
            _fill(few, FEW_JOBS, FEW_RUNS)
            _fill(many, MANY_JOBS, MANY_RUNS)
            decided[kind] = _ratio(few, many, _decide)
            listed[kind] = max(_ratio(few, many, _first_page), _ratio(few, many, _last_page))
    told = ", ".join(f"{kind} {decided[kind]:.2f}" for kind in KINDS)
    yield Figure("growth.decide_ratio", max(decided.values()), "ratio", 1.2, "lower", f"10^4 past jobs; {told}", TURNS)
    told = ", ".join(f"{kind} {listed[kind]:.2f}" for kind in KINDS)
    yield Figure("growth.list_ratio", max(listed.values()), "ratio", 1.2, "lower", f"10^3 runs; {told}", TURNS)


def _ratio(few: str, many: str, ask: Callable[[Database], None]) -> float:
    """Medians of the processor's and the database's time together, both opened anew, in turns."""
    small, large = Database(few, audit_key=b"bench"), Database(many, audit_key=b"bench")
    for database in (small, large):
        for _ in range(5):
            ask(database)
    pairs = [(_seconds(small, ask), _seconds(large, ask)) for _ in range(TURNS)]
    small.close()
    large.close()
    return statistics.median(large for _, large in pairs) / statistics.median(small for small, _ in pairs)


def _seconds(database: Database, ask: Callable[[Database], None]) -> float:
    began = time.perf_counter()
    ask(database)
    return time.perf_counter() - began


def _decide(database: Database) -> None:
    asked = decision.look_up(database, Objects(), ALICE, decision_api.Decide(template="sums"))  # type: ignore[arg-type]
    with database.write() as work:
        assert decision.decide(work, ALICE, asked).alternatives[0].evidence.level == "class"


def _first_page(database: Database) -> None:
    _page(database, "")


def _last_page(database: Database) -> None:
    _page(database, f"{50:026d}")


def _page(database: Database, after: str) -> None:
    with database.read() as work:
        page = service.listing(work, ALICE, api.ListInstances(after=after, limit=50), user="alice")
    assert len(page.model_dump_json()) > 10_000


@contextmanager
def _store(kind: str) -> Iterator[str]:
    if kind == "postgresql":
        server = postgres.server(durable=True)
        url = server.fresh_database()
        yield url
        server.drop(url)
        return
    with tempfile.TemporaryDirectory(prefix="heroes-bench-") as folder:
        yield f"sqlite:///{Path(folder)}/store.sqlite"


def _fill(url: str, past: int, runs: int) -> None:
    database = Database(url, audit_key=b"bench")
    upgrade(database)
    platform = Platform(database)
    platform.publish(TEMPLATE)
    for _ in range(3):
        platform.submit("sums")
    platform.run()
    with database.write() as work:
        _copy(work.connection, attempt, "key", past)
        _copy(work.connection, outcome, "key", past)
        for step in (0, 1):
            _copy(work.connection, ledger_entry, "key", past, step=step)
        _copy(work.connection, instance, "id", runs)
        _split_classes(work.connection, past)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")
    database.close()


def _copy(connection: sa.Connection, table: sa.Table, key: str, count: int, **equal: Any) -> None:
    """`count` copies of a row of the table, with keys 1, 2, 3 …"""
    numbers = (
        "SELECT g AS i FROM generate_series(1, :count) AS g"
        if connection.dialect.name == "postgresql"
        else "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) SELECT i FROM n"
    )
    padded = "lpad(n.i::text, 26, '0')" if connection.dialect.name == "postgresql" else "printf('%026d', n.i)"
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(padded if column.name == key else f'r."{column.name}"' for column in table.columns)
    where = " AND ".join(["1 = 1", *(f'"{name}" = :{name}' for name in equal)])
    row = f'SELECT * FROM {table.name} WHERE {where} ORDER BY "{key}" LIMIT 1'
    text = f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM ({numbers}) AS n, ({row}) AS r"
    connection.execute(sa.text(text), {"count": count, **equal})


def _split_classes(connection: sa.Connection, past: int) -> None:
    """All but `IN_CLASS` of the past jobs are other people's."""
    for table in (attempt,):
        here = table.c.key.between(f"{IN_CLASS + 1:026d}", f"{past:026d}")
        connection.execute(sa.update(table).where(here).values(user="somebody", instance="another"))
    assert connection.execute(sa.select(sa.func.count()).select_from(ring)).scalar_one() > 0
    connection.execute(sa.delete(decision_table))
