"""The story of one run, told as text while it happens through the real client; a step that fails ends it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

import heroes
from heroes.api.errors import HeroesError
from heroes.runs import ENDED, Run
from heroes.workflows import Options
from heroes_applications.catalogue import shipped_file

WORKFLOW, SAMPLE = "job-runtime-model", "nrel-eagle-sample1000.csv.gz"
#: A demo on a busy small machine.
PATIENCE_S = 600.0


class Story:
    """Prints numbered steps and what happens in them."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._number, self._title = out, 0, ""

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number, self._title = self._number + 1, title
        self.say(f"\n{self._number}. {title}")

    def say(self, text: str) -> None:
        """A line, or several."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def fail(self, error: BaseException, log: Path) -> None:
        """The step that failed, why, and where to look."""
        self.say(f"\nFAILED at step {self._number} ({self._title}): {type(error).__name__}: {error}")
        for path in sorted(log.glob("*.log")) if log.is_dir() else ():
            lines = path.read_text(errors="replace").splitlines()[-5:]
            self.say("\n".join(f"{path.stem}: {line[:500]}" for line in lines))
        self.say("demo: failed")

    def end(self, address: str, organisation: str, user: str, password: str) -> None:
        """The address, and how to go on."""
        self.step("Go on yourself")
        login = f'heroes login --url {address} --organisation {organisation} --user {user} --password "{password}"'
        self.say(f"address      {address} (its operations: {address}/reference)")
        self.say(f"command line {login}")
        self.say("             heroes workflow list; heroes run list; heroes budget list; heroes cluster list")
        self.say(f'Python       import heroes; hs = heroes.connect(); hs.workflows["{WORKFLOW}"].decide()')


def tell(story: Story, address: str, user: str) -> None:
    """The whole story, as `user`. Whatever does not go well raises."""
    from heroes_hub.demo import ORGANISATION, PASSWORD, signed_in

    with signed_in(address, ORGANISATION, user, PASSWORD) as hs:
        story.step(f"{user} of {ORGANISATION} signs in and looks at the workflows on offer")
        story.say(str(hs.workflows))
        assert WORKFLOW in hs.workflows, f"{WORKFLOW} is not on offer"
        source = upload(story, hs)
        options = ask(story, hs, source)
        run = follow(story, options)
        show_results(story, run)


def upload(story: Story, hs: heroes.Heroes) -> str:
    """An input of one's own; where it is."""
    story.step("Upload an input: a trace of 1,000 batch jobs")
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / SAMPLE
        file.write_bytes(shipped_file(WORKFLOW, SAMPLE))
        where = hs.data.upload(file, f"{hs.user}/traces/{SAMPLE}")
    story.say(f"{where}, {sum(each.size for each in hs.data.list(f'{hs.user}/traces/'))} bytes")
    return where


def ask(story: Story, hs: heroes.Heroes, source: str) -> Options:
    """Where it could run: at least two real alternatives."""
    story.step("Ask where it could run, and what each place would take")
    options = hs.workflows[WORKFLOW].decide(jobs=source, trees=200, policy="cheapest", deadline="2 h")
    story.say(str(options))
    places = {option.told.place for option in options}
    assert len(places) >= 2, f"there are only {sorted(places)} to choose from"
    return options


def follow(story: Story, options: Options) -> Run:
    """Submit to the best place and watch; the run, ended well."""
    best = options.best
    story.step(f"Submit to {best.told.place} and watch")
    run = best.submit(labels={"story": "demo"})
    story.say(f"run {run.id}")
    began, seen, state = time.monotonic(), 0, ""
    while state not in ENDED:
        state = run.state  # asked before the events: after the end all of them are there
        for event in run.events(after=seen):
            seen = event.number
            where = f"{event.step}[{event.index}]" if event.index else event.step
            words = [event.kind if event.kind != "job" else "", where, event.phase, event.text]
            story.say(f"  {time.monotonic() - began:6.1f} s  {' '.join(word for word in words if word)}")
        assert time.monotonic() - began < PATIENCE_S, f"the run took more than {PATIENCE_S:g} s"
        time.sleep(0.3)
    run.refresh()
    story.say(f"  {time.monotonic() - began:6.1f} s  {run.state}, {seen} events")
    assert run.state == "done", f"the run ended as {run.state}: {run.reason} {_stderr(run)}"
    return run


def _stderr(run: Run) -> str:
    """The end of what its jobs wrote to standard error, to tell why it failed."""
    found = []
    for step in run.steps:
        try:
            found.append(f"{step}: {(run.log(step, stream='stderr') or '')[-300:]}")
        except HeroesError as error:
            found.append(f"{step}: {error}")
    return "\n".join(found)


def show_results(story: Story, run: Run) -> None:
    """Results from the user's bucket, cost, energy and how it was measured, predicted against actual."""
    story.step("Results, from her own bucket")
    story.say(str(run.results))
    metrics = json.loads(run.results.read("metrics.json"))
    ours, asked = (metrics[name]["accuracy"] for name in ("model", "requested"))
    story.say(f"metrics.json: accuracy of the model {ours:.0%}, of the time limits that users asked for {asked:.0%}")
    assert run.results.read("predicted-against-actual.png").startswith(b"\x89PNG"), "the picture is not a PNG"
    story.step("What it cost and took, and how good the prediction was")
    story.say(str(run.report()))
    energy, cost = run.energy, run.cost
    assert cost, "the run cost nothing"
    assert energy is not None, "no energy was measured"
    states = Counter(job.state for job in run.jobs)
    assert set(states) == {"done"}, f"jobs ended as {dict(states)}"
