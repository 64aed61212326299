"""Effects of modules and calls on a map: each fact stands here once, as a list of the module types that it holds of.

A call counts as the module that computes the same, ``relu`` as ``nn.ReLU``, so that it makes no difference whether a
network is written with modules or with functions. The types tell what may be; ``why_not_pointwise`` and
``why_not_pointwise_call`` look at the arguments, too.
"""

from __future__ import annotations

from torch import fx, nn

from daukit.models.graph import argument, call_name, is_torch_call
from daukit.models.replacing import why_kept

Types = tuple[type[nn.Module], ...]

PER_CHANNEL: Types = (
    nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU,
    nn.Sigmoid, nn.Tanh, nn.Hardswish,
)  # fmt: skip
"""They look at one position of one channel."""
PER_POSITION: Types = (*PER_CHANNEL, nn.PReLU, nn.LocalResponseNorm)
"""They look at one position of all channels."""
GLOBAL_POOLS: Types = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
"""They look at whole maps."""
KEEPING_CONSTANTS: Types = (nn.MaxPool2d, *GLOBAL_POOLS)
"""A channel that has the same value everywhere has it behind them, too."""
KEEPING_RESOLUTION: Types = (*PER_POSITION, nn.Flatten, nn.GroupNorm, nn.InstanceNorm2d)
"""A map has as many pixels behind them as before, though they may look at all of them."""
KEEPING_CHANNELS: Types = (
    *PER_POSITION, *GLOBAL_POOLS, nn.GroupNorm, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.ZeroPad2d,
    nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample,
)  # fmt: skip
"""A map has as many channels behind them as before."""

_CALLS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU: ("relu", "relu_"),
    nn.ReLU6: ("relu6",),
    nn.LeakyReLU: ("leaky_relu", "leaky_relu_"),
    nn.ELU: ("elu", "elu_"),
    nn.GELU: ("gelu",),
    nn.SiLU: ("silu",),
    nn.Sigmoid: ("sigmoid", "sigmoid_"),
    nn.Tanh: ("tanh", "tanh_"),
    nn.Hardswish: ("hardswish",),
    nn.Dropout: ("dropout",),
    nn.Dropout2d: ("dropout2d",),
    nn.Identity: ("contiguous", "clone", "detach", "float", "double", "half", "to"),
    nn.LocalResponseNorm: ("local_response_norm",),
    nn.MaxPool2d: ("max_pool2d",),
    nn.AvgPool2d: ("avg_pool2d",),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d",),
    nn.AdaptiveMaxPool2d: ("adaptive_max_pool2d",),
    nn.ConstantPad2d: ("pad",),
    nn.Upsample: ("interpolate",),
    nn.Flatten: ("flatten",),
}
"""Functions and methods by the module that computes the same."""
_AS_MODULE = {name: kind for kind, names in _CALLS.items() for name in names}
_ARITHMETIC = (
    "add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "div", "div_", "truediv", "itruediv",
    "true_divide", "neg", "clamp",
)  # fmt: skip
_JOINING = ("cat", "concat", "concatenate")
_RANDOM: Types = (nn.Dropout, nn.Dropout2d)


def effect_of(node: fx.Node, module: nn.Module | None) -> type[nn.Module] | None:
    """The type of the module that a node calls, or of the one that computes what it calls; None where there is none."""
    if module is not None:
        return type(module)
    return _AS_MODULE.get(call_name(node)) if _is_call(node) else None


def is_arithmetic(node: fx.Node) -> bool:
    """Tell calls that compute with the values at each position alone, of one map or of several."""
    return _is_call(node) and call_name(node) in _ARITHMETIC


def is_joining(node: fx.Node) -> bool:
    """Tell calls that put maps behind each other, along whichever axis."""
    return _is_call(node) and call_name(node) in _JOINING


def keeps_zeros(node: fx.Node, module: nn.Module | None) -> bool:
    """Tell averages and borders of zeros, behind which a channel of zeros is still one."""
    kind = effect_of(node, module)
    if isinstance(module, nn.ConstantPad2d):
        return kind in (nn.ConstantPad2d, nn.ZeroPad2d) and module.value == 0
    return kind is nn.AvgPool2d


def flattens_all(node: fx.Node, module: nn.Module | None) -> bool:
    """Tell a flattening of maps (N, C, H, W) into vectors, one per image."""
    if module is not None:
        return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    ends = argument(node, 1, ("start_dim",), 0), argument(node, 2, ("end_dim",), -1)
    return effect_of(node, None) is nn.Flatten and ends == (1, -1)


def why_not_pointwise(module: nn.Module) -> str | None:
    """The reason why a module of ``PER_POSITION`` does not look at one position at a time; None where it does."""
    kept = why_kept(module, *PER_POSITION)
    if kept is not None:
        return kept
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
        return "it has no running statistics, so it normalises over the whole map"
    if isinstance(module, (nn.BatchNorm2d, *_RANDOM)) and module.training:  # a network may override train()
        return "it stays in training mode when the network does not"
    return None


def is_pointwise_call(node: fx.Node) -> bool:
    """Tell calls that look at one position of a map, if ``why_not_pointwise_call`` agrees."""
    kind = effect_of(node, None)
    if kind is None:
        return is_arithmetic(node) or is_joining(node) or (_is_call(node) and call_name(node) == "expand_as")
    return kind in PER_POSITION


def why_not_pointwise_call(node: fx.Node, is_flat: bool = False) -> str | None:
    """The reason why a call of ``is_pointwise_call`` does not look at one position at a time; None where it does.

    Args:
        node: the call.
        is_flat: whether it gets vectors (N, C), where a map is to come.
    """
    if is_joining(node):
        dim = argument(node, 1, ("dim", "axis"), 0)
        if dim not in ((0, 1) if is_flat else (0, 1, -3, -4)):
            return f"it joins maps along axis {dim}, not along their channels"
    if effect_of(node, None) in _RANDOM:
        training, share = argument(node, 2, ("training", "train"), True), argument(node, 1, ("p",), 0.5)
        if training is not False and share != 0:
            return "it drops values in eval mode too (training=True)"
    return None


def _is_call(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and is_torch_call(node)
