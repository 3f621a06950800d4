"""The platform's settings: one TOML file, written with an explanation of each setting at the first start."""

from __future__ import annotations

import json
import os
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from heroes.api.errors import InvalidSpec
from heroes.api.model import Model

_TOP = """# The settings of this HEROES platform. Written once, at the first start; yours to change.
# A change counts after `heroes down` and `heroes up`. What is not here keeps its default, shown below.
"""


class Api(Model):
    """Where the API listens."""

    address: str = Field("127.0.0.1", description="The network address to listen on. Keep it local behind a proxy.")
    port: int = Field(8600, ge=1, le=65535, description="The port to listen on.")
    url: str = Field("", description="How users reach the API, when a proxy stands before it: https://heroes.example.")
    threads: int = Field(8, ge=1, le=256, description="Requests that may use the database at the same time.")


class Store(Model):
    """Where the platform keeps its records."""

    url: str = Field(
        "",
        description='"" is a SQLite file in this folder: one machine, no server. PostgreSQL, for several machines:'
        " postgresql://user:password@host/name.",
    )


class Objects(Model):
    """Where users' data are."""

    kind: str = Field(
        "embedded",
        pattern="^(embedded|s3)$",
        description='"embedded" starts an S3 server here, with its files in this folder; "s3" uses another one.',
    )
    address: str = Field("127.0.0.1", description="The network address that the embedded server listens on.")
    port: int = Field(8601, ge=1, le=65535, description="The port that the embedded server listens on.")
    url: str = Field(
        "",
        description="How users reach the embedded server, when a proxy stands before it; or where the other one is.",
    )
    access_key: str = Field("", description="The other server's access key, which may make buckets.")
    secret_key: str = Field("", description="The secret to it.", repr=False)
    region: str = Field("us-east-1", description="The other server's region.")
    bucket: str = Field(
        "heroes-{organisation}",
        pattern=r"^[a-z0-9{}.-]*\{organisation\}[a-z0-9.-]*$",
        description="The bucket of the other server in which an organisation's data are.",
    )


class MachineQueue(Model):
    """A queue of this machine."""

    name: str = Field(description="Its name.")
    share: float = Field(
        description="The share of the machine's CPUs and memory that its jobs may use together.", gt=0, le=1
    )
    max_walltime_s: int = Field(86400, gt=0, description="The longest time limit of a job, in seconds.")
    per_core_hour: str = Field("0.05", description="The price of a core for an hour.")
    per_use: str = Field("0", description="A fixed price for each job.")


class MachineSettings(Model):
    """This machine as a cluster."""

    enabled: bool = Field(True, description="Whether jobs may run on this machine.")
    name: str = Field("local", description="The cluster's name.")
    cpus: int = Field(0, ge=0, description="CPUs for jobs; 0 is all of them, and two at least.")
    memory_mib: int = Field(0, ge=0, description="Memory for jobs, in MiB; 0 is nine tenths of what there is.")
    idle_watts: float = Field(
        30.0, ge=0, description="Power of the machine doing nothing, in watts; measure it if you can."
    )
    busy_watts: float = Field(90.0, ge=0, description="Power of the machine with all its CPUs busy, in watts.")
    pue: float = Field(
        1.0, ge=1, description="Power usage effectiveness: power with cooling over power of the machine."
    )
    carbon_g_per_kwh: float = Field(
        300.0, ge=0, description="Carbon intensity of the machine's electricity, gCO2e/kWh."
    )
    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="The currency of the queues' prices.")
    queues: tuple[MachineQueue, ...] = Field(
        (
            MachineQueue(name="small", share=0.5, max_walltime_s=7200, per_core_hour="0.20"),
            MachineQueue(name="large", share=1.0, max_walltime_s=86400, per_core_hour="0.50", per_use="0.01"),
        ),
        description="The queues.",
    )


class Engine(Model):
    """How the engine follows clusters."""

    enabled: bool = Field(True, description="Whether this machine runs an engine; on PostgreSQL several machines may.")
    idle_s: float = Field(60.0, gt=0, description="Seconds between polls of a cluster where nothing runs.")
    slowest_s: float = Field(10.0, gt=0, description="Seconds between polls of a cluster where jobs run, at most.")
    keep_days: float = Field(14.0, gt=0, description="Days after which a finished job's folder at its site is removed.")


class Agreement(Model):
    """One agreement."""

    organisation: str = Field(description="The organisation.")
    cluster: str = Field(description="The cluster.")
    queue: str = Field("*", description='The queue; "*" for all of the cluster.')
    terms: str = Field("", description="What was agreed, in words.")


class Marketplace(Model):
    """Agreements and exchange rates."""

    agreements: tuple[Agreement, ...] = Field(
        (),
        description="Which organisation may use which cluster. None at all: whoever sees a queue may use it. Each is a"
        ' table [[marketplace.agreements]] with organisation, cluster, queue ("*" for all of them) and terms.',
    )
    rates: dict[str, str] = Field(
        {},
        description='Exchange rates, for queues priced in another currency than an organisation\'s: "USD/EUR" = "0.9".',
    )


class Settings(Model):
    """All of them."""

    api: Api = Field(Api(), description="Where the API listens.")
    store: Store = Field(Store(), description="Where the platform keeps its records.")
    objects: Objects = Field(Objects(), description="Where users' data are: an S3 server.")
    engine: Engine = Field(Engine(), description="What follows jobs on clusters.")
    machine: MachineSettings = Field(MachineSettings(), description="This machine as a cluster, beside those enrolled.")
    marketplace: Marketplace = Field(Marketplace(), description="Who may use what.")


def load(path: Path) -> Settings:
    """The settings of a file; InvalidSpec names the file, the setting and its value."""
    try:
        return Settings.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{path} is not valid TOML: {error}", hint="Correct that line.") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        told = f"{path}: {name} = {first['input']!r}: {first['msg']}"
        raise InvalidSpec(told, hint="Correct it, or remove the line: then the default counts.") from None


def write_first(path: Path, settings: Settings | None = None) -> None:
    """Write a commented file, for its owner only, unless there is one."""
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text(settings or Settings()))
    part.replace(path)


def text(settings: Settings) -> str:
    """The commented file; `load` reads it back to the same settings."""
    return _TOP + "".join(_section(name, getattr(settings, name), name) for name in Settings.model_fields)


def _section(path: str, section: Model, name: str) -> str:
    """A table and the tables in it. Tables come last, since what follows one belongs to it."""
    lines, tables = [f"\n# {Settings.model_fields[name].description}\n[{path}]\n"], []
    for field, about in type(section).model_fields.items():
        value = getattr(section, field)
        said = "".join(f"# {line}\n" for line in textwrap.wrap(about.description or "", 116))
        if isinstance(value, tuple):
            tables += [f"\n{said}", *(_table(f"{path}.{field}", each) for each in value)]
        elif isinstance(value, dict):
            tables += [f"\n{said}[{path}.{field}]\n", *(f"{_value(key)} = {_value(value[key])}\n" for key in value)]
        else:
            lines.append(f"{said}{field} = {_value(value)}\n")
    return "".join(lines + tables)


def _table(path: str, row: Model) -> str:
    lines = [f"[[{path}]]\n"]
    for field, about in type(row).model_fields.items():
        lines.append(f"{field} = {_value(getattr(row, field))}  # {about.description}\n")
    return "".join(lines)


def _value(value: Any) -> str:
    """A TOML value: JSON's strings, numbers and booleans are TOML's."""
    return json.dumps(value)
