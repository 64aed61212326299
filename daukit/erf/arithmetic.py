"""Where an output looks: the input position that strides, paddings and windows give, read off the autograd graph.

The graph knows every operation that led from the input to a layer, also those that are no modules, and how branches
merge; a list of modules knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

Node = Any
"""A node of torch's autograd graph; its saved values have no types."""


class Axes(NamedTuple):
    """Position ``p`` of an operation's output looks at ``scale * p + shift``, per axis (y, x)."""

    scale: tuple[float, float]
    shift: tuple[float, float]

    def __call__(self, position: tuple[float, float]) -> tuple[float, float]:
        y, x = (s * p + t for s, p, t in zip(self.scale, position, self.shift, strict=True))
        return y, x

    def after(self, first: Axes) -> Axes:
        """The two in a row: where ``first`` looks at what looks here."""
        y, x = (s * f for s, f in zip(self.scale, first.scale, strict=True))
        return Axes((y, x), self(first.shift))


_SAME = Axes((1, 1), (0, 0))


def input_position(node: Node, leaf: Tensor, position: tuple[float, float]) -> tuple[float, float] | None:
    """The position (y, x) of ``leaf`` that ``position`` of the output of ``node`` looks at.

    Branches that disagree count equally. An operation of unknown arithmetic counts where it keeps height and width.

    Args:
        node: ``grad_fn`` of the output, (N, C, h, w).
        leaf: the input, (N, C, H, W), and the graph's only leaf.
        position: (y, x) in the output.

    Returns:
        The position, or None where no known way leads from the output to the input.
    """
    axes: dict[Node, Axes | None] = {}
    stack = [node]
    while stack:  # in post-order, without recursion: graphs are deeper than Python's stack
        last = stack[-1]
        inputs = [source for source, _ in last.next_functions if source is not None]
        waiting = [source for source in inputs if source not in axes]
        if last not in axes and waiting:
            stack += waiting
            continue
        if last not in axes:
            is_leaf = getattr(last, "variable", None) is leaf
            axes[last] = _SAME if is_leaf else _merge([_through(last, i, axes[i]) for i in inputs])
        stack.pop()
    found = axes[node]
    return None if found is None else found(position)


def _merge(branches: Sequence[Axes | None]) -> Axes | None:
    known = [branch for branch in branches if branch is not None]
    if not known:
        return None
    scale, shift = ([sum(axis) / len(known) for axis in zip(*pairs, strict=True)] for pairs in zip(*known, strict=True))
    return Axes((scale[0], scale[1]), (shift[0], shift[1]))


def _through(node: Node, source: Node, before: Axes | None) -> Axes | None:
    """Where the output of ``node`` looks, by way of its input ``source``, whose own output looks as ``before`` says."""
    if before is None:
        return None
    for name, arithmetic in _ARITHMETIC.items():
        if node.name().startswith(name):
            own = arithmetic(node, source)
            return None if own is None else before.after(own)
    return before if _size(node) == _size(source) else None


def _convolution(node: Node, source: Node) -> Axes | None:
    kernel = node._saved_weight.shape[2:]
    if len(kernel) != 2:
        return None
    own = _window(kernel, node._saved_stride, node._saved_padding, node._saved_dilation)
    if not node._saved_transposed:
        return own
    y, x = (1 / scale for scale in own.scale)
    return Axes((y, x), (-own.shift[0] * y, -own.shift[1] * x))


def _max_pool(node: Node, source: Node) -> Axes:
    return _window(node._saved_kernel_size, node._saved_stride, node._saved_padding, node._saved_dilation)


def _average_pool(node: Node, source: Node) -> Axes:
    return _window(node._saved_kernel_size, node._saved_stride, node._saved_padding, (1, 1))


def _window(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Axes:
    """A window's middle; an absent stride is the window's size, as in torch's pools."""
    y, x = (d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True))
    scale = stride or kernel
    return Axes((scale[0], scale[1]), (y, x))


def _dau(node: Node, source: Node) -> Axes:
    _, stride, *_ = node.options
    return Axes((stride[0], stride[1]), (0, 0))


def _constant_pad(node: Node, source: Node) -> Axes:
    left, _, top, _ = (*node._saved_pad, 0, 0, 0, 0)[:4]
    return Axes((1, 1), (-top, -left))


def _mirror_pad(node: Node, source: Node) -> Axes:
    left, _, top, _ = node._saved_padding
    return Axes((1, 1), (-top, -left))


def _resize(node: Node, source: Node) -> Axes | None:
    """Output pixel p covers its share of the input: their middles meet, or their corners where aligned."""
    sizes = list(zip(_size(source), _size(node), strict=True))
    if getattr(node, "_saved_align_corners", False):
        y, x = ((before - 1) / max(1, after - 1) for before, after in sizes)
        return Axes((y, x), (0, 0))
    y, x = (before / after for before, after in sizes)
    return Axes((y, x), ((y - 1) / 2, (x - 1) / 2))


def _size(node: Node) -> tuple[int, ...]:
    """(height, width) of the node's output."""
    return tuple(node._input_metadata[0].shape[-2:])


_ARITHMETIC: dict[str, Callable[[Node, Node], Axes | None]] = {
    "ConvolutionBackward": _convolution,
    "MaxPool2D": _max_pool,
    "AdaptiveAvgPool2D": _resize,
    "AvgPool2D": _average_pool,
    "GeneratedBackwardFor_daukit_dau_conv2d": _dau,
    "ConstantPad": _constant_pad,
    "ReflectionPad2D": _mirror_pad,
    "ReplicationPad2D": _mirror_pad,
    "Upsample": _resize,
}
"""By the beginning of the node's name."""
