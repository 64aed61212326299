"""Descriptions of modules: the types that have one, its keys, and the values that each key may have."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from daukit.limits import (
    MAX_SIZE,
    MAX_UNITS,
    Check,
    either,
    is_channels,
    is_features,
    is_flag,
    is_limit,
    is_none,
    is_odd_size,
    is_sigma,
    is_size,
    is_text,
    is_units,
    list_of,
    number,
    one_of,
    whole,
)
from daukit.nn import INITIALIZER_OPTIONS, DAUConv2d, DAULinear

Description = dict[str, Any]


def _is_initialization(value: object) -> bool:
    """A known initialiser with all its options; a grid has some points, and not more than any layer could start on."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or name not in INITIALIZER_OPTIONS:
        return False
    numbers = {key: option for key, option in value.items() if key != "name"}
    if set(numbers) != INITIALIZER_OPTIONS[name] or not all(map(number(), numbers.values())):
        return False
    points = [numbers[key] for key in ("rows", "columns") if key in numbers]
    return all(map(is_units, points)) and math.prod(points) <= MAX_UNITS


_is_padding = whole(0, MAX_SIZE)
_are_sizes = either(is_size, list_of(2, is_size))
_are_output_sizes = either(is_none, is_size, list_of(2, either(is_none, is_size)))
_are_paddings = either(_is_padding, list_of(2, _is_padding))
_are_margins = either(whole(-MAX_SIZE, MAX_SIZE), list_of(4, whole(-MAX_SIZE, MAX_SIZE)))
_is_dimension = whole(-8, 8)

_POOL: dict[str, Check] = {"kernel_size": _are_sizes, "stride": _are_sizes, "padding": _are_paddings}

_RULES: dict[type[nn.Module], dict[str, Check]] = {
    DAUConv2d: {
        "in_channels": is_channels,
        "out_channels": is_channels,
        "units": is_units,
        "max_displacement": is_limit,
        "sigma": either(is_none, is_sigma, number(0, 0)),
        "learn_sigma": is_flag,
        "form": one_of("bilinear", "gaussian"),
        "window": either(is_none, is_odd_size),
        "stride": list_of(2, is_size),
        "dilation": list_of(2, is_size),
        "groups": is_channels,
        "bias": is_flag,
        "initialization": _is_initialization,
        "mu_gradient": one_of("gaussian", "exact"),
        "ragged": is_flag,
        "whole_pixels": is_flag,
        "trim": list_of(2, _is_padding),
    },
    nn.Conv2d: {
        "in_channels": is_channels,
        "out_channels": is_channels,
        "kernel_size": _are_sizes,
        "stride": _are_sizes,
        "padding": either(_are_paddings, one_of("same", "valid")),
        "dilation": _are_sizes,
        "groups": is_channels,
        "bias": is_flag,
        "padding_mode": one_of("zeros", "reflect", "replicate", "circular"),
    },
    nn.Linear: {"in_features": is_features, "out_features": is_features, "bias": is_flag},
    DAULinear: {"in_features": is_channels, "out_features": is_channels},
    nn.MaxPool2d: {**_POOL, "dilation": _are_sizes, "return_indices": is_flag, "ceil_mode": is_flag},
    nn.AvgPool2d: {
        **_POOL,
        "ceil_mode": is_flag,
        "count_include_pad": is_flag,
        "divisor_override": either(is_none, whole(1, MAX_SIZE**2)),
    },
    nn.AdaptiveAvgPool2d: {"output_size": _are_output_sizes},
    nn.AdaptiveMaxPool2d: {"output_size": _are_output_sizes, "return_indices": is_flag},
    nn.ConstantPad2d: {"padding": _are_margins, "value": either(number(-math.inf, math.inf), one_of("inf", "-inf"))},
    nn.ZeroPad2d: {"padding": _are_margins},
    nn.BatchNorm2d: {
        "num_features": is_channels,
        "eps": number(),
        "momentum": either(is_none, number()),
        "affine": is_flag,
        "track_running_stats": is_flag,
    },
    nn.Flatten: {"start_dim": _is_dimension, "end_dim": _is_dimension},
    nn.Identity: {},
}

TYPES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _RULES}
"""Module types that have a description, by name; beside them, ``Sequential`` holds a list of descriptions."""

KEYS: dict[str, tuple[str, ...]] = {kind.__name__: tuple(rules) for kind, rules in _RULES.items()}
"""The keys of each."""

LEFT_OUT: Description = {"whole_pixels": False, "trim": [0, 0]}
"""Keys of a DAU layer that a description leaves out where they have these values."""

LAYER_KEYS = {"name", "type", *KEYS["DAUConv2d"]}
"""The keys of a DAU layer in a file."""


def module_faults(description: object) -> list[str]:
    """Faults in the description of a module, which may leave out what did not change: keys, or reasons."""
    if not isinstance(description, dict) or not isinstance(description.get("type"), str):
        return ["type"]
    name = description["type"]
    if name == "Sequential":
        modules = description.get("modules")
        if set(description) != {"type", "modules"} or not isinstance(modules, list):
            return ["modules"]
        return [f"modules[{i}].{fault}" for i, child in enumerate(modules) for fault in module_faults(child)]
    if name not in TYPES:
        return [f"type (known are {', '.join(sorted([*TYPES, 'Sequential']))})"]
    rules = _RULES[TYPES[name]]
    return [key for key, value in description.items() if key != "type" and not (key in rules and rules[key](value))]


def layer_faults(description: object) -> list[str]:
    """Faults in the description of a DAU layer, which must say everything: keys, or reasons."""
    if not isinstance(description, dict):
        return ["everything"]
    rules = {"name": is_text, "type": one_of("DAUConv2d"), **_RULES[DAUConv2d]}
    description = {**LEFT_OUT, **description}
    faults = [key for key, rule in rules.items() if key not in description or not rule(description[key])]
    if faults:
        return faults
    if description["whole_pixels"] and description["form"] == "gaussian":
        return ["whole_pixels (the general form has no pixels to read at)"]
    if description["sigma"] == 0 and not description["whole_pixels"]:
        return ["sigma (0, no blur, goes with whole_pixels)"]
    if any(description[key] % description["groups"] for key in ("in_channels", "out_channels")):
        return ["groups (they must divide in_channels and out_channels)"]
    if description["form"] == "gaussian" and description["trim"] != [0, 0]:
        return ["trim (the general form has none)"]
    learned = description["form"] == "gaussian" or description["learn_sigma"]
    return ["sigma (null where it is learned, a number elsewhere)"] if learned != (description["sigma"] is None) else []
