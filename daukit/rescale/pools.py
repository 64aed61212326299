"""Take pools out of a trained network, or the strides of its layers, and rescale every layer behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx, nn

from daukit.checkpoint import Checkpoint, build_model, derives, from_model
from daukit.errors import in_words_of_caller
from daukit.limits import check_type, either, every, is_none, is_size, is_text, list_of
from daukit.models.graph import values_at
from daukit.models.inputs import known_input_size, noise_for
from daukit.models.structure import Description, describe
from daukit.nn import DAUConv2d
from daukit.rescale.modes import HeadPadding, Mode, check_head_padding, check_mode
from daukit.rescale.outcome import LayerChange, RescaleReport, dau_change
from daukit.rescale.plan import Plan, plan
from daukit.rescale.strided import check_pools, check_strides, pair, trace
from daukit.rescale.surgery import Edit, Shape, apply_edits, head_position, make_edits, needs_shape
from daukit.rescale.verify import examine


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

    Before it returns, the new network is run once, on noise of the input's size or, where neither the file nor
    ``input_size`` tells it, of one of 32 to 256 pixels that suits the network before; mode ``exact`` is compared with
    the network before.

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
            removed stride cannot be rescaled, or is more than its type says; the input size is needed and unknown;
            there is no head to pad; the new network cannot be run, or is not exact where it is to be.
        CheckpointError: the file does not fit its network.
    """
    check_mode(mode)
    check_head_padding(head_padding)
    check_type(names, every(is_text), "names must be a list of pools' names")
    check_type(strides, every(is_text), "strides must be a list of layers' names")
    check_type(input_size, either(is_none, list_of(2, is_size)), "input_size must be (height, width)")
    network = build_model(checkpoint, model=model)
    graph = trace(network)
    pools, strides = check_pools(network, graph, names), check_strides(network, graph, strides)
    removed = (*pools, *strides)
    steps = plan(network, graph, removed)
    if head_padding == "same" and not steps.heads:
        raise ValueError("head_padding 'same' pads linear layers that become convolutions, and here none does")
    size = input_size or known_input_size(checkpoint.header.architecture, checkpoint.header.preprocessing)
    shapes = _shapes(network, graph, steps, needs_shape(network, steps, mode), size)
    edits = make_edits(
        network, steps, removed, mode=mode, tensors=checkpoint.tensors, shapes=shapes, head_padding=head_padding
    )
    position = head_position(edits[name].description for name in steps.heads)
    before = dict(network.named_modules())
    tensors = apply_edits(network, checkpoint.tensors, edits)
    arguments: dict[str, Any] = {"mode": mode, "remove_pool": list(pools)}
    arguments |= {"remove_stride": list(strides)} if strides else {}
    arguments |= {"head_padding": head_padding} if head_padding != "valid" else {}
    derived = checkpoint.derive("rescale", arguments)
    header = replace(from_model(network).header, history=derived.header.history)
    rescaled = Checkpoint(header, tensors)
    proof = examine(checkpoint, rescaled, removed=removed, steps=steps, mode=mode, model=model, input_size=size)
    changes = [
        _change(name, factor, module=before[name], edit=edits.get(name), checkpoint=checkpoint, rescaled=rescaled)
        for name, factor in steps.factors.items()
        if name not in pools and (name in edits or isinstance(before[name], DAUConv2d | nn.Conv2d | nn.Linear))
    ]
    return rescaled, RescaleReport(
        mode,
        layers=tuple(changes),
        pools=pools,
        strides=strides,
        stopped_before=steps.stops,
        head_position=position,
        gates=(*steps.gates, *steps.gate_calls),
        proof=proof,
    )


def _shapes(
    network: nn.Module, graph: fx.Graph, steps: Plan, names: list[str], size: tuple[int, int] | None
) -> dict[str, Shape]:
    """(channels, height, width) of the map that each of these modules reads, by running the network once."""
    if not names:
        return {}
    if size is None:
        raise ValueError(
            f"to turn {', '.join(names)} into a convolution, the network's input size must be known, and the file does "
            f"not tell it; pass {in_words_of_caller('input_size=(height, width)', '--size H,W')}"
        )
    values = values_at(network, graph, {steps.inputs[name] for name in names}, noise_for(network, 1, size, 0))
    shapes = {name: values[steps.inputs[name]].shape for name in names}
    return {name: (shape[1], shape[2], shape[3]) for name, shape in shapes.items()}


def _change(
    name: str, factor: int, module: nn.Module, edit: Edit | None, checkpoint: Checkpoint, rescaled: Checkpoint
) -> LayerChange:
    old = describe(module)
    assert old is not None  # every type with a window has words
    new = old if edit is None else edit.description
    multiplied = float(factor) if edit is not None else 1.0
    if isinstance(module, DAUConv2d):
        return dau_change(
            name,
            multiplied,
            before=old,
            after=new,
            mu_before=checkpoint.layer(name).mu,
            mu_after=rescaled.layer(name).mu,
        )
    return LayerChange(
        name=name,
        type=old["type"],
        type_after=new["type"],
        factor=multiplied,
        limit_before=None,
        limit_after=None,
        displacement_before=None,
        displacement_after=None,
        dilation_before=_option(old, "dilation"),
        dilation_after=_option(new, "dilation"),
        stride_before=_option(old, "stride"),
        stride_after=_option(new, "stride"),
        clipped=0,
        beyond=0,
    )


def _option(description: Description, key: str) -> tuple[int, int]:
    """The dilation or stride that a description tells, of a padded pool the pool's; 1 where it has none."""
    if description.get("type") == "Sequential":
        description = description["modules"][-1]
    return pair(description.get(key, 1))
