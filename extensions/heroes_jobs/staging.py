"""Data on its way: inputs to the cluster, outputs to the bucket. Both off-thread, one call for each user's attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from heroes.api.errors import Conflict, HeroesError, LinkDown, Refused, SchedulerDown, Unavailable
from heroes_data.model import ObjectRef, SealedFolder, StagedPath
from heroes_jobs.desk import Desk
from heroes_jobs.events import Delivered, DeliveryFailed, Staged, StageFailed
from heroes_jobs.following import Followed
from heroes_jobs.machine import Want, wants
from heroes_jobs.model import InputRef
from heroes_jobs.outputs import Judged, judge
from heroes_jobs.states import StagingIn, Waiting
from heroes_spawners.site import Listing, Mount, Site

#: Attempts whose data travel in one call.
TOGETHER = 200


# ------------------------------------------------------------------------------------------------------------ inputs


@dataclass(frozen=True)
class Brought:
    """Where the inputs of attempts stand, and what was moved for them."""

    mounts: dict[str, tuple[Mount, ...]]
    moved: int
    faults: dict[str, HeroesError]


def stage_in(desk: Desk) -> None:
    """Begin to fetch the inputs of whoever waits for them."""
    for lane, group in _by_user(_lacks_inputs(desk)).items():
        key = ("in", *lane)
        if desk.lanes.free(key):
            desk.begin("stage_in", key, _bringing(desk, lane, group), partial(_brought, desk, group))


def _lacks_inputs(desk: Desk) -> list[Followed]:
    at, rules = desk.now(), desk.rules
    return [
        each
        for each in desk.active()
        if each.spec.inputs and each.mounts is None and each.wanted
        if wants(each.state, at, rules) is Want.STAGE_IN or isinstance(each.state, Waiting)
    ]


def _by_user(attempts: Sequence[Followed]) -> dict[tuple[str, str], list[Followed]]:
    groups: dict[tuple[str, str], list[Followed]] = {}
    for each in attempts:
        group = groups.setdefault(each.lane, [])
        if len(group) < TOGETHER:
            group.append(each)
    return groups


def _bringing(desk: Desk, lane: tuple[str, str], group: list[Followed]) -> Callable[[], Brought]:
    site, mover, cluster, (organisation, user) = desk.site, desk.mover, desk.cluster, lane
    epoch = desk.epoch
    wanted = {each.key: each.spec.inputs for each in group}

    def bring(asked: dict[str, tuple[InputRef, ...]]) -> Brought:
        objects = {ObjectRef(i.bucket, i.key, i.etag, i.size) for inputs in asked.values() for i in inputs}
        ordered = sorted(objects, key=lambda ref: (ref.bucket, ref.key))
        moved = mover.stage_in(site, cluster, organisation, user, ordered, epoch=epoch)
        return Brought({key: _mounts(inputs, moved.staged) for key, inputs in asked.items()}, moved.bytes, {})

    def call() -> Brought:
        try:
            return bring(wanted)
        except Refused as error:
            if isinstance(error, Conflict) or len(wanted) == 1:
                return Brought({}, 0, dict.fromkeys(wanted, error))
        return _one_by_one(wanted, bring)

    return call


def _one_by_one(
    wanted: dict[str, tuple[InputRef, ...]], bring: Callable[[dict[str, tuple[InputRef, ...]]], Brought]
) -> Brought:
    """One of them asks for what cannot be had: find out which."""
    mounts: dict[str, tuple[Mount, ...]] = {}
    faults: dict[str, HeroesError] = {}
    moved = 0
    for key, inputs in wanted.items():
        try:
            one = bring({key: inputs})
        except Refused as error:
            faults[key] = error
            continue
        mounts |= one.mounts
        moved += one.moved
    return Brought(mounts, moved, faults)


def _mounts(inputs: tuple[InputRef, ...], staged: Sequence[StagedPath]) -> tuple[Mount, ...]:
    paths = {(each.ref.bucket, each.ref.key): each.path for each in staged}
    return tuple(Mount(each.name, paths[each.bucket, each.key]) for each in inputs)


def _brought(desk: Desk, group: list[Followed], answer: Brought | HeroesError) -> None:
    at = desk.now()
    if isinstance(answer, HeroesError):
        _put_off(desk, answer)
        for each in _still(desk, group):
            _stage_failed(desk, each, at, answer)
    else:
        share = answer.moved // max(len(answer.mounts), 1)
        for each in _still(desk, group):
            _brought_one(desk, each, at, answer, share)
    desk.commit("staged")


def _brought_one(desk: Desk, each: Followed, at: float, answer: Brought, share: int) -> None:
    if each.key in answer.faults:
        _stage_failed(desk, each, at, answer.faults[each.key])
        return
    each.mounts = answer.mounts[each.key]
    each.moved_bytes += share
    if isinstance(each.state, StagingIn):
        desk.take(each, Staged(at))


def _stage_failed(desk: Desk, each: Followed, at: float, error: HeroesError) -> None:
    if isinstance(each.state, StagingIn):
        desk.take(each, StageFailed(at, f"Its inputs cannot be fetched: {error}", final=isinstance(error, Refused)))


def _still(desk: Desk, group: list[Followed]) -> list[Followed]:
    """Those that were not ended meanwhile, by a cancellation or an operator."""
    return [each for each in group if desk.following.get(each.key) is each and not each.halted]


def _put_off(desk: Desk, error: HeroesError) -> None:
    if isinstance(error, LinkDown | SchedulerDown):
        desk.fail(error)


# ----------------------------------------------------------------------------------------------------------- outputs


@dataclass(frozen=True)
class Sent:
    """What each attempt left, as judged; or why it could not be delivered."""

    judged: dict[str, Judged]
    faults: dict[str, HeroesError]


def deliver(desk: Desk) -> None:
    """Begin to seal and deliver what ended attempts left."""
    at, rules = desk.now(), desk.rules
    ready = [each for each in desk.active() if wants(each.state, at, rules) is Want.DELIVER]
    for lane, group in _by_user(ready).items():
        key = ("out", *lane)
        if desk.lanes.free(key):
            desk.begin("deliver", key, _sending(desk, lane, group), partial(_sent, desk, group))


def _sending(desk: Desk, lane: tuple[str, str], group: list[Followed]) -> Callable[[], Sent]:
    site, epoch, mover, cluster = desk.site, desk.epoch, desk.mover, desk.cluster

    def send(some: list[Followed]) -> dict[str, Judged]:
        judged = _sealed(site, epoch, some)
        folders = [_folder(each, judged[each.key]) for each in some if each.spec.output_bucket]
        mover.stage_out(site, cluster, *lane, [folder for folder in folders if folder.files])
        return judged

    def call() -> Sent:
        try:
            return Sent(send(group), {})
        except Refused as error:
            if isinstance(error, Conflict):
                raise
            if len(group) == 1:
                return Sent({}, {group[0].key: error})
        return _send_one_by_one(group, send)

    return call


def _send_one_by_one(group: list[Followed], send: Callable[[list[Followed]], dict[str, Judged]]) -> Sent:
    judged: dict[str, Judged] = {}
    faults: dict[str, HeroesError] = {}
    for each in group:
        try:
            judged |= send([each])
        except Refused as error:
            faults[each.key] = error
    return Sent(judged, faults)


def _sealed(site: Site, epoch: int, some: list[Followed]) -> dict[str, Judged]:
    listings = site.seal({each.key: sealed_path(each) for each in some}, epoch)
    return {
        each.key: judge(listings.get(each.key, Listing(())), each.spec.outputs, each.spec.max_output_bytes)
        for each in some
    }


def sealed_path(each: Followed) -> str:
    """Where the working folder of an attempt is renamed to: the place of an exact copy of its results."""
    spec = each.spec
    if not spec.output_bucket:
        return f"data/{spec.organisation}/{spec.user}/{spec.user}/attempts/{each.key}"
    return f"data/{spec.organisation}/{spec.user}/{spec.output_bucket}/{spec.output_prefix.strip('/')}"


def _folder(each: Followed, judged: Judged) -> SealedFolder:
    return SealedFolder(sealed_path(each), each.spec.output_bucket, each.spec.output_prefix, judged.files)


def _sent(desk: Desk, group: list[Followed], answer: Sent | HeroesError) -> None:
    at = desk.now()
    if isinstance(answer, Conflict):
        desk.fail(answer)
    if isinstance(answer, HeroesError):
        _put_off(desk, answer)
        answer = Sent({}, {each.key: answer for each in group})
    for each in _still(desk, group):
        fault = answer.faults.get(each.key)
        if fault is None:
            _sent_one(desk, each, at, answer.judged[each.key])
        elif not isinstance(fault, LinkDown | SchedulerDown):
            text = f"Its results cannot be delivered: {fault}"
            desk.take(each, DeliveryFailed(at, text, final=not isinstance(fault, Unavailable)))
    desk.commit("delivered")


def _sent_one(desk: Desk, each: Followed, at: float, judged: Judged) -> None:
    each.moved_bytes += judged.size
    each.files = tuple(file.path for file in judged.files)
    if judged.skipped:
        shown = ", ".join(judged.skipped[:5])
        each.stories.append((at, f"{len(judged.skipped)} left behind, not regular files: {shown}"))
    desk.take(each, Delivered(at, judged.fault))
