"""A DAU layer for inference alone: it keeps lists of its units, made once for every size of input."""

from __future__ import annotations

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from daukit.nn import DAUConv2d, unit_pointers
from daukit.nn.trimming import trimmed
from daukit.ops import MAX_LIMIT
from daukit.ops.checks import check_shapes, check_tensors
from daukit.ops.geometry import DEFAULT_LIMIT, Geometry
from daukit.ops.kernels import SIGMA_BOUNDS, blur_radius
from daukit.ops.plans import Plan
from daukit.ops.units import pair_of_units

SIZES_KEPT = 4
"""Sizes of input (batch, height, width) for which a layer keeps lists; the least recently used ones go."""

NO_TRAINING = (
    "a prepared network is for inference alone; train the network that it was made of, and prepare that one again"
)


class PreparedDAUConv2d(nn.Module):
    """A frozen ``DAUConv2d``, with the batch norm and the ReLU behind it where there are some.

    Maps (N, C, H, W) to what the layer maps it to. Its tensors are buffers, copies of the layer's.
    Copies and pickles of it hold these tensors, and make their lists when they need them.

    Args:
        layer: a layer of the efficient form.
        norm: batch norm in eval mode that reads the layer's output; it is folded into weights and bias.
        relu: whether a ReLU comes last.

    Raises:
        RuntimeError: it is to be trained, to give a gradient or to load a state dict, or its tensors were changed.
    """

    weight: Tensor
    mu: Tensor
    sigma: Tensor
    bias: Tensor | None
    unit_ptr: Tensor | None

    def __init__(self, layer: DAUConv2d, norm: nn.BatchNorm2d | None = None, relu: bool = False) -> None:
        super().__init__()
        if layer.form != "bilinear":
            raise ValueError('only layers of the efficient form, form="bilinear", can be prepared')
        self.in_channels, self.out_channels, self.groups = layer.in_channels, layer.out_channels, layer.groups
        self.stride, self.dilation, self.max_displacement = layer.stride, layer.dilation, layer.max_displacement
        self.trim, self.relu, self.training = layer.trim, relu, False
        # A learned sigma keeps the radius of its upper bound, so that nothing but rounding differs from the layer.
        self._radius = blur_radius(SIGMA_BOUNDS[1] if isinstance(layer.sigma, Tensor) else layer.sigma)
        weight, bias = _folded(layer, norm)
        # Whether an output is made of the input's same pixel alone.
        self._own_pixel = (
            self._radius == 0 and self.stride == (1, 1) and self.trim == (0, 0)
            and not bool(layer.displacements().any())
        )  # fmt: skip
        sigma = torch.as_tensor(layer.sigma, dtype=weight.dtype, device=weight.device).reshape(())
        tensors = {
            "weight": weight, "mu": layer.displacements(), "sigma": sigma, "bias": bias, "unit_ptr": layer.unit_ptr,
        }  # fmt: skip
        for name, tensor in tensors.items():
            own = None if tensor is None else tensor.detach().clone(memory_format=torch.contiguous_format)
            self.register_buffer(name, own)
        self._forget()

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, ceil((H - trim) / stride), ceil((W - trim) / stride)).

        The dtype is the input's, or that of autocast.
        """
        if self._marks != self._marks_now():
            raise RuntimeError(f"a tensor of a prepared layer was changed, but its lists are made; {_ANEW}")
        check_tensors(input, self.weight, self.mu, self.bias, self.unit_ptr)
        check_shapes(input, self.weight, self.mu, self.bias, self.groups, self.unit_ptr, self.out_channels)
        if input.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"a prepared layer has no gradient, but its input asks for one; {_WITHOUT_GRAD}")
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        # The kernels of a CPU read what the units are in; those of a GPU read halves themselves.
        ready = input.to(self.weight.dtype) if kind == "cpu" else input
        with torch.no_grad():
            output = self._run(ready).to(input.dtype)
        return trimmed(output, input, self.stride, self.trim)

    def train(self, mode: bool = True) -> PreparedDAUConv2d:
        """Stay in eval mode; anything else is an error."""
        if mode:
            raise RuntimeError(NO_TRAINING)
        return super().train(False)

    def extra_repr(self) -> str:
        """List what the layer is, as ``DAUConv2d`` does."""
        ragged = "" if self.unit_ptr is None else "ragged, "
        return f"{self.in_channels}, {self.out_channels}, {ragged}{self.weight.numel()} units, relu={self.relu}"

    def reading(self) -> tuple[object, ...]:
        """What layers that read one map must have in common to run as one."""
        sigma, weight = float(self.sigma), self.weight
        return (
            self.in_channels, self.stride, self.dilation, self.max_displacement, self.trim, self.relu, self._radius,
            self._own_pixel, sigma, weight.dtype, weight.device,
        )  # fmt: skip

    @property
    def list_bytes(self) -> int:
        """Bytes of all lists that the layer holds now."""
        with self._lock:
            return sum(plan.nbytes for plan in self._plans.values())

    def _run(self, input: Tensor) -> Tensor:
        if not self._own_pixel or input.shape[2:] != (1, 1):
            return self._plan(input).run(input, self.bias, self.relu)
        # Images of one pixel become the pixels of one row, so that a unit is read once for many of them.
        row = input.flatten(1).t().unsqueeze(0).unsqueeze(2)  # (1, C, 1, N)
        output = self._plan(row).run(row, self.bias, self.relu)  # (1, O, 1, N)
        return output.squeeze(2).squeeze(0).t().contiguous().unsqueeze(-1).unsqueeze(-1)

    def _plan(self, input: Tensor) -> Plan:
        """The plan for inputs of this size. Threads may ask at the same time; one of them makes it."""
        size = (input.shape[0], input.shape[2], input.shape[3])
        with self._lock:
            plan = self._plans.pop(size, None) or Plan(
                self.weight, self.mu, self.unit_ptr, self.sigma, self._geometry(input)
            )
            self._plans[size] = plan
            while len(self._plans) > SIZES_KEPT:
                self._plans.popitem(last=False)
        return plan

    def _geometry(self, input: Tensor) -> Geometry:
        far = self.max_displacement
        limit = DEFAULT_LIMIT if far is None else math.ceil(min(far, MAX_LIMIT))
        return Geometry.of(
            input, self.weight, self.unit_ptr, radius=self._radius, stride=self.stride, dilation=self.dilation,
            groups=self.groups, limit=limit,
        )  # fmt: skip

    # Lists: they are of tensors as they were when the layer was made, moved, or taken from a pickle.

    def _forget(self) -> None:
        self._plans: OrderedDict[tuple[int, int, int], Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._marks = self._marks_now()

    def _marks_now(self) -> list[tuple[int, int]]:
        """Addresses and versions of the tensors. An inference tensor counts no versions."""
        tensors = [tensor for tensor in self._buffers.values() if tensor is not None]
        return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PreparedDAUConv2d:
        """Move as asked, but never to half precision, as ``DAUConv2d``; the lists are made anew."""

        def keep_digits(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = tensor.is_floating_point() and moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if halved else moved

        super()._apply(keep_digits, recurse)  # type: ignore[no-untyped-call]  # torch's own
        self._forget()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        raise RuntimeError(f"a prepared layer ({prefix.removesuffix('.')}) loads no state dict; {_ANEW}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_plans", "_lock", "_marks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's own
        self._forget()


def joined(layers: Sequence[PreparedDAUConv2d]) -> PreparedDAUConv2d:
    """One layer, without groups, with the outputs of several one after the other; their ``reading()`` is the same."""
    pairs = [layer.out_channels * layer.in_channels for layer in layers]
    counts = [
        torch.full((number,), layer.weight.shape[-1]) if layer.unit_ptr is None else layer.unit_ptr.long().diff().cpu()
        for layer, number in zip(layers, pairs, strict=True)
    ]
    biases = [layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias for layer in layers]
    one = copy.deepcopy(layers[0])
    one.out_channels = sum(layer.out_channels for layer in layers)
    one.weight = torch.cat([layer.weight.flatten() for layer in layers])
    one.mu = torch.cat([layer.mu.reshape(2, -1) for layer in layers], dim=1)
    one.unit_ptr = unit_pointers(torch.cat(counts)).to(one.weight.device)
    one.bias = None if all(layer.bias is None for layer in layers) else torch.cat(biases)
    one._forget()
    return one


_ANEW = "change the network that it was made of, and prepare that one again"
_WITHOUT_GRAD = "call it under torch.no_grad(), or take the network that it was made of"


def _folded(layer: DAUConv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weights and bias of the layer and the batch norm behind it."""
    weight, bias = layer.weight.detach(), layer.bias
    if norm is None:
        return weight, bias
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)  # (O,)
    shift = (0 if bias is None else bias) - mean
    output = pair_of_units(layer.unit_counts) // (layer.in_channels // layer.groups)
    folded = weight * scale[output].reshape(weight.shape).to(weight.dtype)
    beta = 0 if norm.bias is None else norm.bias
    return folded, (shift * scale + beta).to(weight.dtype)
