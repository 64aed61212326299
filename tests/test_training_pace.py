"""Words on displacements that are frozen in effect, or thrown about: when they are said, and what they say."""

import pytest

from daukit.training import EpochResult, TrainingOptions
from daukit.training.moves import Moves, UnitMoves
from daukit.training.pace import remarks

CONSTANT = {"epochs": 10, "schedule": "constant", "mu_lr_factor": 500.0}


def epochs(*layers):
    """The results of epochs whose layers came to these (mean, share at the limit, mean within the epoch)."""
    results = []
    for number, each in enumerate(layers, 1):
        units = {name: UnitMoves(mean, 0.0, limit, epoch) for name, (mean, limit, epoch) in each.items()}
        moves = Moves(*vars(next(iter(units.values()))).values(), layers=units)
        results.append(EpochResult(number, 0.1, 1.0, 1.0, 0.5, 1.0, "accuracy", moves))
    return results


def said(results, steps=100, is_new=True, **options):
    """{epoch: what is said after it}."""
    chosen = TrainingOptions(**options)
    told = {r.epoch: remarks(results[: r.epoch], chosen, steps, is_new=is_new) for r in results}
    return {epoch: words for epoch, words in told.items() if words}


def steady(speed, count=10):
    return epochs(*({"a": (speed * n, 0.0, speed)} for n in range(1, count + 1)))


def test_units_that_will_not_have_moved_a_tenth_of_a_pixel_are_frozen_in_effect_and_it_is_said_once():
    assert said(steady(0.0101), **CONSTANT) == {}
    assert said(steady(0.0099), **CONSTANT) == {
        1: [
            "displacements of a are frozen in effect: on average they moved by 0.0099 px in 1 of 10 epochs, "
            "which makes 0.099 px by the end; raise mu_lr_factor (now 500), or leave it out to move units by Adam"
        ]
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mu_lr": 0.01}, "raise mu_lr (now 0.01)"),
        ({"optimizer": "adam", "mu_lr": 0.01}, "raise mu_lr (now 0.01)"),
        ({"mu_lr_factor": "auto"}, "raise mu_lr_factor (now auto), or leave it out to move units by Adam"),
        ({}, "raise mu_lr (now auto, 0.05)"),  # noise takes units a pixel astray in 400 such steps
    ],
)
def test_advice_names_the_rate_that_is_used(options, words):
    assert said(steady(0.0099, 4), epochs=4, schedule="constant", **options)[1][0].endswith(words)


def test_the_pace_follows_the_schedule():
    # Of ten epochs, seven at the first rate and three at a tenth of it: 7 / 7.3 of the way is done after seven.
    options = {"epochs": 10, "schedule": "step", "milestones": (7,), "gamma": 0.1}
    places = [0.1 * min(n, 7) / 7.3 + 0.1 * max(n - 7, 0) / 73 for n in range(1, 11)]
    for factor, words in ((1.01, 0), (0.99, 1)):
        results = epochs(*({"a": (factor * place, 0.0, 0.0)} for place in places))
        assert len(said(results, **options)) == words
    # A quarter of a square of the way is left after half of a line to zero.
    results = epochs({"a": (0.0751, 0.0, 0.07)}, {"a": (0.0999, 0.0, 0.03)})
    assert list(said(results, epochs=2, schedule="poly", power=1.0)) == [2]


def test_the_end_of_a_training_is_judged_and_too_few_steps_are_not():
    slowing = epochs({"a": (0.06, 0.0, 0.06)}, {"a": (0.07, 0.0, 0.01)})
    told = said(slowing, epochs=2, schedule="constant")
    assert list(told) == [2] and "moved by 0.07 px in 2 epochs; raise" in told[2][0]
    assert said(steady(0.001, 4), steps=20, epochs=4, schedule="constant") == {}
    assert list(said(steady(0.001, 5), steps=20, epochs=5, schedule="constant")) == [5]
    assert list(said(steady(0.001, 30), steps=100, epochs=30, schedule="constant")) == [3]  # a tenth of it


def test_only_layers_that_stand_still_are_named():
    layers = {name: (0.001 * i, 0.0, 0.0) for i, name in enumerate("abcde")} | {"f": (0.5, 0.0, 0.5)}
    (words,) = said(epochs(layers), **CONSTANT)[1]
    assert "displacements of a, b, c and 2 more are frozen" in words and "at most 0.004 px in" in words
    del layers["a"], layers["e"]
    assert "displacements of b, c and d are" in said(epochs(layers), **CONSTANT)[1][0]


def test_many_units_at_their_limit_are_thrown_there():
    assert said(epochs({"a": (2.0, 0.1, 0.5)}), **CONSTANT) == {}
    results = epochs({"a": (2.0, 0.05, 0.5)}, *(5 * [{"a": (2.0, 0.14, 0.5)}]))
    assert said(results, **CONSTANT) == {
        2: [
            "units of a are thrown to their limits: 14% of a layer's lie at max_displacement after 2 of 10 epochs; "
            "lower mu_lr_factor (now 500), or leave it out to move units by Adam, or give the layer a "
            "larger max_displacement"
        ]
    }


def test_units_that_move_far_in_every_epoch_and_get_nowhere_are_thrown_about():
    wandering = epochs(*(10 * [{"a": (1.5, 0.0, 1.2)}]))
    assert said(wandering, **CONSTANT) == {
        6: [
            "units of a are thrown about: on average 1.2 px within epoch 6, and only 1.5 px since the start; "
            "lower mu_lr_factor (now 500), or leave it out to move units by Adam"
        ]
    }
    assert list(said(wandering, is_new=False, **CONSTANT)) == [6]
    assert said(steady(1.2), **CONSTANT) == {}  # far, and to somewhere
    assert said(epochs(*(10 * [{"a": (1.5, 0.0, 0.99)}])), **CONSTANT) == {}
    assert said(epochs({"a": (1.5, 0.0, 1.5)}), epochs=1) == {}


def test_nothing_is_said_of_displacements_that_shall_not_move():
    still = steady(0.0)
    assert said(still, **CONSTANT | {"mu_lr_factor": 0.0}) == said(still, epochs=10, mu_lr=0.0) == {}
    assert said(still, **CONSTANT, is_new=False) == {}
    assert said(epochs(*(10 * [{"a": (1.0, 0.5, 0.0)}])), **CONSTANT, is_new=False) == {}
    old = EpochResult(1, 0.1, 1.0, 1.0, 0.5, 1.0, "accuracy")
    assert said([old, *still[1:]], **CONSTANT) == {} and said([old], **CONSTANT) == {}


@pytest.mark.parametrize(("speed", "told"), [(0.0, [1]), (0.02, [1]), (0.026, [])])
def test_displacements_that_become_whole_have_to_move_before(speed, told):
    assert list(said(steady(speed), **CONSTANT, snap_at=0.4)) == told
    assert said(epochs(*(10 * [{"a": (0.4, 0.5, 2.0)}])), **CONSTANT, snap_at=0.05) == {}
