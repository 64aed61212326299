"""The recipe that ``daukit train`` follows: a file's, with what the command line says in the place of its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from daukit.cli import options

if TYPE_CHECKING:
    from daukit.training import Recipe, TrainingOptions

DEFAULT = "shallow-dau"
"""The recipe of a training that names none; the options of ``daukit train`` show its values."""
AUTO = "auto"
SNAP_AT = 0.25
"""Share of the steps after which displacements are rounded by default, the best of examples/whole-pixels/study.py."""


def read_base(source: str | None, settings: Sequence[str] | None, *, is_new: bool) -> Recipe:
    """The recipe of ``--recipe`` with the values of ``--set``; without one, daukit's own.

    Args:
        source: the name of a recipe, or a file.
        settings: of ``--set``.
        is_new: no checkpoint names the network.
    """
    from daukit.training import read_recipe
    from daukit.training.recipe import About

    with options.usage_of("--recipe"):
        recipe = read_recipe(DEFAULT if source is None else source)
    if source is None:
        network: dict[str, Any] = {} if is_new else {"model": None, "config": {}}
        recipe = replace(recipe, name=None, about=About(), **network)
    with options.usage_of("--set"):
        return recipe.with_values(dict(map(_setting, settings or ())))


def with_options(
    recipe: Recipe, plain: Mapping[str, Any], *, crop_size: str | None, scale: str | None, layout: Any
) -> Recipe:
    """The recipe with the plain options that the command line gives; one that does nothing is a usage error.

    Args:
        recipe: from ``read_base``.
        plain: values of ``TrainingOptions`` by name, given or not.
        crop_size: text of ``--crop-size``.
        scale: text of ``--scale``.
        layout: of ``--layout``.
    """
    given = {name: value for name, value in plain.items() if options.is_given(name)}
    given |= {key: _numbers(given[key], f"--{key}", kind) for key, kind in _LISTS.items() if key in given}
    given |= {key: _rate(given[key], f"--{key.replace('_', '-')}") for key in ("mu_lr", "mu_lr_factor") if key in given}
    if min(given.get("milestones", ()), default=1) < 1:
        raise typer.BadParameter("epochs are counted from 1", param_hint="--milestones")
    with _usage_of_named():
        chosen = replace(recipe.options, **given)
    _refuse_idle(chosen, is_ours=recipe.name is None)
    crop = None if crop_size is None else options.parse_size(crop_size, "--crop-size")
    data = {"crop": crop, "scale": _scale(scale), "layout": layout}
    return replace(recipe, options=chosen, **{key: value for key, value in data.items() if value is not None})


def with_whole_pixels(recipe: Recipe, whole_pixels: bool, snap_at: float) -> Recipe:
    """The recipe with the share of the steps after which displacements are rounded."""
    share = recipe.options.snap_at
    if not whole_pixels and share is None:
        options.refuse_unused("without --whole-pixels nothing is rounded; drop it", "--snap-at")
        return recipe
    with _usage_of_named():
        chosen = snap_at if share is None or options.is_given("snap_at") else share
        return replace(recipe, options=replace(recipe.options, snap_at=chosen))


def with_network(recipe: Recipe, model: str | None, config: Mapping[str, Any]) -> Recipe:
    """The recipe with the network, or the options of one, that the command line names."""
    if model is not None and model != recipe.model:
        return replace(recipe, model=model, config=dict(config))
    return replace(recipe, config={**recipe.config, **config})


def network_options(
    channels: str | None, units: str | None, sigma: float | None, learn_sigma: str | None
) -> dict[str, Any]:
    """The options of a new network that have names of their own, those that are given."""
    listed = None if channels is None else list(_numbers(channels, "--channels", int))
    counts = None if units is None else list(_numbers(units, "--units", int))
    if counts is not None and min(counts) < 1:
        raise typer.BadParameter(f"there must be at least one unit, got {units}", param_hint="--units")
    unit = counts[0] if counts is not None and len(counts) == 1 else counts
    named = {"channels": listed, "units": unit, "sigma": sigma, "learn_sigma": learn_sigma}
    return {key: value for key, value in named.items() if value is not None}


_LISTS: dict[str, type[Any]] = {"betas": float, "milestones": int}
_EXAMPLES = {"--betas": "two numbers like 0.9,0.999", "--units": "a number, or a list of them like 8,3,3"}


def _setting(text: str) -> tuple[str, Any]:
    """A key and its value: as TOML has it, or a text; none takes the key out."""
    from daukit.training import parse_value

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key.strip(), parse_value(value.strip()) if value.strip() else None


def _refuse_idle(chosen: TrainingOptions, *, is_ours: bool) -> None:
    """Make it a usage error to give options of another optimiser or schedule."""
    optimizer, schedule = chosen.optimizer, chosen.schedule
    of_optimizer, of_schedule = ("--optimizer", "--schedule") if is_ours else ("the optimizer", "the schedule")
    if optimizer != "sgd":
        options.refuse_unused(f"{of_optimizer} {optimizer} has none; drop it", "--momentum", "--mu-lr-factor")
    elif not chosen.moves_by_adam:
        others = "--mu-lr-factor" if is_ours else "the recipe's mu_lr_factor"
        way_out = "drop it" if options.is_given("mu_lr_factor") else "drop it, or pass --set training.mu_lr_factor="
        options.refuse_unused(f"with {others} nothing learns by Adam; {way_out}", "--betas", "--mu-lr")
    if schedule != "step":
        options.refuse_unused(f"{of_schedule} {schedule} has no steps; drop it", "--milestones", "--gamma")
    if schedule != "poly":
        options.refuse_unused(f"{of_schedule} {schedule} has no power; drop it", "--power", "--mu-power")


@contextmanager
def _usage_of_named() -> Iterator[None]:
    """Make an error whose first word is the name of an argument a usage error of its option."""
    try:
        yield
    except ValueError as error:
        name = str(error).split()[0].replace("_", "-")
        raise typer.BadParameter(str(error), param_hint=f"--{name}") from None


def _numbers(text: str, option: str, kind: type[Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = _EXAMPLES.get(option, "a list of integers like 96,96,192")
        raise typer.BadParameter(f"{text!r} is not {what}", param_hint=option) from None


def _rate(text: str, option: str) -> float | str:
    """A rate of displacements: a number, or ``auto``."""
    if text == AUTO:
        return text
    try:
        rate = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, nor {AUTO}", param_hint=option) from None
    options.refuse_wild_number(rate, option)
    if rate < 0:
        raise typer.BadParameter(f"must be at least 0, got {text}", param_hint=option)
    return rate


def _scale(text: str | None) -> tuple[float, float] | None:
    """Two numbers with a comma between them."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not two numbers with a comma between", param_hint="--scale") from None
    return low, high
