"""Runs of workflows: `run.wait()`, `run.log("solve", follow=True)`, `run.results`, what it cost and emitted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from heroes.api import jobs as jobs_api
from heroes.api import workflows as api
from heroes.api.errors import InvalidSpec, NotFound, Unavailable
from heroes.api.registry import parse
from heroes.api.telemetry import Energy
from heroes.api.units import MICRO, Grams, Joules, Money, Quantity, Seconds
from heroes.progress import bar
from heroes.views import Rows, Sheet, Viewable

if TYPE_CHECKING:
    from heroes.connection import Heroes

ENDED = frozenset({"done", "failed", "cancelled"})
#: Seconds that one question waits for news, and between two looks at a log that grows.
WAIT = 20.0
LOOK = 1.0
#: How figures of a report are shown, by their unit.
_KINDS: dict[str, type[Quantity]] = {"s": Seconds, "J": Joules, "gCO2e": Grams}


class Runs(Viewable):
    """One's runs, newest first."""

    kind = "runs"

    def __init__(self, platform: Heroes) -> None:
        self._platform = platform

    def __getitem__(self, run_id: str) -> Run:
        """The run of that id; NotFound when there is none that one may see."""
        run = Run(self._platform, run_id)
        try:
            run.refresh()
        except InvalidSpec:
            raise NotFound(f"There is no run {run_id!r}.", hint="`heroes run list` shows your runs.") from None
        return run

    def __iter__(self) -> Iterator[Run]:
        return self.list()

    def list(self, **which: str) -> Iterator[Run]:
        """Runs by `state`, `template` (a workflow), `project`, `label` (`name=value`)."""
        request = parse(api.ListInstances, {**which, "limit": 100})
        for instance in self._platform.client.pages(api.LIST, request):
            yield Run(self._platform, instance.id, instance)

    def sheet(self) -> Sheet:
        """The newest runs."""
        page: api.Instances = self._platform.client.call(api.LIST, api.ListInstances(limit=20))
        rows = tuple(_row(instance) for instance in page.items)
        notes = ("There are more: go through hs.runs.",) if page.next else ()
        return Sheet("runs", ("run", "workflow", "state", "jobs", "place", "cost", "submitted"), rows, notes)


def _row(instance: api.Instance) -> tuple[str, ...]:
    done = f"{instance.jobs_done}/{instance.jobs}"
    at = instance.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return (instance.id, instance.template, instance.state, done, instance.place, str(instance.cost), at)


class Run(Viewable):
    """One run. What is read of it is read afresh until it has ended."""

    kind = "run"

    def __init__(self, platform: Heroes, run_id: str, instance: api.Instance | None = None) -> None:
        self._platform, self._client = platform, platform.client
        self.id = run_id
        self._instance = instance

    def refresh(self) -> api.Instance:
        """How the run stands now."""
        detail: api.InstanceDetail = self._client.call(api.GET, self._asked())
        self._instance = detail.instance
        return detail.instance

    @property
    def instance(self) -> api.Instance:
        """The run as the API tells of it."""
        if self._instance is None or self._instance.state not in ENDED:
            return self.refresh()
        return self._instance

    @property
    def seen(self) -> api.Instance:
        """The run as it was when it was last read."""
        return self._instance or self.refresh()

    @property
    def state(self) -> str:
        """waiting, running, done, failed or cancelled."""
        return self.instance.state

    @property
    def reason(self) -> str:
        """Why it failed, or what it waits for."""
        return self.instance.reason

    @property
    def cost(self) -> Money:
        """What has been charged so far."""
        return self.refresh().cost

    @property
    def energy(self) -> Energy | None:
        """Energy with the method and uncertainty behind it; None while nothing is known."""
        return self.refresh().energy

    @property
    def carbon(self) -> Grams | None:
        """CO2-equivalent of the energy; None while nothing is known."""
        return self.refresh().carbon

    @property
    def jobs(self) -> Rows:
        """The jobs of the run."""
        found = self._client.pages(api.JOBS, api.ListJobs(workflow_instance_id=self.id, limit=500))
        return Rows(found, f"jobs of {self.id}", **_JOB_COLUMNS)

    @property
    def results(self) -> Results:
        """The files that the run left in one's bucket."""
        return Results(self._platform, self.id)

    def report(self) -> Report:
        """Cost, energy, carbon, and how good the predictions were."""
        return Report(self._client.call(api.REPORT, self._asked()))

    def cancel(self) -> Run:
        """Cancel it. What has not begun costs nothing; Conflict when it has ended."""
        self._instance = self._client.call(api.CANCEL, self._asked())
        return self

    def again(self, *, policy: str = "") -> Run:
        """Submit the same once more, by another policy if one is named."""
        made: api.Instance = self._client.call(api.AGAIN, api.Again(workflow_instance_id=self.id, policy=policy))
        return Run(self._platform, made.id, made)

    def events(self, *, after: int = 0, follow: bool = False) -> Iterator[api.Event]:
        """What happened after event number `after`; with `follow`, until the run has ended."""
        while True:
            wait = WAIT if follow else 0
            request = api.AskEvents(workflow_instance_id=self.id, after=after, wait=wait)
            page: api.Events = self._client.call(api.EVENTS, request)
            yield from page.items
            full = len(page.items) >= request.limit
            if not full and (page.ended or not (follow or page.items)):
                return
            after = page.next

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, showing progress; Unavailable when that takes more than `timeout` seconds.

        The run itself is the answer, whether it went well or not: see `state` and `reason`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        instance, seen = self.refresh(), 0
        with bar() as progress:
            task = progress.add_task(_told(instance), total=instance.jobs, completed=instance.jobs_done)
            while instance.state not in ENDED:
                left = WAIT if deadline is None else min(WAIT, deadline - time.monotonic())
                if left <= 0:
                    raise Unavailable(
                        f"Run {self.id} is still {instance.state} after {timeout:g} s.", hint="It goes on; wait again."
                    )
                seen = self._next_event(seen, left)
                instance = self.refresh()
                ended = instance.jobs_done + instance.jobs_failed
                progress.update(task, description=_told(instance), total=instance.jobs, completed=ended)
        return self

    def _next_event(self, after: int, wait: float) -> int:
        request = api.AskEvents(workflow_instance_id=self.id, after=after, wait=round(wait, 3), limit=1000)
        page: api.Events = self._client.call(api.EVENTS, request)
        return page.next

    def log(self, step: str, *, index: int = 0, stream: str = "stdout", follow: bool = False) -> str | None:
        """The log of a step, of one job of it where it has several; with `follow` it is printed while it grows."""
        if not follow:
            return "".join(self.log_parts(step, index=index, stream=stream))
        for text in self.log_parts(step, index=index, stream=stream, follow=True):
            sys.stdout.write(text)
            sys.stdout.flush()
        return None

    def log_parts(self, step: str, *, index: int = 0, stream: str = "stdout", follow: bool = False) -> Iterator[str]:
        """The log in parts; with `follow`, until the step has ended."""
        offset = 0
        while True:
            fields = {"instance": self.id, "step": step, "index": index, "stream": stream, "offset": offset}
            request = parse(jobs_api.ReadLog, fields)
            part = self._log_part(request, follow)
            if part is not None and part.text:
                yield part.text
            if part is not None and not part.text and (part.ended or not follow):
                return
            if part is None and self.state in ENDED:
                return
            if part is None or not part.text:
                time.sleep(LOOK)
            offset = part.next_offset if part else offset

    def _log_part(self, request: jobs_api.ReadLog, follow: bool) -> jobs_api.LogPart | None:
        """None while there is nothing yet to follow: the step has not begun, or its cluster does not answer."""
        try:
            part: jobs_api.LogPart = self._client.call(jobs_api.LOG, request)
        except (NotFound, Unavailable):
            if not follow or request.step not in self.steps:
                raise
            return None
        return part

    @property
    def steps(self) -> list[str]:
        """The names of its steps."""
        detail: api.InstanceDetail = self._client.call(api.GET, self._asked())
        return [step.name for step in detail.steps]

    def _asked(self) -> api.GetInstance:
        asked: api.GetInstance = parse(api.GetInstance, {"workflow_instance_id": self.id})
        return asked

    def sheet(self) -> Sheet:
        """The run and its steps."""
        detail: api.InstanceDetail = self._client.call(api.GET, self._asked())
        rows = tuple((s.name, s.state, f"{s.done}/{s.jobs}", str(s.failed or "")) for s in detail.steps)
        return Sheet(_told(detail.instance), ("step", "state", "done", "failed"), rows, _figures(detail.instance))


def _told(instance: api.Instance) -> str:
    text = f"{instance.template} {instance.id}: {instance.state}"
    return f"{text} ({instance.reason})" if instance.reason else text


def _figures(instance: api.Instance) -> tuple[str, ...]:
    energy = (f"energy {instance.energy}",) if instance.energy else ()
    carbon = (f"carbon {instance.carbon}",) if instance.carbon else ()
    return (f"at {instance.place}, by policy {instance.policy}", f"cost {instance.cost}", *energy, *carbon)


_JOB_COLUMNS: dict[str, Any] = {
    "step": lambda job: job.step,
    "index": lambda job: str(job.index),
    "state": lambda job: job.phase or job.state,
    "place": lambda job: f"{job.cluster}/{job.queue}",
    "elapsed": lambda job: str(job.elapsed or ""),
    "cost": lambda job: str(job.cost or ""),
    "reason": lambda job: job.reason,
}


class Results(Rows):
    """The files that a run left: `results["cavity.png"]` is one by its name, `download()` fetches all."""

    kind = "results"

    def __init__(self, platform: Heroes, run_id: str) -> None:
        request = api.ListResults(workflow_instance_id=run_id, limit=500)
        page: api.Results = platform.client.call(api.RESULTS, request)
        self.bucket, self.prefix = page.bucket, page.prefix
        rest = platform.client.pages(api.RESULTS, request.model_copy(update={"after": page.next})) if page.next else ()
        columns = {"step": lambda r: r.step, "file": lambda r: f"{r.bucket}/{r.key}"}
        super().__init__((*page.items, *rest), f"results of {run_id}", **columns)
        self._platform = platform

    def path(self, name: str) -> str:
        """`bucket/key` of the file whose key ends in that name; NotFound when none or several do."""
        parts = PurePosixPath(name).parts
        found = [f"{each.bucket}/{each.key}" for each in self if PurePosixPath(each.key).parts[-len(parts) :] == parts]
        if len(found) != 1:
            told = "none" if not found else f"{len(found)} of them, such as {found[0]}"
            raise NotFound(
                f"Of the results, {told} is called {name!r}.", hint="Name it with its folder, as it is listed."
            )
        return found[0]

    def read(self, name: str) -> bytes:
        """The bytes of one result."""
        return self._platform.data.read(self.path(name))

    def download(self, to: str | Path = ".") -> Path:
        """Download all results below the folder `to`; the folder."""
        return self._platform.data.download(f"{self.bucket}/{self.prefix.rstrip('/')}/", to)


class Report(Viewable):
    """What a run cost, took and emitted, and predicted against actual."""

    kind = "report"

    def __init__(self, told: api.Report) -> None:
        self.told = told

    @property
    def comparisons(self) -> tuple[api.Comparison, ...]:
        """Predicted against actual, figure by figure."""
        return self.told.comparisons

    def sheet(self) -> Sheet:
        """Predicted against actual, with the figures of the whole run below."""
        rows = tuple(_compared(each) for each in self.told.comparisons)
        columns = ("step", "place", "figure", "predicted", "interval", "actual", "inside")
        elapsed = (f"elapsed {self.told.elapsed}",) if self.told.elapsed else ()
        notes = (*_figures(self.told.instance), f"returned {self.told.returned}", *elapsed)
        figures = frozenset({"predicted", "actual"})
        return Sheet(_told(self.told.instance), columns, rows, notes, figures=figures)


def _compared(each: api.Comparison) -> tuple[str, ...]:
    step = f"{each.step}[{each.index}]" if each.index else each.step
    low, predicted, high, actual = (
        _figure(value, each) for value in (each.low, each.predicted, each.high, each.actual)
    )
    return (step, each.place, each.figure, predicted, f"{low} to {high}", actual, "yes" if each.inside else "no")


def _figure(value: float, of: api.Comparison) -> str:
    if of.figure == "cost":
        return str(Money(micros=round(value * MICRO), currency=of.unit))
    kind = _KINDS.get(of.unit)
    return str(kind(value)) if kind else f"{value:.3g} {of.unit}"
