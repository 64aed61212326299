"""Prepare a network: a copy of it for inference alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.fusion import fuse_conv_bn_eval

from daukit.baking import bake
from daukit.models.graph import module_of
from daukit.models.replacing import replace_everywhere, why_kept
from daukit.models.running import copy_of
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.nn.wrappers import unwrapped
from daukit.preparation.fusion import Fusion, find_fusions, graph_of
from daukit.preparation.layer import NO_TRAINING, PreparedDAUConv2d
from daukit.preparation.report import PreparationReport, PreparedLayer
from daukit.preparation.shared import join_layers


class PreparedNetwork(nn.Module):
    """A network for inference alone, as ``prepare`` makes it; it is called as the network that it was made of.

    It has no parameters: its tensors are buffers. It can be copied, pickled and moved.

    Attributes:
        network: what computes.
        report: what was prepared, and what was not.

    Raises:
        RuntimeError: it is to be trained, or to load a state dict.
    """

    def __init__(self, network: nn.Module, report: PreparationReport) -> None:
        super().__init__()
        self.network, self.report, self.training = network, report, False

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return what the network returns, for any arguments that it takes."""
        return self.network(*inputs, **named)

    def train(self, mode: bool = True) -> PreparedNetwork:
        """Stay in eval mode; anything else is an error."""
        if mode:
            raise RuntimeError(NO_TRAINING)
        return super().train(False)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: lists are made of the tensors that the network has."""
        raise RuntimeError(
            "a prepared network loads no state dict; load it into the network that it was made of, and prepare that "
            "one again"
        )


@torch.inference_mode(False)
@torch.no_grad()
def prepare(model: nn.Module) -> PreparedNetwork:
    """A copy of ``model`` for inference alone, which works out once what every forward would work out again.

    A DAU layer keeps lists of its units for every size of input that it has met. A batch norm that alone reads a DAU
    layer or a convolution is folded into its weights, and a DAU layer applies the ReLU behind it at once. DAU layers
    that read the same map in the same way run as one. Layers of the general form become the convolutions that they are.
    ``model`` itself does not change, nor does its copy when ``model`` is trained. A compiled, averaged or parallel
    model is unwrapped.

    Returns:
        The copy, in eval mode; ``report`` says what was done. Where the network cannot be traced by ``torch.fx``, its
        DAU layers are prepared, but nothing is fused.

    Raises:
        TypeError: ``model`` is no ``torch.nn.Module``.
        ValueError: it has parameters whose size is not known yet.

    Example:
        >>> network = nn.Sequential(DAUConv2d(3, 8, units=2), nn.BatchNorm2d(8), nn.ReLU())
        >>> prepare(network)(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """
    model = unwrapped(model, "prepare")
    if isinstance(model, PreparedNetwork):
        return copy_of(model)  # type: ignore[return-value]  # a copy is of the same type
    if any(map(is_lazy, model.parameters())):
        raise ValueError("the model has lazy parameters, whose size is not known yet; run it once before preparing it")
    if isinstance(model, DAUConv2d):
        model = nn.Sequential(model)  # so that it can be replaced
    prepared, graph, fusions, unfused = _copy(model), None, list[Fusion](), None
    try:
        graph = graph_of(prepared)
        fusions = find_fusions(prepared, graph)
    except ValueError as error:
        prepared, graph, unfused = _copy(model), None, str(error)  # tracing may have changed the first copy
    layers, kept = _replace(prepared, fusions)
    if graph is not None:
        groups = join_layers(prepared, _without_fused(graph, fusions))
        layers = _noting(layers, groups)
        if fusions or groups:
            prepared = fx.GraphModule(prepared, graph, type(model).__name__)
    _freeze(prepared)
    return PreparedNetwork(prepared, PreparationReport(tuple(layers), kept, unfused))


def _copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode, also of layers that a network holds in training."""
    prepared = copy_of(model).eval()
    for layer in dau_layers(prepared).values():
        layer.eval()
    return prepared


def _replace(network: nn.Module, fusions: list[Fusion]) -> tuple[list[PreparedLayer], dict[str, str]]:
    """Put prepared layers in place; return what was replaced, and what was not and why."""
    by_module = {network.get_submodule(str(fusion.call.target)): fusion for fusion in fusions}
    layers, kept = [], {}
    for name, module in list(network.named_modules()):
        if not isinstance(module, DAUConv2d) and not (isinstance(module, nn.Conv2d) and module in by_module):
            continue
        reason = why_kept(module, DAUConv2d, nn.Conv2d)
        if reason is not None:
            kept[name] = reason
            continue
        _, norm, relu = by_module.get(module, (None, None, None))
        folded = None if norm is None else module_of(network, norm)
        replace_everywhere(network, name, _prepared(module, folded, relu is not None))
        norm_name = None if norm is None else str(norm.target)
        layers.append(PreparedLayer(name, type(module).__name__, norm_name, relu is not None))
    return layers, kept


def _prepared(layer: DAUConv2d | nn.Conv2d, norm: nn.Module | None, relu: bool) -> nn.Module:
    assert norm is None or isinstance(norm, nn.BatchNorm2d)
    if isinstance(layer, DAUConv2d) and layer.form == "bilinear":
        return PreparedDAUConv2d(layer, norm, relu)
    plain = bake(layer) if isinstance(layer, DAUConv2d) else layer
    if norm is None:
        return plain
    assert isinstance(plain, nn.Conv2d)
    return fuse_conv_bn_eval(plain, norm)


def _without_fused(graph: fx.Graph, fusions: list[Fusion]) -> fx.Graph:
    """The graph without what was fused; a call is read where the last of them was."""
    for call, norm, relu in fusions:
        for node in (norm, relu):
            if node is not None:
                node.replace_all_uses_with(call)
                graph.erase_node(node)
    return graph


def _noting(layers: list[PreparedLayer], groups: list[tuple[str, ...]]) -> list[PreparedLayer]:
    """The report's layers, with the first of those that each runs with as one."""
    first = {name: names[0] for names in groups for name in names}
    return [replace(layer, joined=first.get(layer.name)) for layer in layers]


def _freeze(network: nn.Module) -> None:
    """Make buffers of all parameters. Those that a module holds elsewhere too, as an LSTM does, ask for no gradient."""
    network.requires_grad_(False)
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                del module._parameters[name]
                module.register_buffer(name, parameter.detach())
