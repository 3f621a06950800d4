"""`heroes demo`: a platform on embedded defaults, and the story of one run as an engineer of `acme` lives it."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import heroes
from heroes.api import budget, identity
from heroes.api.errors import HeroesError
from heroes.api.units import Money
from heroes.client import Client
from heroes_hub import operate
from heroes_hub.demo_lab import LabClusters, join_lab
from heroes_hub.home import Home, cache
from heroes_hub.platform import ADMINISTRATOR, PLATFORM
from heroes_hub.settings import Agreement, Api, Marketplace, Objects, Settings
from heroes_hub.story import Story, tell
from heroes_spawners import environment
from heroes_spawners.machine.probe import facts_of_python

#: The demo's people. Known to everybody, on a platform that listens on this machine only.
ORGANISATION, PROJECT, CLIENT, ENGINEER = "acme", "wing", "carla", "emma"
PASSWORD = "a wing and a prayer"  # noqa: S105


def run_demo(*, once: bool, lab: bool, folder: Path | None, keep: bool) -> int:
    """Bring the platform up, tell the story, stay until Ctrl-C unless `once`; 0 when every step went well."""
    with _home(folder, keep) as home:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        story = Story(sys.stdout)
        try:
            build_environment(story)
            clusters = join_lab(story) if lab else None
            connection = _raise_platform(home, story, lab)
            _make_people(connection, home, clusters)
            tell(story, connection, ENGINEER)
            story.end(connection, ORGANISATION, ENGINEER, PASSWORD)
            if not once:
                _stay(story)
        except (HeroesError, OSError, AssertionError) as error:
            story.fail(error, home.log)
            return 1
        except KeyboardInterrupt:
            story.say("\nstopped before the story was told")
            return 130
        finally:
            operate.down(home, cancel_jobs=True)
    story.say("demo: ok")
    return 0


def _stay(story: Story) -> None:
    """Until Ctrl-C, or SIGTERM."""
    story.say("\nThe platform stays up until Ctrl-C.")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


@contextmanager
def _home(folder: Path | None, keep: bool) -> Iterator[Home]:
    """The platform's folder: a fresh one that every user may pass through, removed afterwards; or the one named."""
    if folder is not None:
        yield Home(folder.absolute())
        return
    fresh = Path(tempfile.mkdtemp(prefix="heroes-demo-", dir="/var/tmp"))
    try:
        yield Home(fresh)
    finally:
        if not keep:
            shutil.rmtree(fresh, ignore_errors=True)


def build_environment(story: Story) -> None:
    """Build what the workflow's jobs need, before anything waits for it. Unavailable without the package index."""
    story.step("Build the Python environment that jobs get (once; later runs have it)")
    python = facts_of_python()
    made = environment.build("python", cache(), python["python_version"], platform.machine())
    story.say(f"{made.path.name}: {made.path.stat().st_size / 2**20:.0f} MiB, sha256 {made.sha256[:16]}...")


def _raise_platform(home: Home, story: Story, lab: bool) -> str:
    """Start it; the API's address."""
    story.step("Start the platform")
    machine = Settings().machine.model_copy(update={"enabled": not lab})
    agreements = () if lab else (Agreement(organisation=ORGANISATION, cluster=machine.name, terms="demo"),)
    settings = home.prepare(
        Settings(
            api=Api(port=_free_port(8600)),
            objects=Objects(port=_free_port(8601)),
            machine=machine,
            marketplace=Marketplace(agreements=agreements),
        )
    )
    operate.up(home, settings)
    address = operate.address(settings)
    story.say(f"API, engine and object store are up at {address}; everything is in {home.folder}")
    if not lab and os.geteuid() != 0:
        story.say("Not root: jobs run as you, so this is for one person to try the platform.")
    return address


def _free_port(wanted: int) -> int:
    """`wanted`, where nobody listens there; else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("there is no free port")


def _make_people(address: str, home: Home, lab: LabClusters | None) -> None:
    """What administrators do beforehand: the organisation with its credit, a project with a budget, an engineer."""
    password = home.first_administrator.read_text().rsplit("password: ", 1)[1].strip()
    with signed_in(address, PLATFORM, ADMINISTRATOR, password) as mayor:
        new = identity.AddOrganisation(name=ORGANISATION, title="ACME", administrator=CLIENT, password=PASSWORD)
        mayor.client.call(identity.ADD_ORGANISATION, new)
        credit = budget.AddCredit(organization_id=ORGANISATION, amount=Money.of("100"), reason="a first credit")
        mayor.client.call(budget.CREDIT, credit)
    with signed_in(address, ORGANISATION, CLIENT, PASSWORD) as admin:
        engineer = identity.AddUser(name=ENGINEER, title="Emma", password=PASSWORD, roles=("engineer",))
        admin.client.call(identity.ADD_USER, engineer)
        admin.client.call(identity.ADD_PROJECT, identity.AddProject(name=PROJECT, members=(ENGINEER,)))
        limit = budget.SetBudget(scope="user", subject=ENGINEER, limit=Money.of("20"))
        admin.client.call(budget.SET, limit)
        if lab is not None:
            lab.enrol(admin)


@contextmanager
def signed_in(address: str, organisation: str, user: str, password: str) -> Iterator[heroes.Heroes]:
    """The platform as that user sees it."""
    with heroes.Heroes(Client(address, sign_in(address, organisation, user, password))) as connection:
        yield connection


def sign_in(address: str, organisation: str, user: str, password: str) -> str:
    """A token."""
    client = Client(address)
    try:
        login = identity.Login(organisation=organisation, user=user, password=password)
        token: identity.Token = client.call(identity.LOGIN, login)
        return token.token
    finally:
        client.close()
