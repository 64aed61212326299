"""Budgets of cost and budgets in rounds, against the definition by hand."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daukit.pruning import Costs, Rule
from daukit.pruning.budgets import within_cost
from daukit.pruning.rounds import rounds_of

LAYER = st.tuples(st.lists(st.integers(0, 3), min_size=0, max_size=6), st.integers(0, 4))
"""Scores of a layer's units, with many ties, and what each costs."""


def costs_of(prices, fixed, limit, shares):
    total = fixed + sum(price * len(shares[name]) for name, price in prices.items())
    return Costs(total=total, limit=limit, whole=max(1, total), per_unit=prices, unit="multiply-adds")


@settings(deadline=None, max_examples=200)
@given(st.lists(LAYER, min_size=1, max_size=3), st.integers(0, 5), st.integers(0, 60))
def test_the_fewest_units_of_least_score_go(layers, fixed, limit):
    shares = {str(i): torch.tensor(scores, dtype=torch.float64) for i, (scores, _) in enumerate(layers)}
    prices = {str(i): price for i, (_, price) in enumerate(layers)}
    units = [(score, price) for scores, price in layers for score in scores]
    order = [i for i in sorted(range(len(units)), key=lambda i: (units[i][0], i)) if units[i][1]]
    costs = costs_of(prices, fixed, limit, shares)
    left = [costs.total - spent for spent in itertools.accumulate((units[i][1] for i in order), initial=0)]
    if left[-1] > limit:
        with pytest.raises(ValueError, match="cannot be reached: without any unit"):
            within_cost(shares, costs)
        return
    removed = next(count for count, cost in enumerate(left) if cost <= limit)
    assert within_cost(shares, costs).tolist() == [i not in order[:removed] for i in range(len(units))]


def test_an_unreachable_budget_says_the_lowest_that_is_reachable():
    shares = {"a": torch.ones(3, dtype=torch.float64)}
    costs = Costs(total=16, limit=3, whole=16, per_unit={"a": 3}, unit="multiply-adds")
    with pytest.raises(ValueError, match=r"a share of 0.1875 .* without any unit 0.4375 of them are left"):
        within_cost(shares, costs)
    assert not within_cost(shares, Costs(total=16, limit=7, whole=16, per_unit={"a": 3}, unit="")).any()


def test_rounds_keep_an_equal_share_each_and_end_with_the_budget():
    assert [rule.units for rule in rounds_of(Rule(units=125), 1000, 3)] == [500, 250, 125]
    assert [rule.units for rule in rounds_of(Rule(remove=0.875), 1000, 3)] == [500, 250, 125]
    assert [rule.units for rule in rounds_of(Rule(units=10), 1000, 1)] == [10]
    found = [rule.macs for rule in rounds_of(Rule(macs=0.3), 1000, 4)]
    assert found[-1] == 0.3 and found[:-1] == pytest.approx([0.3 ** (i / 4) for i in (1, 2, 3)])
    assert [rule.time_budget for rule in rounds_of(Rule(time_budget=0.25), 9, 2)] == [0.5, 0.25]
    seeded = rounds_of(Rule(units=5, score="random", seed=7), 10, 3)
    assert [rule.seed for rule in seeded] == [7, 8, 9] and {rule.score for rule in seeded} == {"random"}


@pytest.mark.parametrize(
    ("rule", "rounds", "error", "message"),
    [
        (Rule(0.1), 2, ValueError, "rounds lead to a budget"),
        (Rule(units=0), 2, ValueError, "no budget of 0 units"),
        (Rule(remove=1), 2, ValueError, "no budget of 0 units"),
        (Rule(macs=0), 2, ValueError, "no budget of 0"),
        (Rule(units=3), 0, ValueError, "rounds must be at least 1"),
        (Rule(units=3), 1.5, TypeError, "rounds must be a whole number"),
        (Rule(units=11), 2, ValueError, "the network has only 10"),
    ],
)
def test_what_no_rounds_lead_to_is_refused(rule, rounds, error, message):
    with pytest.raises(error, match=message):
        rounds_of(rule, 10, rounds)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"macs": 0.5, "units": 3}, ValueError, "only one of them.*macs=0.5"),
        ({"macs": 1.5}, ValueError, "macs must be within"),
        ({"time_budget": -0.1}, ValueError, "time_budget must be within"),
        ({"macs": "half"}, TypeError, "macs must be a number"),
        ({"units": 3, "score": 4}, TypeError, "name of a score"),
    ],
)
def test_a_wrong_budget_is_refused(values, error, message):
    with pytest.raises(error, match=message):
        Rule(**values)
