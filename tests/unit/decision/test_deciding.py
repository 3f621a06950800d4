"""What is asked is answered with places, figures, reasons and budgets; and what the answer is bound to."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from heroes.api import decision as api
from heroes.api.errors import InvalidSpec, NoPlacement, NotAllowed, NotFound, OverBudget
from heroes.api.registry import Operation, parse
from heroes.api.units import Money
from heroes_budget import service as budget
from heroes_clusters import service as clusters
from heroes_core.module import Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_data.ports import ObjectStore
from heroes_decision.handlers import MODULE
from tests.unit.workflows.platform import ALICE, ALPHA, BETA, FACTS, MIA, ZOE, Platform

SUMS = """
name: sums
title: Sums
parameters: {cores: {type: integer, default: 2, minimum: 1, maximum: 100}}
inputs: {table: {required: false}}
steps:
  - {name: add, argv: [add, "{{input.table}}"], resources: {cpus_per_task: cores, walltime_s: 100}}
"""
#: Three times the price of alpha for a core-second, at twice its speed.
DEARER = replace(BETA, price=BETA.price.model_copy(update={"per_core_hour": Decimal("10.8")}))
ADMIN = Caller("acme", "admin", frozenset({"clusters:manage"}))
BILLING = Caller("acme", "bill", frozenset({"billing"}))


@pytest.fixture
def platform(sqlite: Database) -> Platform:
    """Two clusters: alpha, cheaper, and beta, quicker and on a cleaner grid. Alice has published the sums."""
    return made(sqlite)


def made(database: Database) -> Platform:
    """Such a platform on any database."""
    platform = Platform(database)
    platform.enrol("beta", DEARER)
    platform.publish(SUMS)
    return platform


def ask(platform: Platform, operation: Operation, caller: Caller = ALICE, **fields: Any) -> Any:
    """The answer of the decision's operations."""
    services = Services()
    services.offer(ObjectStore, platform.objects)
    call = Call(admit(operation, caller), platform.database, services)
    answer = perform(MODULE.bound[operation.name], call, parse(operation.request, fields), "")
    return operation.response.model_validate_json(answer.model_dump_json())


def decide(platform: Platform, **fields: Any) -> api.Decision:
    """Where the sums could run."""
    answer: api.Decision = ask(platform, api.DECIDE, **({"template": "sums"} | fields))
    return answer


@pytest.mark.parametrize(
    ("policy", "best"),
    [("cheapest", "alpha/cpu"), ("lowest-carbon", "beta/cpu"), ("fastest", "beta/cpu"), ("greenest", "beta/cpu")],
)
def test_a_policy_chooses_and_tells_why(platform: Platform, policy: str, best: str) -> None:
    """The best comes first and says why it won, the other by how much it lost; both are marked as not dominated."""
    answer = decide(platform, policy=policy)
    first, second = answer.alternatives
    assert (first.place, first.rank, second.rank) == (best, 1, 2)
    assert first.score == 1
    assert first.why
    assert "of the best" in second.why
    assert (answer.policy, answer.rejected) == (policy, ())


def test_weights_decide_the_weighted_policy(platform: Platform) -> None:
    """All weight on one figure is that figure's policy."""
    for name, best in (("cost", "alpha/cpu"), ("carbon", "beta/cpu")):
        weights = dict.fromkeys(("time", "cost", "energy", "carbon"), 0.0) | {name: 1.0}
        assert decide(platform, policy="weighted", weights=weights).alternatives[0].place == best


def test_every_figure_has_an_interval_and_evidence(platform: Platform) -> None:
    """Quantiles grow; without history the evidence is the request; the reservation covers the cost."""
    for each in decide(platform).alternatives:
        for figure in (each.time, each.wait, each.run, each.transfer, each.energy, each.carbon, each.memory):
            assert figure.q10 <= figure.q50 <= figure.q85 <= figure.q95
        assert each.cost.q95 <= each.reserved
        assert (each.evidence.level, each.evidence.jobs) == ("request", 0)
        assert each.evidence.power == "assumed"


def test_history_becomes_the_evidence(database: Database) -> None:
    """After a run of the same, the class is the evidence, and the run time comes nearer to what happened."""
    platform = made(database)
    before = decide(platform, policy="cheapest").alternatives[0]
    for _ in range(3):
        platform.submit("sums", policy="cheapest")
        platform.run()
    after = decide(platform, policy="cheapest").alternatives[0]
    assert (after.evidence.level, after.evidence.jobs) == ("class", 3)
    assert abs(after.run.point - 5) < abs(before.run.point - 5)
    assert after.run.q85 - after.run.q10 < before.run.q85 - before.run.q10


def test_the_budget_is_shown_before_and_after(platform: Platform) -> None:
    """Each alternative shows what its own worst case would do to the credit."""
    for each in decide(platform).alternatives:
        (credit,) = each.budget
        assert (credit.limit, credit.before) == (Money.of(1000), Money.zero())
        assert credit.after == each.reserved


def test_a_place_that_a_budget_excludes_says_by_how_much(platform: Platform) -> None:
    """With credit for the cheaper place only, the other is rejected; with none at all it is OverBudget."""
    cheap, dear = sorted(each.reserved for each in decide(platform).alternatives)
    with platform.database.write() as work:
        budget.credit(work, "acme", cheap - Money.of(1000), "test", "setup")
    answer = decide(platform)
    assert [each.place for each in answer.alternatives] == ["alpha/cpu"]
    (lost,) = answer.rejected
    assert (lost.place, lost.constraint) == ("beta/cpu", "budget")
    assert (dear - cheap).exact() in lost.reason
    with platform.database.write() as work:
        budget.credit(work, "acme", -cheap, "test", "setup")
    with pytest.raises(OverBudget, match="credit of acme"):
        decide(platform)


def test_no_placement_names_every_constraint_and_way_out(platform: Platform) -> None:
    """Nine cores fit on no node of eight: both queues say so, with the smallest change."""
    with pytest.raises(NoPlacement) as refused:
        decide(platform, parameters={"cores": 9})
    told = {each["place"]: each for each in refused.value.detail["rejected"]}
    assert set(told) == {"alpha/cpu", "beta/cpu"}
    assert told["alpha/cpu"]["constraint"] == "cores"
    assert "8" in told["alpha/cpu"]["change"]


def test_a_deadline_and_a_highest_cost_exclude(platform: Platform) -> None:
    """A deadline that only the quicker keeps, and a cost that only the cheaper keeps."""
    slow, quick = decide(platform, policy="cheapest").alternatives
    deadline = sum(each.time.q85 + each.time.q95 for each in (slow, quick)) / 4  # 90 % of each is half-way
    answer = decide(platform, deadline_s=deadline)
    assert [each.place for each in answer.alternatives] == ["beta/cpu"]
    assert answer.rejected[0].constraint == "deadline"
    answer = decide(platform, max_cost=slow.reserved)
    assert [each.place for each in answer.alternatives] == ["alpha/cpu"]
    assert answer.rejected[0].constraint == "max_cost"


def test_a_closed_place_is_rejected_with_its_reason(platform: Platform) -> None:
    """A drained cluster says so."""
    with platform.database.write() as work:
        clusters.change(work, ADMIN, "beta", drained=True)
    answer = decide(platform)
    assert [each.place for each in answer.alternatives] == ["alpha/cpu"]
    assert answer.rejected[0].constraint == "closed"


def test_a_foreign_price_needs_a_rate(platform: Platform) -> None:
    """Without an exchange rate a place that asks for another currency is closed, and says which rate is missing."""
    francs = replace(ALPHA, price=ALPHA.price.model_copy(update={"currency": "CHF"}))
    platform.enrol("gamma", francs)
    (lost,) = decide(platform).rejected
    assert lost.place == "gamma/cpu"
    assert "exchange rate from CHF to EUR" in lost.reason


def test_only_the_places_that_were_asked_for(platform: Platform) -> None:
    """A list of places narrows the answer; an unknown one is not found."""
    assert [each.place for each in decide(platform, places=("beta/cpu",)).alternatives] == ["beta/cpu"]
    with pytest.raises(NotFound, match="gamma/cpu"):
        decide(platform, places=("gamma/cpu",))


def test_data_to_move_take_time_and_are_not_counted_where_unknown(platform: Platform) -> None:
    """A large input adds its transfer to the time; an input that does not exist is not found."""
    with pytest.raises(NotFound, match="no object"):
        decide(platform, inputs={"table": "alice/table.csv"})
    platform.objects.put("acme", "alice", "table.csv", "e1", 10**9)
    with_data = decide(platform, inputs={"table": "alice/table.csv"}).alternatives[0]
    assert with_data.transfer.q10 > 5
    assert with_data.time.q50 > decide(platform).alternatives[0].time.q50


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"template": "nothing"}, "nothing"),
        ({"parameters": {"cores": 0}}, "cores"),
        ({"parameters": {"cores": "two"}}, "cores"),
        ({"parameters": {"colour": "red"}}, "colour"),
        ({"project": "wind"}, "wind"),
        ({"policy": "luckiest"}, "policy"),
    ],
)
def test_what_makes_no_sense_is_refused(platform: Platform, fields: dict[str, Any], said: str) -> None:
    """The message names the template, parameter, project or policy that is wrong."""
    with pytest.raises((InvalidSpec, NotFound, NotAllowed), match=said):
        decide(platform, **fields)


def test_a_decision_is_ones_own(platform: Platform) -> None:
    """It can be looked at again by whoever asked for it, and by nobody else."""
    answer = decide(platform)
    assert ask(platform, api.DECISION, decision_id=answer.id) == answer
    for stranger in (MIA, ZOE):
        with pytest.raises(NotFound):
            ask(platform, api.DECISION, stranger, decision_id=answer.id)


def test_policies_are_listed_with_their_default(platform: Platform) -> None:
    """Five, one of them the default."""
    items = ask(platform, api.POLICIES).items
    assert {each.name for each in items} == {"fastest", "cheapest", "greenest", "lowest-carbon", "weighted"}
    assert [each.name for each in items if each.default] == ["weighted"]


def test_a_cluster_that_lacks_what_is_needed_says_so(platform: Platform) -> None:
    """An application that the probe did not find excludes the place."""
    platform.publish(
        SUMS.replace("name: sums", "name: cfd").replace(
            "- {name: add,", "- {name: add, application: {requires: [su2]},"
        )
    )
    with pytest.raises(NoPlacement, match="su2, which the probe did not find"):
        decide(platform, template="cfd")
    assert "su2" not in FACTS["applications"]


def test_outcomes_compare_and_count_coverage(database: Database) -> None:
    """Every job that ran is listed with what was predicted, newest first; coverage counts all of them."""
    platform = made(database)
    for _ in range(3):
        platform.submit("sums", policy="cheapest")
        platform.run()
    first: api.Outcomes = ask(platform, api.OUTCOMES, BILLING, limit=2)
    rest: api.Outcomes = ask(platform, api.OUTCOMES, BILLING, limit=2, after=first.next)
    shown = [*first.items, *rest.items]
    assert (len(shown), rest.next) == (3, None)
    assert [each.at for each in shown] == sorted((each.at for each in shown), reverse=True)
    assert {(each.template, each.step, each.place) for each in shown} == {("sums", "add", "alpha/cpu")}
    assert all(each.run.value == 5 and each.cost == Money(micros=10_000) for each in shown)
    assert [each.quantile for each in first.coverage] == ["q10", "q50", "q85", "q95"]
    assert all(each.jobs == 3 and 0 <= each.run <= 1 for each in first.coverage)
    assert [each.run for each in first.coverage] == sorted(each.run for each in first.coverage)
    with pytest.raises(NotAllowed):
        ask(platform, api.OUTCOMES)
