"""Tables of the ledger and the budgets, and the triggers that keep entries as they were written.

Each organisation that pays has a book of accounts: what it owes (its `ceiling` is its credit), one for each provider
that served it, and the platform's for what exceeded a reservation. An entry moves `amount` from one account of the book
to another (debit, credit), so every book sums to 0 by construction; `verify` proves that the counters agree with it.

Budgets stand beside the accounts in the same table, since both count what is posted and what is pending under a
ceiling. `holder` begins with a digit: rows are locked in the order of (organisation, holder, period), so that whoever
has the first one has the organisation's books.

    0:organisation                                      what the organisation owes, and its credit
    1:user:<name>   2:project:<name>   3:organisation   budgets, `period` says which; counters of the current period
    5:provider:<name>   6:platform:overrun              what is owed to others
"""

from __future__ import annotations

import sqlalchemy as sa

from heroes_budget.postgresql import FUNCTIONS
from heroes_core.store import Instant, JSONText, metadata, name_column

ledger_account = sa.Table(
    "ledger_account",
    metadata,
    name_column("organisation", primary_key=True),
    sa.Column("holder", sa.String(80), primary_key=True),
    sa.Column("period", sa.String(48), primary_key=True, server_default=""),
    sa.Column("id", sa.String(80), nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("posted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pending", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("ceiling", sa.BigInteger),
    sa.Column("starts", Instant),
    sa.Column("ends", Instant),
    #: The attempt that took the budget over 80 % of its ceiling.
    sa.Column("warned_by", sa.String(64)),
    postgresql_with={"fillfactor": 20},  # room on the page for the versions of a row that every reservation changes
)

#: `step` 0: reserve; 1: settle or void, whichever came first; 2: overrun; from 3: corrections.
ledger_entry = sa.Table(
    "ledger_entry",
    metadata,
    name_column("key", primary_key=True),
    sa.Column("step", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(8), nullable=False),
    name_column("organisation"),
    name_column("project"),
    name_column("user"),
    name_column("provider"),
    name_column("cluster"),
    sa.Column("debit", sa.String(80), nullable=False),
    sa.Column("credit", sa.String(80), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("reason", sa.String(500), nullable=False, server_default=""),
    sa.Column("lines", JSONText, nullable=False, server_default="{}"),
    sa.Column("price", JSONText),
    sa.CheckConstraint("amount >= 0", name="amount_positive"),
    sa.Index("ix_ledger_entry_at", "organisation", "at"),
)

ledger_credit = sa.Table(
    "ledger_credit",
    metadata,
    name_column("id", primary_key=True),
    name_column("organisation", index=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("at", Instant, nullable=False),
)

_REFUSE = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
_APPEND_ONLY = ("ledger_entry", "ledger_credit")
#: What `metadata.create_all` runs after the tables, by dialect, in this order.
DDL = {
    "sqlite": tuple(_REFUSE.format(table=table, verb=verb) for table in _APPEND_ONLY for verb in ("UPDATE", "DELETE")),
    "postgresql": (
        *FUNCTIONS,
        *(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION heroes_append_only()"
            for table in _APPEND_ONLY
        ),
    ),
}


def _create_rest(_metadata: sa.MetaData, connection: sa.Connection, tables: list[sa.Table], **_: object) -> None:
    if ledger_entry in tables:
        for statement in DDL[connection.dialect.name]:
            connection.exec_driver_sql(statement)


sa.event.listen(metadata, "after_create", _create_rest)
