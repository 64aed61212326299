"""Operations without windows: element by element, reshapes, pieces, sums, products. By the dispatcher's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daukit.receptive_field.axes import Axis, merge
from daukit.receptive_field.calls import Axes, Call


def pointwise(call: Call) -> Axes:
    """Element by element, with broadcasting from the last dimension on."""
    dims = call.output.dim()
    maps = [[_shifted(axis, dims - len(shape)) for axis in axes] for _, shape, axes in call.maps]
    y, x = (merge(branches) for branches in zip(*maps, strict=True))
    for shape in call.constants:
        y, x = _beside(y, shape, dims), _beside(x, shape, dims)
    return y, x


def _shifted(axis: Axis, by: int) -> Axis:
    return axis if axis.place is None else axis.at(axis.place.dim + by)


def _beside(axis: Axis, shape: Sequence[int], dims: int) -> Axis:
    """Fixed to its place in the input where it meets a constant that varies along it, as an embedding of positions."""
    dim = -1 if axis.place is None else axis.place.dim - dims + len(shape)
    return axis.fixed() if dim >= 0 and shape[dim] > 1 else axis


def _regroup(call: Call) -> Axes:
    return call.each(lambda axis: axis.regrouped(call.shape, call.output.shape))


def _permute(call: Call) -> Axes:
    dims = len(call.shape)
    order = list(range(dims))
    if call.name == "permute":
        order = call.dims("dims")
    elif dims > 1:  # transpose, or t of a matrix
        one, other = call.arguments.get("dim0", 0) % dims, call.arguments.get("dim1", 1) % dims
        order[one], order[other] = order[other], order[one]
    return call.each(lambda axis: axis if axis.place is None else axis.at(order.index(axis.place.dim)))


def _slice(call: Call) -> Axes:
    (dim,) = call.dims("dim")
    length, start, step = call.shape[dim], call.arguments["start"] or 0, call.arguments["step"]
    start = min(max(0, start + (length if start < 0 else 0)), length)

    def rule(axis: Axis) -> Axis:
        if axis.place is None or axis.place.dim != dim:
            return axis
        if not axis.fills(call.shape):
            return axis.nowhere()
        size = call.output.shape[dim]
        return axis.window(size, step, start, start, beyond=length - 1 - start - step * (size - 1))

    return call.each(rule)


def _cut(call: Call) -> Axes:
    """Pieces along one dimension, or one position of it, which then is gone."""
    (dim,) = call.dims("dim")
    gone = len(call.shape) - call.output.dim()

    def rule(axis: Axis) -> Axis:
        if axis.place is None or axis.place.dim == dim:
            return axis.nowhere()
        return _shifted(axis, -gone if axis.place.dim > dim else 0)

    return call.each(rule)


def _join(call: Call) -> Axes:
    """``cat`` and ``stack``: several maps side by side along one dimension."""
    dims = call.output.dim()
    dim, new = call.arguments["dim"] % dims, int(call.name == "stack")

    def rule(axis: Axis) -> Axis:
        if axis.place is None or (not new and axis.place.dim == dim):
            return axis.nowhere()
        return _shifted(axis, new if axis.place.dim >= dim else 0)

    y, x = (merge([rule(axes[i]) for _, _, axes in call.maps]) for i in (0, 1))
    for shape in call.constants:
        y, x = _beside(y, shape, dims - new), _beside(x, shape, dims - new)
    return y, x


def _move(call: Call) -> Axes:
    """Elements change places along some dimensions only."""
    return _lose(call, call.dims("dims" if "dims" in call.arguments else "dim"))


def _index(call: Call) -> Axes:
    dims = [dim for dim, index in enumerate(call.arguments["indices"]) if index is not None]
    simple = len(dims) == 1 and call.output.dim() == len(call.shape)
    return _lose(call, dims) if simple else call.lost()


def _lose(call: Call, dims: Sequence[int]) -> Axes:
    return call.each(lambda axis: axis.nowhere() if axis.place is None or axis.place.dim in dims else axis)


def _reduce(call: Call) -> Axes:
    """Sums, means, norms and extremes over dimensions."""
    gone = call.dims("dim")
    keeps = call.output.dim() == len(call.shape)

    def rule(axis: Axis) -> Axis:
        if axis.place is None or axis.place.dim in gone:
            return axis.nowhere()
        return axis if keeps else _shifted(axis, -sum(dim < axis.place.dim for dim in gone))

    return call.each(rule)


def _along(call: Call) -> Axes:
    """A softmax or a cumulative sum: along its dimension every position sees every other."""
    dims = call.dims("dim")
    return call.each(lambda axis: axis.unlimited() if axis.place is not None and axis.place.dim in dims else axis)


def _layer_norm(call: Call) -> Axes:
    first = len(call.shape) - len(call.arguments["normalized_shape"])
    return call.each(lambda axis: axis.unlimited() if axis.place is not None and axis.place.dim >= first else axis)


def _group_norm(call: Call) -> Axes:
    return call.each(Axis.unlimited)


def _batch_norm(call: Call) -> Axes:
    """A factor per channel; with ``training`` (or without running statistics) the whole map decides on it."""
    return call.each(Axis.unlimited) if call.arguments.get("training", False) else call.maps[0][2]


def _product(call: Call) -> Axes:
    """Matrix products: rows of the first factor and columns of the second keep their place, the rest is summed over."""
    first, second = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2")}.get(call.name, ("self", "mat2"))
    known = {name: (shape, axes) for name, shape, axes in call.maps}
    factors = [(*known[name], summed) for name, summed in ((first, -1), (second, -2)) if name in known]

    def rule(i: int) -> Axis:
        kept = [
            axes[i].nowhere() if _dim(axes[i]) == len(shape) + summed else axes[i] for shape, axes, summed in factors
        ]
        # Where both have it, as queries and keys do, the rows stand for it, and every one of them sees all columns.
        return merge([kept[0], *(axis if kept[0].place is None else axis.nowhere() for axis in kept[1:])])

    return (rule(0), rule(1)) if factors else call.lost()


def _dim(axis: Axis) -> int | None:
    return None if axis.place is None else axis.place.dim


def _attend(call: Call) -> Axes:
    """Every query sees all keys."""
    return call.each(Axis.unlimited) if call.maps[0][0] in ("query", "src") else call.lost()


POINTWISE = frozenset(
    "hardswish native_dropout _to_copy contiguous detach alias lift_fresh rrelu_with_noise _prelu_kernel copy "
    "masked_fill hardtanh threshold fill zero expand".split()
)
"""Pointwise operations that torch does not mark as such."""

_RULES: dict[str, Callable[[Call], Axes]] = {
    "view _unsafe_view _reshape_alias unsqueeze squeeze": _regroup,
    "permute transpose t": _permute,
    "slice": _slice,
    "select split split_with_sizes unbind": _cut,
    "cat stack": _join,
    "flip roll index_select glu": _move,
    "index": _index,
    "mean sum amax amin max min var std var_mean logsumexp linalg_vector_norm prod norm argmax any all": _reduce,
    "_softmax _log_softmax cumsum cumprod": _along,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "mm addmm bmm baddbmm": _product,
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention": _attend,
    "_native_multi_head_attention _transformer_encoder_layer_fwd": _attend,
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention": _attend,
}
WINDOWLESS = {name: rule for names, rule in _RULES.items() for name in names.split()}
"""{operation: rule}."""
