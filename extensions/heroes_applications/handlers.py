"""The operations over templates."""

from __future__ import annotations

from heroes.api import applications as api
from heroes.api.model import Empty, Page
from heroes_applications import service
from heroes_applications.catalogue import template_schema
from heroes_core.module import Call, Module

MODULE = Module("applications", api.OPERATIONS)


@MODULE.bind(api.LIST)
def templates(call: Call, request: Page) -> api.Templates:
    """What the caller may submit."""
    with call.read() as work:
        return service.listing(work, call.caller, request.after, request.limit)


@MODULE.bind(api.GET)
def template(call: Call, request: api.GetTemplate) -> api.TemplateText:
    """One template."""
    with call.read() as work:
        return service.show(work, call.caller, request)


@MODULE.bind(api.SCHEMA)
def schema(_call: Call, _request: Empty) -> api.TemplateSchema:
    """The schema of a template."""
    return api.TemplateSchema(json_schema=template_schema())


@MODULE.bind(api.PUBLISH)
def publish(call: Call, request: api.PublishTemplate) -> api.TemplateText:
    """A new version."""
    with call.write() as work:
        return service.publish(work, call.caller, request)


@MODULE.bind(api.WITHDRAW)
def withdraw(call: Call, request: api.WithdrawTemplate) -> Empty:
    """No more submissions of it."""
    with call.write() as work:
        service.withdraw(work, call.caller, request.workflow_template_id)
    return Empty()
