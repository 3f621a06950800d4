"""Binds telemetry's operations."""

from __future__ import annotations

from heroes.api import telemetry as api
from heroes_core.module import Call, Module
from heroes_telemetry import service

MODULE = Module("telemetry", api.OPERATIONS)


@MODULE.bind(api.FIGURES)
def figures(call: Call, request: api.AskFigures) -> api.Figures:
    """What a job used."""
    with call.read() as work:
        return service.figures(work, call.caller, request)
