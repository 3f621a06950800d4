"""Handing attempts to the scheduler: who is next, and what it answers. One call for many, off-thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from heroes.api.errors import Conflict, HeroesError, Refused, Unavailable
from heroes_jobs import endings, files, store
from heroes_jobs.desk import Desk
from heroes_jobs.events import Chosen, SubmitAccepted, SubmitDeclined, SubmitUnsure
from heroes_jobs.following import Followed, instant
from heroes_jobs.machine import Want, wants
from heroes_jobs.ports import QueueFacts
from heroes_jobs.states import Queued, Running, Stopping, Submitting, Unsure, Waiting
from heroes_spawners.runtime.job import tags
from heroes_spawners.site import Accepted, Answer, Declined, Job, Refusal, Submission, Unknown

#: A centre that takes no more jobs is asked again after so long at the latest.
LIMIT_S = 300.0
#: While one batch is with the scheduler the next is on its way to it.
LANES = (("submit", 1), ("submit", 2))


def submit(desk: Desk) -> bool:
    """Hand over the next attempts, if a lane is free; whether more are ready behind them, and a lane for them too."""
    lane = free_lane(desk)
    if lane is None or desk.facts.closed:
        return False
    ready = _ready(desk)
    chosen = _choose(desk, ready)
    if not chosen:
        return False
    at = desk.now()
    for each in chosen:
        each.submitted_at = each.submitted_at or instant(at)
        desk.take(each, Chosen(at))
    _load_files(desk, chosen)
    batch = [Submission(_job(desk, each), _number(each)) for each in chosen]
    desk.commit("intent", lambda work: store.intend(work, [(one.job.key, one.number) for one in batch]))
    desk.begin("submit", lane, _handing(desk, batch), lambda answer: _answered(desk, chosen, batch, answer))
    return len(ready) > len(chosen) and free_lane(desk) is not None


def free_lane(desk: Desk) -> tuple[str, int] | None:
    """A lane that carries no batch now."""
    return next((lane for lane in LANES if desk.lanes.free(lane)), None)


def _load_files(desk: Desk, chosen: Sequence[Followed]) -> None:
    """The small files that they bring along, kept while they are in use."""
    wanted = {digest for each in chosen for _, digest in each.spec.files}
    missing = wanted - desk.files.keys()
    if missing:
        with desk.database.read() as work:
            desk.files = {digest: desk.files[digest] for digest in wanted & desk.files.keys()}
            desk.files |= files.contents(work, missing)


def _number(each: Followed) -> int:
    assert isinstance(each.state, Submitting)
    return each.state.number


def _ready(desk: Desk) -> list[Followed]:
    at, rules = desk.now(), desk.rules
    return [
        each
        for each in desk.active()
        if isinstance(each.state, Waiting) and each.wanted
        if wants(each.state, at, rules) is Want.SUBMIT
        if each.mounts is not None or not each.spec.inputs
    ]


def _choose(desk: Desk, ready: Sequence[Followed]) -> list[Followed]:
    """The oldest of each organisation in turn, as far as the limits of each queue admit."""
    turns: dict[str, deque[Followed]] = {}
    for each in sorted(ready, key=lambda one: one.key):
        turns.setdefault(each.spec.organisation, deque()).append(each)
    room = _Room(desk)
    chosen: list[Followed] = []
    waiting = deque(turns.values())
    while waiting and len(chosen) < desk.settings.chunk:
        line = waiting.popleft()
        each = line.popleft()
        if room.take(each):
            chosen.append(each)
        if line:
            waiting.append(line)
    return chosen


class _Room:
    """What is left of each queue's limits."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._at = desk, desk.now()
        self._jobs: dict[str, int] = {}
        self._left = dict(desk.admitted)
        self._cores: dict[str, int] = {}
        if any(facts.max_jobs or facts.max_cores for facts in desk.facts.queues.values()):
            for each in desk.following.values():
                if isinstance(each.state, Submitting | Unsure | Queued | Running | Stopping):
                    self._count(each)

    def _count(self, each: Followed) -> None:
        queue = each.spec.queue
        self._jobs[queue] = self._jobs.get(queue, 0) + 1
        self._cores[queue] = self._cores.get(queue, 0) + _cores(each)

    def take(self, each: Followed) -> bool:
        """Whether there is room for it; then it is counted."""
        queue = each.spec.queue
        facts = self._desk.facts.queues.get(queue) or QueueFacts(queue)
        if self._desk.limited.get(queue, 0.0) > self._at or self._left.get(queue, 1) < 1:
            return False
        if facts.max_jobs and self._jobs.get(queue, 0) >= facts.max_jobs:
            return False
        if facts.max_cores and self._cores.get(queue, 0) + _cores(each) > facts.max_cores:
            return False
        if queue in self._left:
            self._left[queue] -= 1
        self._count(each)
        return True


def _cores(each: Followed) -> int:
    return each.spec.shape.tasks * each.spec.shape.cpus_per_task


def _job(desk: Desk, each: Followed) -> Job:
    spec = each.spec
    facts = desk.facts.queues.get(spec.queue) or QueueFacts(spec.queue)
    brought = {name: desk.files[digest] for name, digest in spec.files}
    own = tags(spec.organisation, spec.user, spec.template, spec.instance)
    return Job(
        key=each.key, queue=facts.partition, shape=spec.shape, argv=spec.argv,
        environment={**spec.environment, **own}, inputs=each.mounts or (), files=brought, image=spec.image,
        environments=spec.environments, modules=spec.modules, parallel=spec.parallel,
        options=(*facts.options, *spec.options), max_output_bytes=spec.max_output_bytes,
    )  # fmt: skip


def _handing(desk: Desk, batch: list[Submission]) -> Callable[[], list[Answer]]:
    site, epoch = desk.site, desk.epoch

    def call() -> list[Answer]:
        try:
            return site.submit(batch, epoch)
        except Refused as error:
            if isinstance(error, Conflict):
                raise
            if len(batch) == 1:
                return [Declined(Refusal.PERMANENT, str(error))]
        # one of them can never be handed over: find out which; claims see that none is handed over twice
        answers: list[Answer] = []
        for one in batch:
            try:
                answers += site.submit([one], epoch)
            except Refused as error:
                answers.append(Declined(Refusal.PERMANENT, str(error)))
        return answers

    return call


def _answered(desk: Desk, chosen: list[Followed], batch: list[Submission], answer: list[Answer] | HeroesError) -> None:
    if isinstance(answer, Conflict):
        desk.fail(answer)
    if isinstance(answer, HeroesError):
        if isinstance(answer, Unavailable):
            desk.fail(answer)
        answer = [Unknown(answer.message)] * len(batch)
    for each, one in zip(chosen, answer, strict=True):
        _answered_one(desk, each, one)
    rows = [_row(one, told) for one, told in zip(batch, answer, strict=True)]
    desk.commit("answers", lambda work: store.answered(work, rows))


def _answered_one(desk: Desk, each: Followed, answer: Answer) -> None:
    at = desk.now()
    # a poll may have told more meanwhile: then the answer is old news
    if not isinstance(each.state, Submitting) or each.key not in desk.following:
        return
    if isinstance(answer, Accepted):
        _unlimit(desk, each.spec.queue)
        desk.take(each, SubmitAccepted(at, answer.job_id))
    elif isinstance(answer, Unknown):
        desk.take(each, SubmitUnsure(at, answer.text))
    else:
        image = each.spec.image.path if each.spec.image else ""
        reason = endings.refused(answer.kind, answer.text, each.spec.queue, image)
        if answer.kind is Refusal.LIMIT:
            _limit(desk, each.spec.queue, at)
        desk.take(each, SubmitDeclined(at, answer.kind, reason))


def _limit(desk: Desk, queue: str, at: float) -> None:
    """Leave a queue alone for a while, longer each time; the answers of one batch are one time."""
    desk.admitted[queue] = 1
    if desk.limited.get(queue, 0.0) > at:
        return
    longest = max(LIMIT_S, desk.rules.limit_s)
    pause = min(2 * desk.limit_pauses.get(queue, desk.rules.limit_s / 2), longest)
    desk.limit_pauses[queue] = pause
    desk.limited[queue] = at + pause


def _unlimit(desk: Desk, queue: str) -> None:
    """It took one: it may take more, until there is no sign of a limit left."""
    desk.limit_pauses.pop(queue, None)
    if queue in desk.admitted:
        desk.admitted[queue] += 1
        if desk.admitted[queue] > desk.settings.chunk:
            del desk.admitted[queue]


def _row(one: Submission, answer: Answer) -> dict[str, object]:
    told = {"_key": one.job.key, "_number": one.number, "_job_id": "", "_text": ""}
    if isinstance(answer, Accepted):
        return told | {"_answer": "accepted", "_job_id": answer.job_id}
    if isinstance(answer, Declined):
        return told | {"_answer": f"refused-{answer.kind}"[:16], "_text": answer.text[:2000]}
    return told | {"_answer": "unknown", "_text": answer.text[:2000]}
