"""Replacements for modules whose map becomes finer: new descriptions and new tensors.

Why mode ``exact`` is exact, borders included. Let a map of size n become one of size f with factor s, so that the old
values lie at 0, s, 2s, ... A window of k taps, padding p and stride t becomes one of taps s apart, padding s * p and
stride t; only valid windows are computed. If ceil(f / s) = n, what lies outside is the same for the old map and for the
new one at those positions, and the outputs again obey ceil(f' / s) = n'. The same holds for whatever is made stride 1,
a pool or a layer: its output has factor s * t. So the rule holds from the input (f = n, s = 1) to the end, for every
input size: a row that a floor-mode pool used to drop is dropped still. The proof is in docs/rescale.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from daukit.models.effects import GLOBAL_POOLS
from daukit.models.replacing import replace_everywhere, why_kept
from daukit.models.structure import Description, build, describe
from daukit.nn import DAUConv2d
from daukit.rescale.displacements import scale_units
from daukit.rescale.modes import HeadPadding, Mode
from daukit.rescale.plan import Plan
from daukit.rescale.strided import WINDOWED, pair, pool_of

Shape = tuple[int, int, int]

_IDENTITY: Description = {"type": "Identity"}


@dataclass(frozen=True)
class Edit:
    """The replacement of one module: its full description, and those of its tensors that change, by their own names."""

    description: Description
    tensors: dict[str, Tensor] = field(default_factory=dict)


def make_edits(
    model: nn.Module,
    plan: Plan,
    removed: Collection[str],
    mode: Mode,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    head_padding: HeadPadding,
) -> dict[str, Edit]:
    """Replacements for all modules that change.

    Args:
        model: the network as it is.
        plan: the factor of every module.
        removed: names of pools to take out (``paper``) or to make stride 1 (``exact``), and of layers to make stride 1.
        mode: ``"paper"`` or ``"exact"``.
        tensors: the network's tensors.
        shapes: {module: (channels, height, width) of the map it reads}, for those in ``needs_shape``.
        head_padding: whether linear layers that become windows are padded so that they fit around every position.

    Raises:
        ValueError: a module has no exact replacement.
    """
    edits: dict[str, Edit] = {}
    for name in plan.flattens:
        _check_replaceable(name, model.get_submodule(name))
        edits[name] = Edit(_IDENTITY)
    for name, factor in plan.factors.items():
        module, is_removed = model.get_submodule(name), name in removed
        is_pool = pool_of(module) is not None
        stays = is_pool and mode == "paper" and not is_removed
        if stays or not (factor > 1 or is_removed):
            continue
        _check_replaceable(name, module)
        if is_pool and mode == "paper":
            edits[name] = Edit(_IDENTITY)
        elif is_pool:
            edits[name] = _pool(name, module, factor, is_removed=is_removed, shape=shapes.get(name))
        elif name in plan.heads:
            weight = tensors[f"{name}.weight"]
            edits[name] = _head(module, factor, weight=weight, shape=shapes[name], head_padding=head_padding)
        else:
            edits[name] = _layer(name, module, factor, mode=mode, tensors=tensors, is_removed=is_removed)
    return edits | (_gates(model, plan) if mode == "exact" else {})


def windows_of_heads(
    model: nn.Module, plan: Plan, tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape]
) -> dict[str, Edit]:
    """Replacements for linear layers and flattenings alone, as if no stride were removed: predictions of every window.

    Args:
        model: the network as it is.
        plan: tells which they are.
        tensors: the network's tensors.
        shapes: {head: (channels, height, width) of the map it reads}.
    """
    edits = {name: Edit(_IDENTITY) for name in plan.flattens}
    for name, factor in plan.factors.items():
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and factor > 1:
            edits[name] = _linear(module, 1, tensors[f"{name}.weight"], shapes.get(name, (module.in_features, 1, 1)))
    return edits


def apply_edits(network: nn.Module, tensors: Mapping[str, Tensor], edits: Mapping[str, Edit]) -> dict[str, Tensor]:
    """Put the replacements into ``network``, under all names of what they replace, and return its new tensors."""
    after = dict(tensors)
    dtype = next((t.dtype for t in after.values() if t.is_floating_point()), torch.float32)
    for name, edit in edits.items():
        for alias in replace_everywhere(network, name, build(edit.description)):
            for key, tensor in edit.tensors.items():
                is_new = f"{alias}.{key}" not in after
                after[f"{alias}.{key}"] = tensor.to(dtype) if is_new else tensor
    network.load_state_dict(after)
    return after


def needs_shape(model: nn.Module, plan: Plan, mode: Mode) -> list[str]:
    """Modules whose replacement depends on the size or the channels of the map they read."""
    kinds = (nn.Linear, nn.AvgPool2d) if mode == "exact" else (nn.Linear,)
    behind = [name for name, factor in plan.factors.items() if factor > 1 and name in plan.inputs]
    return [name for name in behind if isinstance(model.get_submodule(name), kinds)]


def head_position(heads: Iterable[Description]) -> tuple[int, int] | None:
    """The position in dense predictions of what linear layers gave, which became these ``heads``; None without any.

    Raises:
        ValueError: they hold it at different positions.
    """
    positions = {_padding_before(head) for head in heads}
    if len(positions) > 1:
        raise ValueError(
            "linear layers that read maps of different sizes would hold their answers at different positions "
            f"({' and '.join(map(str, sorted(positions)))}) with head padding 'same'; use 'valid'"
        )
    return next(iter(positions), None)


def _padding_before(conv: Description) -> tuple[int, int]:
    if conv["padding"] == "same":
        y, x = (d * (k - 1) // 2 for k, d in zip(conv["kernel_size"], conv["dilation"], strict=True))
        return y, x
    return pair(conv["padding"])


def _check_replaceable(name: str, module: nn.Module) -> None:
    reason = why_kept(module, *WINDOWED, nn.Linear, nn.Flatten, nn.Sequential, *GLOBAL_POOLS)
    if reason is not None:
        raise ValueError(f"{name!r} must change with the strides that go, and cannot be replaced: {reason}")


def _gates(model: nn.Module, plan: Plan) -> dict[str, Edit]:
    """Global pools of gates, reading only the positions that were there before."""
    if plan.gate_calls:
        raise ValueError(
            f"{plan.gate_calls[0]!r} reads a whole map for a gate, and mode exact must tell it which positions were "
            "there before; write it as a module, nn.AdaptiveAvgPool2d(1), or use mode paper"
        )
    edits = {}
    for name, factor in plan.gates.items():
        module = model.get_submodule(name)
        _check_replaceable(name, module)
        every = {
            "type": "MaxPool2d", "kernel_size": [1, 1], "stride": [factor, factor], "padding": [0, 0],
            "dilation": [1, 1], "ceil_mode": False,
        }  # fmt: skip
        edits[name] = Edit({"type": "Sequential", "modules": [every, describe(module)]})
    return edits


def _layer(
    name: str, module: nn.Module, factor: int, mode: Mode, tensors: Mapping[str, Tensor], is_removed: bool
) -> Edit:
    if isinstance(module, nn.Linear):
        return _linear(module, factor, tensors[f"{name}.weight"], (module.in_features, 1, 1))
    description = describe(module)
    assert description is not None  # every type with a window has words
    if is_removed:
        description["stride"] = [1, 1]
    if isinstance(module, DAUConv2d):
        changed, mu = scale_units(description, tensors[f"{name}.mu"], float(factor), mode)
        return Edit({**description, **changed}, {"mu": mu})
    if isinstance(module, nn.Conv2d):
        if mode == "exact" and factor > 1:
            _check_padding(name, module)
        description["dilation"] = [factor * d for d in module.dilation]
    if not isinstance(description["padding"], str):
        description["padding"] = [factor * p for p in description["padding"]]
    return Edit(description)


def _check_padding(name: str, conv: nn.Conv2d) -> None:
    if conv.padding_mode != "zeros" and conv.padding != (0, 0):
        raise ValueError(
            f"{name!r} pads by {conv.padding_mode!r}, which repeats other pixels of a finer map: it cannot be exact"
        )
    if conv.padding == "same" and any(d * (k - 1) % 2 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)):
        raise ValueError(f"{name!r} pads its even kernel by 'same', which moves it on a finer map: it cannot be exact")


def _head(module: nn.Module, factor: int, weight: Tensor, shape: Shape, head_padding: HeadPadding) -> Edit:
    """The linear layer that read a flattened map of ``shape``, as a window over that map."""
    assert isinstance(module, nn.Linear)
    edit = _linear(module, factor, weight, shape)
    if head_padding == "same":
        extent = [factor * (k - 1) for k in shape[1:]]
        # An odd sum has no equal halves, and only torch's word for it pads by different ones.
        edit.description["padding"] = "same" if any(r % 2 for r in extent) else [r // 2 for r in extent]
    return edit


def _linear(linear: nn.Linear, factor: int, weight: Tensor, shape: Shape) -> Edit:
    """The convolution that computes the layer at every position."""
    channels, *size = shape
    conv = _conv(channels, linear.out_features, size, dilation=[factor, factor], bias=linear.bias is not None)
    return Edit(conv, {"weight": weight.reshape(-1, channels, *size)})


def _pool(name: str, module: nn.Module, factor: int, is_removed: bool, shape: Shape | None) -> Edit:
    if isinstance(module, nn.AvgPool2d):
        return _average_pool(name, module, factor, is_removed=is_removed, shape=shape)
    pool = pool_of(module)
    assert isinstance(pool, nn.MaxPool2d)
    return Edit(_max_pool(module, pool, factor, is_removed))


def _max_pool(module: nn.Module, pool: nn.MaxPool2d, factor: int, is_removed: bool) -> Description:
    """The pool with taps ``factor`` apart; padding that torch's pool cannot express comes first, as -inf."""
    kernel, stride, padding, dilation = map(pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
    extent = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    before, after = list(padding), list(padding)
    if pool.ceil_mode:
        # Ceil mode adds windows that lean out, but none that starts behind the map; with this padding, floor mode does.
        after = [p + min(t - 1, r - p) for p, t, r in zip(padding, stride, extent, strict=True)]
    if isinstance(module, nn.Sequential) and isinstance(module[0], nn.ConstantPad2d):
        left, right, top, bottom = module[0].padding
        before, after = [before[0] + top, before[1] + left], [after[0] + bottom, after[1] + right]
    described: Description = {
        "type": "MaxPool2d", "kernel_size": list(kernel), "stride": [1, 1] if is_removed else list(stride),
        "padding": [factor * p for p in before], "dilation": [factor * d for d in dilation], "ceil_mode": False,
    }  # fmt: skip
    # torch's pool pads alike on both sides and, where no gradient is asked, by half its kernel whatever its dilation.
    if before == after and all(factor * p <= k // 2 for p, k in zip(before, kernel, strict=True)):
        return described
    sides = (before[1], after[1], before[0], after[0])  # left, right, top, bottom
    pad = {"type": "ConstantPad2d", "padding": [factor * p for p in sides], "value": "-inf"}
    return {"type": "Sequential", "modules": [pad, {**described, "padding": [0, 0]}]}


def _average_pool(name: str, pool: nn.AvgPool2d, factor: int, is_removed: bool, shape: Shape | None) -> Edit:
    """The pool at stride 1 or, since torch dilates no average pool, the convolution of every channel that equals it."""
    kernel, stride, padding = map(pair, (pool.kernel_size, pool.stride, pool.padding))
    if pool.ceil_mode:
        raise ValueError(f"{name!r} averages in ceil mode, where the last window divides by fewer pixels: not exact")
    if is_removed:
        stride = (1, 1)
    if factor == 1:
        return Edit({**(describe(pool) or {}), "stride": list(stride)})
    if padding != (0, 0) and not pool.count_include_pad:
        raise ValueError(f"{name!r} divides by fewer pixels at the border (count_include_pad=False): not exact")
    assert shape is not None  # needs_shape asked for it
    channels = shape[0]
    conv = _conv(
        channels, channels, kernel, stride=list(stride), padding=[factor * p for p in padding],
        dilation=[factor, factor], groups=channels, bias=False,
    )  # fmt: skip
    share = 1 / (pool.divisor_override or kernel[0] * kernel[1])
    return Edit(conv, {"weight": torch.full((channels, 1, *kernel), share)})


def _conv(in_channels: int, out_channels: int, kernel_size: Sequence[int], **options: Any) -> Description:
    return {
        "type": "Conv2d", "in_channels": in_channels, "out_channels": out_channels, "kernel_size": list(kernel_size),
        "stride": [1, 1], "padding": [0, 0], "groups": 1, "padding_mode": "zeros", **options,
    }  # fmt: skip
