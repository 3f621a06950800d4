"""The scheduler's work, one turn at a time: notice what ended, end what must end, start what may start.

Jobs are children of the daemon but do not die with it. A daemon that starts finds them again by process number and
start time; how such a job ended is then read from its record, since only a parent is told.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from heroes_spawners.machine.book import Book
from heroes_spawners.machine.model import Batch, Machine, final_state, plan, verdict
from heroes_spawners.machine.processes import Table, end, find_script, start, started_at
from heroes_spawners.site import State

#: A job that the daemon found dead without a record: what a shell says of a process killed by SIGKILL.
_KILLED = 137


class Scheduler:
    """Runs the jobs of a book. `now` gives seconds since 1970."""

    def __init__(self, machine: Machine, book: Book, now: Callable[[], float]) -> None:
        self._machine, self._book, self._now = machine, book, now
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._families: dict[int, dict[int, int]] = {}
        self._allotted: dict[int, set[int]] = {}
        #: No job is started any more; the daemon goes when the last has ended.
        self.draining = False

    def recover(self) -> None:
        """Find the jobs again that an earlier daemon left; what a reboot ended is a failure of the node."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        rebooted = self._book.remember("boot", boot) not in ("", boot)
        for job in self._running():
            if rebooted:
                self._close(job, State.NODE_FAIL, 0, self._now())
            elif job.pid is None:
                self._adopt(job)

    def _adopt(self, job: Batch) -> None:
        """The last daemon died while it started this job: either it runs, or it ran, or it never began."""
        pid = find_script(self._machine.folder, job.key)
        if pid is not None:
            self._book.change(job.job_id, pid=pid, pid_started=started_at(pid))
        elif not (self._machine.folder / "run" / job.key).exists():
            self._book.change(job.job_id, state=State.PENDING, started_at=None)

    def turn(self) -> bool:
        """Do what is due; True while anything runs or may start."""
        table = Table.read() if self._running() else Table()
        for job in self._running():
            self._look_at(job, table)
        if not self.draining:
            self._start_due()
        return bool(self._running())

    # -- what runs -------------------------------------------------------------------------------------------------

    def _running(self) -> list[Batch]:
        return [job for job in self._book.live() if job.state is State.RUNNING]

    def _look_at(self, job: Batch, table: Table) -> None:
        ended = self._ended(job, table)
        if ended is not None:
            self._finish(job, ended, table)
            return
        family = self._note_family(job, table)
        rss = table.rss_mib(family)
        if rss > job.max_rss_mib:
            self._book.change(job.job_id, max_rss_mib=rss)
        if job.doom is None:
            doom = verdict(self._machine, job, rss, self._now())
            if doom is not None:
                self._doom(job, doom)
        elif job.doomed_at is not None and self._now() - job.doomed_at > self._machine.kill_wait_s:
            end(family, signal.SIGKILL)

    def _note_family(self, job: Batch, table: Table) -> dict[int, int]:
        """Every process that ever was the job's and still is there: one whose parent died is remembered."""
        known = self._families.setdefault(job.job_id, {})
        known.update({pid: table.processes[pid].started for pid in table.family(job.pid or 0)})
        for pid in [pid for pid, started in known.items() if not table.alive(pid, started)]:
            del known[pid]
        for pid in list(known):
            known.update({each: table.processes[each].started for each in table.family(pid)})
        return known

    def _doom(self, job: Batch, doom: State) -> None:
        self._book.change(job.job_id, doom=doom, doomed_at=self._now())
        gentle = signal.SIGKILL if doom is State.OUT_OF_MEMORY else signal.SIGTERM
        end(self._families.get(job.job_id, {}), gentle)

    def _ended(self, job: Batch, table: Table) -> tuple[int, float] | None:
        """Exit code and moment of the end; None while it runs."""
        child = self._children.get(job.job_id)
        if child is not None:
            code = child.poll()
            return None if code is None else (code if code >= 0 else 128 - code, self._now())
        if table.alive(job.pid, job.pid_started):
            return None
        record = self._machine.folder / "records" / job.key
        with suppress(OSError, ValueError, IndexError):
            words = record.read_text().split("\n", 1)[0].split()
            if words[0] == str(job.job_id):
                return int(words[1]), min(record.stat().st_mtime, self._now())
        return _KILLED, self._now()

    def _finish(self, job: Batch, ended: tuple[int, float], table: Table) -> None:
        end(self._note_family(job, table), signal.SIGKILL)
        self._families.pop(job.job_id, None)
        self._allotted.pop(job.job_id, None)
        self._children.pop(job.job_id, None)
        self._close(job, final_state(job, ended[0]), ended[0], ended[1])

    def _close(self, job: Batch, state: State, exit_code: int, moment: float) -> None:
        ended_at = max(moment, job.started_at or moment)
        self._book.change(job.job_id, state=state, exit_code=exit_code, ended_at=ended_at)

    # -- what starts -----------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        live = self._book.live()
        running = [job for job in live if job.state is State.RUNNING]
        pending = {job.job_id: job for job in live if job.state is State.PENDING}
        for job_id, reason in plan(self._machine, running, list(pending.values())).items():
            if not reason:
                self._start(pending[job_id])

    def _start(self, job: Batch) -> None:
        """Write down first that it starts: a daemon that dies here finds it again by its command line."""
        self._book.change(job.job_id, state=State.RUNNING, started_at=self._now())
        try:
            script = Path((self._machine.folder / "jobs" / job.key / "script").read_text())
            child = start(script, self._machine.folder, job.key, job.job_id, self._allot(job))
        except (OSError, subprocess.SubprocessError):
            self._close(replace(job, started_at=self._now()), State.NODE_FAIL, 0, self._now())
            return
        self._children[job.job_id] = child
        self._book.change(job.job_id, pid=child.pid, pid_started=started_at(child.pid))

    def _allot(self, job: Batch) -> set[int]:
        """CPUs for the job's own; none are named when the queues offer more than the machine has."""
        here = os.sched_getaffinity(0)
        if self._machine.cpus > len(here):
            return set()
        taken = set().union(*self._allotted.values()) if self._allotted else set()
        mine = set(sorted(here - taken)[: job.cpus])
        self._allotted[job.job_id] = mine if len(mine) == job.cpus else set()
        return self._allotted[job.job_id]

    # -- what is asked ---------------------------------------------------------------------------------------------

    def cancel(self, keys: list[str]) -> None:
        """End the jobs of these keys; those that have ended are left as they are."""
        for job in self._book.live():
            if job.key in keys and job.state is State.PENDING:
                self._close(job, State.CANCELLED, 0, self._now())
            elif job.key in keys and job.doom is None:
                self._note_family(job, Table.read())
                self._doom(job, State.CANCELLED)

    def reasons(self) -> dict[int, str]:
        """Why each pending job waits."""
        live = self._book.live()
        running = [job for job in live if job.state is State.RUNNING]
        found = plan(self._machine, running, [job for job in live if job.state is State.PENDING])
        return {job_id: reason or ("ReqNodeNotAvail" if self.draining else "None") for job_id, reason in found.items()}

    def load(self) -> dict[str, Any]:
        """Free and total CPUs of each queue."""
        running = self._running()
        free = self._machine.cpus - sum(job.cpus for job in running)
        found = {}
        for queue in self._machine.queues:
            used = sum(job.cpus for job in running if job.queue == queue.name)
            total = min(queue.cpus, self._machine.cpus)
            found[queue.name] = (max(0, min(total - used, free)), total)
        return found
