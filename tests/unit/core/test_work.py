"""The unit of work, the audit chain, the outbox and wake-ups, on both databases."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from heroes.api.errors import ChainBroken
from heroes_core import audit
from heroes_core.outbox import News, dispatch
from heroes_core.store import audit_head, audit_record, outbox
from heroes_core.work import Database, Work
from tests.conftest import AUDIT_KEY


def fill(database: Database, count: int = 5) -> None:
    for number in range(count):
        with database.write() as work:
            work.audit("acme", "ada@acme", "run.submit", f"run-{number}", cores=number)


def verified(database: Database, organisation: str = "acme") -> int:
    with database.read() as work:
        return audit.verify(work.connection, AUDIT_KEY, organisation)


def test_a_failed_block_leaves_nothing_behind(database: Database) -> None:
    """Rows, audit records and news of a unit of work that raises are gone."""
    with pytest.raises(ZeroDivisionError), database.write() as work:
        work.audit("acme", "ada@acme", "x", "y")
        work.emit("x", "acme", "y")
        raise ZeroDivisionError
    assert verified(database) == 0
    with database.read() as work:
        assert work.execute(sa.select(outbox)).all() == []


def test_the_chain_is_whole_and_counts_its_records(database: Database) -> None:
    """Records of several transactions, and several in one, make one sequence."""
    fill(database)
    with database.write() as work:
        work.audit("acme", "ada@acme", "a", "1")
        work.audit("other", "bob@other", "a", "1")
        work.audit("acme", "ada@acme", "b", "2")
    assert verified(database) == 7
    assert verified(database, "other") == 1


@pytest.mark.parametrize("column", ["actor", "action", "subject", "detail", "mac"])
def test_an_altered_record_is_named(database: Database, column: str) -> None:
    """Changing any text of the third record breaks the chain at three."""
    fill(database)
    with database.write() as work:
        here = sa.and_(audit_record.c.organisation == "acme", audit_record.c.sequence == 3)
        work.execute(sa.update(audit_record).where(here).values({column: "e" * 64}))
    with pytest.raises(ChainBroken) as broken:
        verified(database)
    assert broken.value.detail["position"] == 3


@pytest.mark.parametrize("gone", [1, 3, 5])
def test_a_dropped_record_is_named(database: Database, gone: int) -> None:
    """Deleting a record breaks the chain where it stood, the last one too."""
    fill(database)
    with database.write() as work:
        work.execute(sa.delete(audit_record).where(audit_record.c.sequence == gone))
    with pytest.raises(ChainBroken) as broken:
        verified(database)
    assert broken.value.detail["position"] == gone


def test_a_dropped_head_is_found(database: Database) -> None:
    """Records without a head are not a chain."""
    fill(database)
    with database.write() as work:
        work.execute(sa.delete(audit_head))
    with pytest.raises(ChainBroken):
        verified(database)


def test_concurrent_writers_make_one_sequence(database: Database) -> None:
    """Eight threads that write at once leave no gap and no duplicate."""
    threads = [threading.Thread(target=fill, args=(database, 5)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verified(database) == 40


def test_news_is_handed_over_once_with_what_its_reader_writes(database: Database) -> None:
    """A subscriber's writes and the end of the row commit together; nothing is handed over twice."""
    with database.write() as work:
        for number in range(3):
            work.emit("job.ended", "acme", f"job-{number}", exit_code=number)
    heard: list[News] = []

    def listen(work: Work, news: News) -> None:
        heard.append(news)
        work.audit(news.organisation, "platform", "heard", news.subject)

    assert dispatch(database, {"job.ended": [listen]}) == 3
    assert dispatch(database, {"job.ended": [listen]}) == 0
    assert [news.detail["exit_code"] for news in heard] == [0, 1, 2]
    assert verified(database) == 3


def test_news_stays_when_its_reader_fails(database: Database) -> None:
    """A subscriber that raises leaves the row for the next try."""
    with database.write() as work:
        work.emit("job.ended", "acme", "job")

    def fail(work: Work, news: News) -> None:
        raise RuntimeError(news.subject)

    with pytest.raises(RuntimeError):
        dispatch(database, {"job.ended": [fail]})
    assert dispatch(database, {}) == 1


def test_a_commit_with_news_wakes_who_waits(database: Database) -> None:
    """A commit between two looks is never missed, whoever made it."""
    while database.wait(0.3):
        pass  # a wake-up too many is allowed: it is a hint
    with database.write() as work:
        work.emit("job.ended", "acme", "job")
    assert database.wait(60)


def test_after_commit_runs_only_after_a_commit(database: Database) -> None:
    """What is put off until the commit is dropped when there is none."""
    done: list[str] = []
    with pytest.raises(ZeroDivisionError), database.write() as work:
        work.after_commit(lambda: done.append("failed"))
        raise ZeroDivisionError
    with database.write() as work:
        work.after_commit(lambda: done.append("well"))
    assert done == ["well"]


def test_what_is_gathered_is_written_once(database: Database) -> None:
    """Items gathered for the same function reach it together, inside the transaction, just before it commits."""
    told: list[list[int]] = []

    def write(work: Work, items: list[int]) -> None:
        told.append(list(items))
        work.audit("acme", "test", "gathered", str(sum(items)))

    with database.write() as work:
        for number in (1, 2, 3):
            work.gather(write, number)
        assert told == []
    assert told == [[1, 2, 3]]
    with database.read() as work:
        assert work.execute(sa.select(audit_record.c.subject)).scalars().all() == ["6"]


def test_nothing_is_gathered_of_a_failure(database: Database) -> None:
    """A transaction that fails writes nothing of what was gathered."""
    told: list[list[int]] = []
    with pytest.raises(RuntimeError), database.write() as work:
        work.gather(lambda _work, items: told.append(items), 1)
        raise RuntimeError("something else")
    assert told == []
