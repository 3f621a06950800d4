"""The engine on a cluster in memory: the whole path, and each fault on it."""

from __future__ import annotations

from heroes_core.work import Database
from heroes_jobs.model import InputRef, OutputSpec, Phase
from heroes_spawners.testing import FakeClock, FakeSite, Outcome

from tests.unit.jobs.world import spec, world


def test_the_whole_path(database: Database) -> None:
    """Inputs staged, submitted once, run once, outputs delivered, settled by what was used."""
    clock = FakeClock()
    site = FakeSite(clock, lambda _job: Outcome(duration_s=5, files={"result.csv": b"1,2\n"}), start_delay_s=0.5)
    here = world(database, clock, site)
    asked = spec(inputs=(InputRef("data", "ann", "in.csv"),), outputs=(OutputSpec("*.csv"),))
    with here.listening() as news:
        [key] = here.submit(asked)
        here.run()
    row = here.row(key)
    assert (row.status, row.cost, row.exit_code) == (Phase.DONE, 5000, 0), here.story(key)
    assert [each[0] for each in site.submissions] == [each[0] for each in site.executions] == [key]
    assert [folder.prefix for folder in here.mover.delivered] == ["runs/01RUN/solve/0"]
    phases = [each.phase for each in news]
    assert phases == [
        Phase.STAGING_IN, Phase.WAITING, Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING, Phase.STAGING_OUT, Phase.DONE,
    ]  # fmt: skip
