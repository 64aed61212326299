"""Displacements of DAU layers times a factor, in the file alone: no model class is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor

from daukit.checkpoint import Checkpoint, derives
from daukit.limits import check_type, is_number, is_text
from daukit.models.descriptions import LEFT_OUT, layer_faults
from daukit.models.structure import Description
from daukit.nn import scaled_options
from daukit.rescale.modes import Mode, check_mode
from daukit.rescale.outcome import LayerChange, RescaleReport, dau_change


@derives
def rescale_factors(
    checkpoint: Checkpoint, factors: Mapping[str, float], mode: Mode = "paper"
) -> tuple[Checkpoint, RescaleReport]:
    """Multiply the displacements of whole layers, each by its own factor.

    Mode ``paper`` multiplies mu, ``max_displacement`` and the recorded starting points, and widens the general form's
    window; sigma stays. Mode ``exact`` multiplies the layer's dilation, which must stay an integer. Factors that are
    powers of two undo each other bit for bit. In a layer of whole pixels settled displacements are rounded again in
    mode ``paper``; the report says how far that moved them. Whole factors do not, and mode ``exact`` never does.

    Args:
        checkpoint: what to rescale, a path or a model likewise; it is not changed.
        factors: {name of a DAU layer: factor}; other layers stay as they are.
        mode: ``"paper"`` or ``"exact"``.

    Returns:
        The rescaled checkpoint and what was changed.

    Raises:
        ValueError: a factor is not positive and finite, or gives a dilation that is no integer, or a value that no file
            can hold; the mode is unknown.
        CheckpointError: there is no such layer, or its tensors are damaged.
    """
    check_mode(mode)
    check_type(factors, lambda value: isinstance(value, Mapping), "factors must map names of DAU layers to numbers")
    for name, factor in factors.items():
        check_type(name, is_text, "factors must map names of DAU layers to numbers")
        check_type(factor, is_number, f"the factor of {name!r} must be a number")
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"the factor of {name!r} must be positive and finite, got {factor}")
        checkpoint.layer(name)
    tensors, modules = dict(checkpoint.tensors), dict(checkpoint.header.modules)
    layers: list[Description] = []
    changes: list[LayerChange] = []
    for before in checkpoint.header.layers:
        name = before["name"]
        factor, mu = float(factors.get(name, 1)), checkpoint.layer(name).mu
        changed, scaled = scale_units(before, mu, factor, mode)
        _check_readable(before, changed, factor)
        layers.append({**before, **changed})
        changes.append(dau_change(name, factor, before=before, after=layers[-1], mu_before=mu, mu_after=scaled))
        if changed:
            tensors[f"{name}.mu"] = scaled.reshape(tensors[f"{name}.mu"].shape)
            modules[name] = {"type": before["type"], **modules.get(name, {}), **changed}
    arguments = {"mode": mode, "factors": dict(factors)}
    rescaled = checkpoint.derive("rescale", arguments, modules=modules, layers=layers)
    return Checkpoint(rescaled.header, tensors), RescaleReport(mode, tuple(changes))


def scale_units(description: Description, mu: Tensor, factor: float, mode: Mode) -> tuple[Description, Tensor]:
    """The changes of a DAU layer's description by the factor, and its new mu, of the same shape and dtype."""
    if factor == 1:
        return {}, mu
    trim = _trim(description, factor)
    if mode == "exact":
        return {"dilation": [_dilation(d, factor, description) for d in description["dilation"]], **trim}, mu
    changed: Description = {"initialization": scaled_options(description["initialization"], factor), **trim}
    limit, scaled = description["max_displacement"], mu * factor
    if description.get("whole_pixels", False) and bool((mu == mu.round()).all()):
        scaled = scaled.round()  # settled displacements stay so; others go on to be rounded when they are read
    if limit is not None:
        changed["max_displacement"] = limit * factor
    # Some displacement may be over its limit: nothing but an optimiser's step enforces it.
    farthest = max(limit or 0.0, float(mu.abs().max()) if mu.numel() else 0.0)
    if not (math.isfinite(farthest * factor) and bool(scaled.isfinite().all())):
        _refuse(
            description,
            factor,
            f"a displacement of {farthest:g} px becomes {farthest * factor:g}, too far for {mu.dtype}",
        )
    if description["window"] is not None:
        changed["window"] = _window(description["window"], farthest, factor)
    return changed, scaled


def _check_readable(before: Description, changed: Description, factor: float) -> None:
    """Refuse values that the reader of files would refuse: what is written must be read again."""
    for key in (key for key in layer_faults({**before, **changed}) if key in changed):
        what, old, new = key, {**LEFT_OUT, **before}[key], changed[key]
        if isinstance(new, dict):  # of starting points only a number that the factor changed
            name = next(name for name in new if new[name] != old[name])
            what, old, new = f"{key}'s {name}", old[name], new[name]
        shown = f"{new:g}" if isinstance(new, float) else new
        _refuse(before, factor, f"{what} {old} becomes {shown}, which no daukit file can hold")


def _refuse(description: Description, factor: float, what: str) -> NoReturn:
    raise ValueError(f"layer {description['name']!r}, factor {factor:g}: {what}; choose a smaller factor")


def _dilation(dilation: int, factor: float, description: Description) -> int:
    scaled = dilation * factor
    if not scaled.is_integer():
        raise ValueError(
            f"{description['name']}: dilation {dilation} times {factor:g} is {scaled:g}, and a dilation is an integer; "
            "mode paper takes any factor"
        )
    return int(scaled)


def _trim(description: Description, factor: float) -> Description:
    """The rows and columns at the far end that have no output, as many times as far apart as displacements are."""
    trim = description.get("trim", [0, 0])
    if trim == [0, 0]:
        return {}
    scaled = [rows * factor for rows in trim]
    if not all(rows.is_integer() for rows in scaled):
        raise ValueError(
            f"{description['name']}: trim {trim} times {factor:g} is {scaled}, and only whole rows and columns can be "
            "left out; choose a factor that keeps them whole"
        )
    return {"trim": [int(rows) for rows in scaled]}


def _window(window: int, farthest: float, factor: float) -> int:
    """An odd window that leaves the same margin around the scaled displacements as there was around the old ones."""
    margin = max(0.0, window // 2 - farthest)
    return 2 * math.ceil(farthest * factor + margin) + 1
