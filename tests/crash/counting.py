"""Counting what really happened, from the cluster's own side, and auditing the money against it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from heroes_budget import books
from heroes_budget.store import ledger_account, ledger_entry
from heroes_core import audit
from tests.crash.campaign import MICROS_PER_CORE_SECOND, Campaign
from tests.crash.engine import AUDIT_KEY, objects_of


def executions(here: Campaign) -> Counter[str]:
    """Key -> how often its program was begun, as the jobs themselves said on stdout."""
    counted: Counter[str] = Counter()
    for stdout in Path(here.plan.base, "jobs").glob("*/stdout"):
        lines = stdout.read_text(errors="replace").splitlines()
        counted[stdout.parent.name] = sum(line.startswith("executed ") for line in lines)
    return counted


def delivered(here: Campaign) -> dict[int, bytes]:
    """Index -> content of the result in the user's bucket."""
    objects = objects_of(here.plan)
    try:
        page = objects.listing("acme", "ann", "runs/01RUN/work/", limit=10_000)
        names = [each.key for each in page.objects if each.key.endswith("/result.txt")]
        return {int(name.split("/")[3]): b"".join(objects.get("acme", "ann", name)) for name in names}
    finally:
        objects.close()


def accounted(here: Campaign, row: Any) -> int:
    """What an attempt has to cost, in micro-units, by SLURM's accounting of the job that executed it. An id may have
    been given twice (after a crash of the controller), so the name counts too."""
    columns = "JobName,ElapsedRaw,AllocCPUS"
    words = ("sacct", "-XnP", "--duplicates", "-S", "now-1day", "-j", row.job_id, "-o", columns)
    found = [line.split("|") for line in here.cluster.run(*words).stdout.split()]
    used = [max(int(elapsed), 1) * int(cpus) for name, elapsed, cpus in found if name == row.key]
    assert used, f"{row.key} was charged, but SLURM knows no job {row.job_id} of that name: {found}"
    return max(used) * MICROS_PER_CORE_SECOND


def check_money(here: Campaign) -> None:
    """The ledger is exact: every attempt reserved once and closed once, charged what accounting says and nothing else;
    nothing is pending; everything sums to 0; the audit chain is whole."""
    rows = here.rows()
    with here.database.read() as work:
        proof = books.verify(work)
        assert proof.sound, proof
        pending = work.execute(sa.select(sa.func.sum(ledger_account.c.pending))).scalar_one()
        assert pending == 0
        entries = work.execute(sa.select(ledger_entry)).all()
        assert audit.verify(work.connection, AUDIT_KEY, "acme") > 0
    steps = Counter((entry.key, entry.step) for entry in entries)
    assert steps == {(row.reservation_key, step): 1 for row in rows.values() for step in (0, 1)}
    closing = {entry.key: entry for entry in entries if entry.step == 1}
    for row in rows.values():
        entry = closing[row.reservation_key]
        if entry.kind == "void":
            assert row.cost == 0, row.key
        elif row.final_at is not None:  # the controller forgot it: settled for what was seen of it
            assert entry.amount == row.cost > 0, row.key
        else:
            assert entry.amount == row.cost == accounted(here, row), row.key
