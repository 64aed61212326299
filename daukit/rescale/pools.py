"""Take pools out of a trained network, or the strides of its layers, and rescale every layer behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from daukit.checkpoint import Checkpoint, build_model, derives, from_model
from daukit.errors import NetworkError
from daukit.models.factory import option_of
from daukit.models.structure import Description, build, describe, replace_module
from daukit.nn import DAUConv2d
from daukit.rescale.graph import input_channels, pair, trace, values_at
from daukit.rescale.names import check_pools, check_strides
from daukit.rescale.plan import Plan, plan
from daukit.rescale.report import (
    HeadPadding,
    LayerChange,
    Mode,
    RescaleReport,
    check_head_padding,
    check_mode,
    dau_change,
)
from daukit.rescale.surgery import Edit, Shape, head_position, make_edits, needs_shape


@derives
def remove_pools(
    checkpoint: Checkpoint,
    names: Sequence[str],
    mode: Mode = "paper",
    *,
    strides: Sequence[str] = (),
    head_padding: HeadPadding = "valid",
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
) -> tuple[Checkpoint, RescaleReport]:
    """Remove pools and strides of layers by name, and adapt every layer behind them to the finer maps.

    Mode ``paper`` takes the pools out, scales displacements, and dilates plain convolutions (sections 4.3 and 6.1).
    Mode ``exact`` keeps the pools at stride 1 and dilates every window behind them: in eval mode, at the positions that
    the network had before, it computes what it computed before. In both, layers named for their stride keep all else,
    and linear layers behind a flattening become convolutions, so that the network predicts at every position:
    (N, classes, H', W').

    Args:
        checkpoint: what to rescale, a path or a model likewise; it is not changed.
        names: pools of the network, maximum or average, of stride above 1.
        mode: ``"paper"`` or ``"exact"``.
        strides: convolutions and DAU layers of the network, of stride above 1.
        head_padding: ``"valid"``: linear heads predict where their window lies within the map, what they said before
            first; ``"same"``: at every position of the map, with their window, padded by zeros, around it.
        model: as in ``daukit.load``, for files of a network of your own.
        input_size: (height, width) of the network's input, where the file does not say; needed to turn a linear layer,
            or an average pool, into a convolution.

    Returns:
        The rescaled checkpoint and what was changed.

    Raises:
        ValueError: a name is not a pool, or not a layer that strides; the network cannot be traced; a layer behind a
            removed stride cannot be rescaled; the input size is needed and unknown; there is no head to pad.
        CheckpointError: the file does not fit its network.
    """
    check_mode(mode)
    check_head_padding(head_padding)
    network = build_model(checkpoint, model=model)
    graph = trace(network)
    pools, strides = check_pools(network, graph, names), check_strides(network, graph, strides)
    removed = (*pools, *strides)
    steps = plan(network, graph, removed)
    if head_padding == "same" and not steps.heads:
        raise ValueError("head_padding 'same' pads linear layers that become convolutions, and here none does")
    size = input_size or known_input_size(checkpoint)
    shapes = _shapes(network, graph, steps, needs_shape(network, steps, mode), size)
    edits = make_edits(network, steps, removed, mode, checkpoint.tensors, shapes, head_padding)
    position = head_position(edits[name].description for name in steps.heads)
    before = dict(network.named_modules())
    tensors = _apply(network, checkpoint, edits)
    if steps.has_joins and size is not None:
        # Branches of one spread may still differ by a row, where their pools have windows of different sizes.
        _check_joins(network, _blank(network, graph, size))
    arguments: dict[str, Any] = {"mode": mode, "remove_pool": list(pools)}
    arguments |= {"remove_stride": list(strides)} if strides else {}
    arguments |= {"head_padding": head_padding} if head_padding != "valid" else {}
    derived = checkpoint.derive("rescale", arguments)
    header = replace(from_model(network).header, history=derived.header.history)
    rescaled = Checkpoint(header, tensors)
    changes = [
        _change(name, spread, before[name], edits.get(name), checkpoint, rescaled)
        for name, spread in steps.spreads.items()
        if name not in pools and (name in edits or isinstance(before[name], DAUConv2d | nn.Conv2d | nn.Linear))
    ]
    return rescaled, RescaleReport(mode, tuple(changes), pools, strides, steps.stops, position)


def known_input_size(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """(height, width) of the input as the file tells it: by its preprocessing, or by its network's options."""
    preprocessing = checkpoint.header.preprocessing
    if preprocessing is not None:
        return preprocessing.input_size
    size = option_of(checkpoint.header.architecture, "input_size")
    return None if size is None else (size[0], size[1])


def _shapes(
    network: nn.Module, graph: fx.Graph, steps: Plan, names: list[str], size: tuple[int, int] | None
) -> dict[str, Shape]:
    """(channels, height, width) of the map that each of these modules reads, by running the network once."""
    if not names:
        return {}
    if size is None:
        raise ValueError(
            f"to turn {', '.join(names)} into a convolution, the network's input size must be known, and the file does "
            "not tell it; pass input_size=(height, width) (--size)"
        )
    image = _blank(network, graph, size)
    values = values_at(network, graph, {steps.inputs[name] for name in names}, image)
    shapes = {name: values[steps.inputs[name]].shape for name in names}
    return {name: (shape[1], shape[2], shape[3]) for name, shape in shapes.items()}


def _apply(network: nn.Module, checkpoint: Checkpoint, edits: dict[str, Edit]) -> dict[str, Tensor]:
    """Put the replacements into ``network``, tensors included; return the new file's tensors."""
    tensors = dict(checkpoint.tensors)
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    for name, edit in edits.items():
        replace_module(network, name, build(edit.description))
        for key, tensor in edit.tensors.items():
            is_new = f"{name}.{key}" not in tensors
            tensors[f"{name}.{key}"] = tensor.to(dtype) if is_new else tensor
    network.load_state_dict(tensors)
    return tensors


def _check_joins(network: nn.Module, image: Tensor) -> None:
    try:
        values_at(network, trace(network), (), image)
    except (ValueError, NetworkError) as error:
        raise ValueError(f"branches behind the removed strides no longer fit each other: {error}") from None


def _change(
    name: str, spread: int, module: nn.Module, edit: Edit | None, checkpoint: Checkpoint, rescaled: Checkpoint
) -> LayerChange:
    old = describe(module)
    assert old is not None  # every type with a window has words
    new = old if edit is None else edit.description
    factor = float(spread) if edit is not None else 1.0
    if isinstance(module, DAUConv2d):
        return dau_change(name, factor, old, new, checkpoint.layer(name).mu, rescaled.layer(name).mu)
    return LayerChange(
        name, old["type"], new["type"], factor,
        dilation_before=_option(old, "dilation"), dilation_after=_option(new, "dilation"),
        stride_before=_option(old, "stride"), stride_after=_option(new, "stride"),
    )  # fmt: skip


def _option(description: Description, key: str) -> tuple[int, int]:
    """The dilation or stride that a description tells, of a padded pool the pool's; 1 where it has none."""
    if description.get("type") == "Sequential":
        description = description["modules"][-1]
    return pair(description.get(key, 1))


def _blank(network: nn.Module, graph: fx.Graph, size: tuple[int, int]) -> Tensor:
    """One black image (1, C, H, W) of the dtype that the network computes in."""
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    return torch.zeros(1, input_channels(network, graph), *size, dtype=dtype)
