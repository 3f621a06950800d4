"""The operator's commands of `heroes`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from heroes.api.errors import Conflict, NotFound
from heroes_hub import operate
from heroes_hub.home import Home, default

_FOLDER = click.option(
    "--home",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The platform's folder (default: HEROES_HOME, else /var/lib/heroes for root and ~/.local/share/heroes).",
)


def _home(folder: Path | None) -> Home:
    return Home(folder.absolute()) if folder else default()


@click.command("up")
@_FOLDER
@click.option("--foreground", is_flag=True, help="Stay, and stop with Ctrl-C or SIGTERM: for service managers.")
def up(folder: Path | None, foreground: bool) -> None:
    """Start the platform: API, engine, object store, and the scheduler of this machine."""
    home = _home(folder)
    settings = home.prepare()
    if foreground:
        operate.check_ports(settings, home.settings_file)
        os.execv(sys.executable, [sys.executable, "-m", "heroes_hub.supervisor", str(home.folder)])  # noqa: S606
    fresh = operate.up(home, settings)
    click.echo(f"HEROES {'is up' if fresh else 'was up already'} at {operate.address(settings)}")
    click.echo(f"settings  {home.settings_file}")
    if home.first_administrator.exists():
        click.echo(f"sign in   heroes login; the first administrator is in {home.first_administrator}")
    if settings.machine.enabled and os.geteuid() != 0:
        click.echo(
            "not root: jobs on this machine run as you, for one person to try the platform; enrol clusters for more"
        )


@click.command("down")
@_FOLDER
@click.option("--cancel-jobs", is_flag=True, help="Cancel what runs on this machine.")
def down(folder: Path | None, cancel_jobs: bool) -> None:
    """Stop the platform. Jobs on clusters go on, those on this machine too; the next start finds them."""
    home = _home(folder)
    operate.existing(home)
    left = operate.down(home, cancel_jobs=cancel_jobs)
    click.echo(f"HEROES in {home.folder} is down")
    if left:
        click.echo(f"{left} jobs still run on this machine; its scheduler ends with the last of them")


@click.command("status")
@_FOLDER
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def status(folder: Path | None, output: str) -> int:
    """Show the platform's processes. Exit status 1 unless all of them run and the API answers."""
    home = _home(folder)
    settings = operate.existing(home)
    state = operate.state(home, settings)
    well = state.healthy and state.supervisor is not None and all(pid for _, pid, _ in state.parts)
    if output == "json":
        click.echo(json.dumps({"well": well, "home": str(home.folder), **asdict(state)}))
        return 0 if well else 1
    click.echo(f"home        {home.folder}")
    click.echo(f"supervisor  {state.supervisor or 'not running'}")
    for name, pid, starts in state.parts:
        click.echo(f"{name:<11} {pid or 'not running'}{f', started {starts} times' if starts > 1 else ''}")
    if settings.machine.enabled:
        running, pending = state.jobs or (0, 0)
        click.echo(f"{'scheduler':<11} {f'{running} jobs running, {pending} waiting' if state.jobs else 'not running'}")
    click.echo(f"api         {operate.address(settings)} {'answers' if state.healthy else 'does not answer'}")
    return 0 if well else 1


@click.command("logs")
@click.argument("part", default="")
@_FOLDER
@click.option("--lines", default=50, help="How many lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until Ctrl-C.")
def logs(part: str, folder: Path | None, lines: int, follow: bool) -> None:
    """Show the log of a part of the platform: supervisor, api, engine, objects; without a name, of each."""
    home = _home(folder)
    found = sorted(path.stem for path in home.log.glob("*.log")) if home.log.is_dir() else []
    if not found:
        operate.existing(home)
    if part and part not in found:
        raise NotFound(
            f"there is no log of {part!r} in {home.log}", hint=f"There are: {', '.join(found) or 'none yet'}."
        )
    wanted = [part] if part else found
    for name in wanted:
        path = home.log / f"{name}.log"
        with path.open(errors="replace") as file:
            kept = file.readlines()[-lines:]
            prefix = "" if part else f"{name}: "
            click.echo("".join(prefix + line for line in kept), nl=False)
    if follow and wanted:
        _follow(home.log / f"{wanted[0]}.log")


def _follow(path: Path) -> None:
    with path.open(errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            line = file.readline()
            if line:
                click.echo(line, nl=False)
            else:
                time.sleep(0.2)


@click.command("engine")
@_FOLDER
def engine(folder: Path | None) -> None:
    """Run one more engine in the foreground, on PostgreSQL: clusters are shared among engines."""
    home = _home(folder)
    if not operate.existing(home).store.url:
        hint = "Name a PostgreSQL database as store.url in heroes.toml to share clusters among engines."
        raise Conflict("on SQLite a platform has one engine, and `heroes up` runs it", hint=hint)
    os.execv(sys.executable, [sys.executable, "-m", "heroes_hub.engine", str(home.folder)])  # noqa: S606


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_FOLDER
def backup(file: Path, folder: Path | None) -> None:
    """Write store, objects, settings and secrets to one file, while the platform runs or not. Keep it safe."""
    from heroes_hub import backups

    home = _home(folder)
    told = backups.write(home, operate.existing(home), file)
    click.echo(f"{file}: {told.rows} rows of {told.tables} tables, {told.objects} objects, {told.bytes} bytes")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_FOLDER
def restore(file: Path, folder: Path | None) -> None:
    """Make a platform out of a backup, in a folder without one and an empty store; prove it before it is taken."""
    from heroes_hub import backups

    home = _home(folder)
    told = backups.restore(home, file)
    command = f"heroes up --home {shlex.quote(str(home.folder))}" if folder else "heroes up"
    click.echo(f"{home.folder}: {told.rows} rows, {told.objects} objects; start it with `{command}`")


@click.command("verify")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_FOLDER
def verify(file: Path | None, folder: Path | None) -> None:
    """Prove audit chains and ledger of the platform, or of a backup."""
    from heroes_hub import backups

    if file is not None:
        proof = backups.verify_file(file)
    else:
        home = _home(folder)
        proof = backups.verify(home, operate.existing(home))
    for line in proof.lines():
        click.echo(line)


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop after the story.")
@click.option("--lab", is_flag=True, help="On the two SLURM clusters of the lab, over SSH (root).")
@click.option(
    "--home", "folder", type=click.Path(file_okay=False, path_type=Path), help="Its folder (default: a fresh one)."
)
@click.option("--keep", is_flag=True, help="Leave the folder behind.")
def demo(once: bool, lab: bool, folder: Path | None, keep: bool) -> int:
    """Bring a platform up on embedded defaults and tell the story of one run."""
    from heroes_hub.demo import run_demo

    return run_demo(once=once, lab=lab, folder=folder, keep=keep)


COMMANDS = (up, down, status, logs, engine, backup, restore, verify, demo)
