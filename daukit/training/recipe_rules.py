"""The keys of a recipe, and what the value of each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from daukit.datasets.layouts import LAYOUTS
from daukit.limits import (
    MAX_SIZE,
    Check,
    every,
    in_short,
    is_flag,
    is_object,
    is_size,
    is_text,
    is_whole,
    list_of,
    number,
    one_of,
    whole,
)
from daukit.models import MODELS
from daukit.models.arguments import check_options
from daukit.models.factory import accepted_options, options_of
from daukit.models.specs import is_factory
from daukit.texts import did_you_mean
from daukit.training.options import Optimizer, Precision, Schedule
from daukit.transforms import Part

Rule = tuple[Check, str]
_TEXT: Rule = (is_text, "a text")
_POSITIVE: Rule = (number(0), "a number of at least 0")
_RATE: Rule = (lambda value: value == "auto" or number(0)(value), 'a number of at least 0, or "auto"')
_COUNT: Rule = (whole(1, MAX_SIZE), "a whole number of at least 1")


def _choice(values: Sequence[str]) -> Rule:
    return one_of(*values), f"{', '.join(values[:-1])} or {values[-1]}"


TRAINING: dict[str, Rule] = {
    "epochs": (whole(1, 1_000_000), "a whole number from 1 to 1,000,000"),
    "batch_size": _COUNT,
    "optimizer": _choice(get_args(Optimizer)),
    "lr": _POSITIVE,
    "momentum": _POSITIVE,
    "betas": (list_of(2, number(0, 1)), "a list of two numbers of at least 0 and below 1"),
    "weight_decay": _POSITIVE,
    "mu_lr_factor": _RATE,
    "mu_lr": _RATE,
    "schedule": _choice(get_args(Schedule)),
    "milestones": (every(whole(1, 1_000_000)), "a list of epochs, counted from 1"),
    "gamma": _POSITIVE,
    "power": _POSITIVE,
    "mu_power": _POSITIVE,
    "warm_up": _POSITIVE,
    "clip_norm": (number(0), "a number above 0"),
    "accumulate": _COUNT,
    "precision": _choice(get_args(Precision)),
    "ema": (number(0, 1), "a number of at least 0 and below 1"),
    "sync_batch_norm": (is_flag, "true or false"),
    "seed": (is_whole, "a whole number"),
    "snap_at": (number(0, 1), "a share of the steps, of at least 0 and below 1"),
}
"""Options of ``TrainingOptions`` that say how the network learns."""

CHANGES: dict[str, Rule] = {
    "mirror": (is_flag, "true or false"),
    "shift": (whole(0, MAX_SIZE), "a whole number of at least 0"),
    "part": _choice(get_args(Part)),
}
"""Those that say how images change."""

_SIZE: Rule = (list_of(2, is_size), "a list of a height and a width of at least 1")
_SCALE: Rule = (list_of(2, number(1e-3, 100)), "a list of two numbers above 0, of at most 100")
KEYS: dict[str, dict[str, Rule]] = {
    "about": dict.fromkeys(("title", "data", "table", "section", "prints"), _TEXT),
    "network": {"model": _TEXT, "from": _TEXT, "options": (is_object, "a table")},
    "data": {"layout": _choice(LAYOUTS), **CHANGES, "crop": _SIZE, "scale": _SCALE},
    "training": TRAINING,
}
"""The tables of a recipe and their keys."""


def check_options_of_training(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check options of a training by name.

    Raises:
        ValueError: there is no such option, or it has a wrong value.
    """
    for name, value in values.items():
        if name not in rules:
            raise ValueError(f"there is no option {name!r}{did_you_mean(name, rules)} (options: {', '.join(rules)})")
        rule, what = rules[name]
        if not rule(value):
            raise ValueError(f"{name} must be {what}, got {in_short(value)}")


def faults(tables: Mapping[str, Any]) -> list[str]:
    """One sentence for every key of a recipe that is none, or has a wrong value; the first word is about the key."""
    found = []
    for name, table in tables.items():
        if name not in KEYS:
            found.append(f"there is no table [{name}]{_hint(name, KEYS)} (tables: {', '.join(KEYS)})")
        elif not isinstance(table, dict):
            found.append(f"{name} must be a table, got {in_short(table)}")
        else:
            found += [fault for key, value in table.items() if (fault := _fault(name, key, value))]
    network = tables.get("network")
    if not found and isinstance(network, dict):
        found += _faults_of_network(network.get("model"), network.get("options", {}))
    return found


def _fault(table: str, key: str, value: object) -> str | None:
    known = KEYS[table]
    if key not in known:
        others = [f"{other}.{key}" for other, keys in KEYS.items() if key in keys]
        hint = f"; did you mean {others[0]!r}?" if others else _hint(key, known, f"{table}.")
        return f"there is no key {table}.{key}{hint}"
    rule, what = known[key]
    return None if rule(value) else f"{table}.{key} must be {what}, got {in_short(value)}"


def _faults_of_network(model: str | None, options: Mapping[str, Any]) -> list[str]:
    if model is None:
        return ["network.options needs network.model, the network that takes them"] if options else []
    if is_factory(model):
        return [f"network.model {model!r} names code, and a file may not choose what code runs; name it with --model"]
    if model not in MODELS:
        return [f"network.model must be one of daukit's networks, got {model!r}{did_you_mean(model, MODELS)}"]
    known = accepted_options(model, options)
    found = [
        f"there is no key network.options.{key}{_hint(key, options_of(model), 'network.options.')} "
        f"({model} has {', '.join(options_of(model))})"
        for key in options
        if key not in known
    ]
    try:
        check_options(model, known)
    except TypeError as error:
        found.append(f"network.{str(error).replace('option ', 'options.', 1)}")
    return found


def _hint(key: str, known: Mapping[str, Any] | Sequence[str], where: str = "") -> str:
    """A hint at the key that comes nearest, with the table that it is in."""
    return did_you_mean(key, known).replace("mean '", f"mean '{where}")
