"""The operations over runs. Runs follow their jobs by the hook that is registered here."""

from __future__ import annotations

from heroes.api import workflows as api
from heroes_core.module import Call, Module
from heroes_data.ports import ObjectStore
from heroes_decision.service import Asked
from heroes_jobs import service as jobs
from heroes_workflows import placing, service, submission
from heroes_workflows.following import correct, follow

MODULE = Module("workflows", api.OPERATIONS, {"jobs.corrected": correct})
jobs.register(follow)


def look_up(call: Call, request: api.Submit) -> Asked:
    """The template's jobs and the objects that they read."""
    return placing.look_up(call.database, call.service(ObjectStore), call.caller, request)


def look_up_again(call: Call, request: api.Again) -> Asked:
    """What a run was made of."""
    return submission.look_up_again(call.database, call.service(ObjectStore), call.caller, request)


@MODULE.bind(api.SUBMIT, prepare=look_up)
def submit(call: Call, request: api.Submit) -> api.Instance:
    """A new run."""
    with call.write() as work:
        return submission.submit(work, call.caller, request, call.prepared)


@MODULE.bind(api.PREVIEW, prepare=look_up)
def preview(call: Call, request: api.Submit) -> api.Preview:
    """What it would reserve."""
    with call.write() as work:
        return submission.preview(work, call.caller, request, call.prepared)


@MODULE.bind(api.AGAIN, prepare=look_up_again)
def again(call: Call, request: api.Again) -> api.Instance:
    """The same once more."""
    with call.write() as work:
        wanted = submission.as_submitted(work, call.caller, request)
        run = request.workflow_instance_id
        return submission.submit(work, call.caller, wanted, call.prepared, again_of=run)


@MODULE.bind(api.LIST)
def instances(call: Call, request: api.ListInstances) -> service.Listed:
    """One's own runs, or those of a project that one is in."""
    with call.read() as work:
        shared = service.shares(work, call.caller, request.project)
        return service.listing(work, call.caller, request, user="" if shared else call.caller.user)


@MODULE.bind(api.LIST_ALL)
def all_instances(call: Call, request: api.ListAllInstances) -> service.Listed:
    """The organisation's runs."""
    with call.read() as work:
        return service.listing(work, call.caller, request, user=request.user)


@MODULE.bind(api.LIST_OF_TEMPLATE)
def template_instances(call: Call, request: api.ListTemplatesInstances) -> service.Listed:
    """The organisation's runs of a template."""
    with call.read() as work:
        template = request.workflow_template_id
        return service.listing(work, call.caller, request, user=request.user, template=template)


@MODULE.bind(api.GET)
def instance(call: Call, request: api.GetInstance) -> api.InstanceDetail:
    """One run."""
    with call.read() as work:
        return service.show(work, call.caller, request.workflow_instance_id)


@MODULE.bind(api.JOBS)
def list_jobs(call: Call, request: api.ListJobs) -> api.Jobs:
    """The jobs of a run."""
    with call.read() as work:
        return service.list_jobs(work, call.caller, request)


@MODULE.bind(api.EVENTS, waits=True)
def events(call: Call, request: api.AskEvents) -> api.Events | None:
    """What happened since; None while nothing did."""
    with call.read() as work:
        return service.events(work, call.caller, request, final=call.final)


@MODULE.bind(api.RESULTS)
def results(call: Call, request: api.ListResults) -> api.Results:
    """Files that a run left."""
    with call.read() as work:
        return service.results(work, call.caller, request)


@MODULE.bind(api.REPORT)
def report(call: Call, request: api.GetInstance) -> api.Report:
    """What a run cost."""
    with call.read() as work:
        return service.report(work, call.caller, request.workflow_instance_id)


@MODULE.bind(api.CANCEL)
def cancel(call: Call, request: api.GetInstance) -> api.Instance:
    """Stop a run."""
    with call.write() as work:
        return service.cancel(work, call.caller, request.workflow_instance_id)
