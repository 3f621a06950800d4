"""Distributions, scores, dominance and history: pure."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heroes.api.decision import Weights
from heroes.api.units import PowerModel, PriceModel, Watts
from heroes_decision import history
from heroes_decision.history import Job, known, place_key
from heroes_decision.model import POLICIES, Allocation, Figures, Spread, Terms, pareto, scores, spread_of, why_lost

numbers = st.floats(0.001, 1e6)


def figures(time: float, cost: float, energy: float, carbon: float) -> Figures:
    """A place of known figures."""
    exact = Spread.exactly
    return Figures(exact(time), exact(0), exact(time), exact(0), exact(cost), exact(energy), exact(carbon), exact(1))


@given(st.lists(st.tuples(numbers, st.floats(0.01, 10)), min_size=1, max_size=50))
@example([(8.5, 8.5), (796100.5, 8.5), (796100.5, 8.5)])
def test_quantiles_grow_and_stay_within_what_was_seen(values: list[tuple[float, float]]) -> None:
    """10 % <= 50 % <= 85 % <= 95 %, none outside the observations."""
    spread = spread_of(values)
    assert spread.q10 <= spread.q50 <= spread.q85 <= spread.q95
    assert min(value for value, _ in values) <= spread.q10
    assert spread.q95 <= max(value for value, _ in values)


def test_quantiles_of_many_equal_weights_are_the_usual_ones() -> None:
    """Of 1..1000 the median is about 500 and the 95 % quantile about 950."""
    spread = spread_of([(float(value), 1.0) for value in range(1, 1001)])
    assert spread.q50 == pytest.approx(500.5, abs=1)
    assert spread.q95 == pytest.approx(950.5, abs=1)


def test_any_level_is_found_between_the_quantiles() -> None:
    """The 90 % level lies half way between 85 and 95 %."""
    assert Spread(1, 2, 4, 8).at(0.90) == pytest.approx(6)
    assert Spread(1, 2, 4, 8).at(0.10) == 1
    assert Spread(1, 2, 4, 8).at(0.99) == 8


PLACES = [figures(100, 10, 500, 50), figures(50, 30, 400, 90), figures(200, 5, 800, 40), figures(210, 31, 900, 95)]


@pytest.mark.parametrize(("policy", "winner"), [("fastest", 1), ("cheapest", 2), ("greenest", 1), ("lowest-carbon", 2)])
def test_each_policy_puts_its_own_figure_first(policy: str, winner: int) -> None:
    """The place with the least of the figure that the policy counts wins, with a score of 1."""
    points = scores(PLACES, POLICIES[policy][1])
    assert points.index(min(points)) == winner
    assert min(points) == pytest.approx(1)


def test_a_dominated_place_is_marked_and_changes_nobody() -> None:
    """The fourth is worse than the second in everything: not on the front, and the others' order is as without it."""
    assert pareto(PLACES) == [True, True, True, False]
    with_it, without = scores(PLACES, Weights()), scores(PLACES[:3], Weights())
    assert with_it[:3] == pytest.approx(without)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=2, max_size=8), st.floats(0.5, 50))
def test_doubling_all_prices_changes_no_rank(rows: list[tuple[float, float, float, float]], factor: float) -> None:
    """Scores are ratios, so the unit of money does not matter."""
    before = scores([figures(*(10 + each for each in row)) for row in rows], Weights())
    after = scores([figures(10 + t, (10 + c) * factor, 10 + e, 10 + g) for t, c, e, g in rows], Weights())
    assert after == pytest.approx(before)


def test_the_reason_names_what_is_worse() -> None:
    """Only figures that the policy counts, with their ratio."""
    assert why_lost(PLACES[0], PLACES[1], POLICIES["fastest"][1]) == "2 times the time of the best"
    assert "cost" in why_lost(PLACES[1], PLACES[2], POLICIES["cheapest"][1])


JOB = Job("acme", "ada", "cavity", "solve", 4)


def test_the_narrowest_level_with_history_is_used() -> None:
    """Class before template before user before the request alone."""
    keys = JOB.keys()
    seen = [[0.25, 1.0, 0.5]] * 20
    assert known({}, JOB).level == "request"
    assert known({keys["user"]: seen}, JOB).level == "user"
    assert known({keys["user"]: seen, keys["template"]: seen}, JOB).level == "template"
    told = known({keys["class"]: seen, keys["template"]: [[0.9, 1, 1]]}, JOB)
    assert (told.level, told.jobs) == ("class", 20)
    assert told.ratio.q50 == pytest.approx(0.25, abs=0.01)


def test_evidence_narrows_the_interval() -> None:
    """Twenty equal observations leave far less doubt than one."""
    key = JOB.keys()["class"]
    one = known({key: [[0.25, 1.0, 0.5]]}, JOB).ratio
    many = known({key: [[0.25, 1.0, 0.5]] * 30}, JOB).ratio
    assert many.q85 - many.q10 < (one.q85 - one.q10) / 3


def test_waits_depend_on_free_cores() -> None:
    """A full queue waits longer than one with free cores, until it was seen otherwise."""
    assert history.wait({}, "alpha", "cpu", free=True).q50 < history.wait({}, "alpha", "cpu", free=False).q50
    busy = history.wait({}, "local", "small", free=False, own=True)
    assert busy.q95 <= 1800 < history.wait({}, "alpha", "cpu", free=False).q95
    seen = {place_key("alpha", "cpu", free=False): [[5.0]] * 40}
    assert history.wait(seen, "alpha", "cpu", free=False).q50 == pytest.approx(5, abs=1)


def test_a_job_pays_and_emits_for_its_share() -> None:
    """Half of a node's cores take half of its power; carbon counts the site's overhead."""
    terms = Terms(PriceModel(per_core_hour=Decimal(1)), PowerModel(idle=Watts(100), busy=Watts(300)), 1.5, 200, "EUR")
    what = Allocation(nodes=1, cores=4, gpus=0, cores_per_node=8)
    assert terms.joules(what, 3600) == pytest.approx(150 * 3600)
    assert terms.worst_joules(what, 3600) == pytest.approx(300 * 3600)
    assert terms.grams(3.6e6) == pytest.approx(300)
    assert terms.price.price(terms.usage(what, 3600, 0, 0)).micros == 4_000_000
