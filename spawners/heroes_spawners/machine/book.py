"""The scheduler's state on disk: jobs, the uids of people, in one SQLite file. One process writes it: the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from heroes_spawners.machine.model import Batch, Request
from heroes_spawners.site import State

_TABLES = """
CREATE TABLE IF NOT EXISTS job (
    job_id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, number INTEGER NOT NULL, queue TEXT NOT NULL,
    cpus INTEGER NOT NULL, memory_mib INTEGER NOT NULL, walltime_s INTEGER NOT NULL, state TEXT NOT NULL,
    submitted_at REAL NOT NULL, started_at REAL, ended_at REAL, exit_code INTEGER NOT NULL DEFAULT 0,
    pid INTEGER, pid_started INTEGER, max_rss_mib REAL NOT NULL DEFAULT 0, doom TEXT, doomed_at REAL,
    UNIQUE (key, number)
);
CREATE INDEX IF NOT EXISTS job_live ON job (state) WHERE state IN ('pending', 'running');
CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, uid INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = [column.name for column in fields(Batch)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM job"  # noqa: S608 -- our own column names


class Book:
    """Every job that the scheduler ever took."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_TABLES}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, request: Request, now: float) -> int:
        """Take a request; its job id, the same one when it was taken before."""
        known = self._connection.execute(
            "SELECT job_id FROM job WHERE key = ? AND number = ?", (request.key, request.number)
        ).fetchone()
        if known:
            return int(known[0])
        values = (request.key, request.number, request.queue, request.cpus, request.memory_mib, request.walltime_s)
        added = self._connection.execute(
            "INSERT INTO job (key, number, queue, cpus, memory_mib, walltime_s, state, submitted_at)"
            " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?)",
            (*values, now),
        )
        return int(added.lastrowid or 0)

    def find(self, key: str, number: int) -> Batch | None:
        """The job of one submission."""
        found = self._read("WHERE key = ? AND number = ?", (key, number))
        return found[0] if found else None

    def live(self) -> list[Batch]:
        """Jobs that are pending or running, oldest first."""
        return self._read("WHERE state IN ('pending', 'running') ORDER BY job_id")

    def of(self, keys: Sequence[str]) -> list[Batch]:
        """Every job of these keys, oldest first."""
        found: list[Batch] = []
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            found += self._read(f"WHERE key IN ({', '.join('?' * len(some))}) ORDER BY job_id", some)
        return found

    def change(self, job_id: int, **values: Any) -> None:
        """Set columns of one job."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE job SET {names} WHERE job_id = ?", (*values.values(), job_id))  # noqa: S608

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the ended jobs of these keys."""
        gone = [(key,) for key in keys]
        self._connection.executemany("DELETE FROM job WHERE key = ? AND state NOT IN ('pending', 'running')", gone)

    def uid(self, name: str, first: int) -> int:
        """The uid of a person: `first` + n, given once, never to another."""
        known = self._connection.execute("SELECT uid FROM person WHERE name = ?", (name,)).fetchone()
        if known:
            return int(known[0])
        uid = self._connection.execute("SELECT coalesce(max(uid) + 1, ?) FROM person", (first,)).fetchone()[0]
        self._connection.execute("INSERT INTO person (name, uid) VALUES (?, ?)", (name, uid))
        return int(uid)

    def remember(self, name: str, value: str) -> str:
        """Store a fact; what it was before ("" for nothing)."""
        old = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        self._connection.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))
        return str(old[0]) if old else ""

    def _read(self, where: str, values: Sequence[Any] = ()) -> list[Batch]:
        rows = self._connection.execute(f"{_SELECT} {where}", tuple(values)).fetchall()
        return [_batch(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _batch(row: dict[str, Any]) -> Batch:
    doom = State(row["doom"]) if row["doom"] else None
    return Batch(**{**row, "state": State(row["state"]), "doom": doom})
