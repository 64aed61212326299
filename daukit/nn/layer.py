"""The layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor, fx, nn

from daukit.nn.arguments import check_channels, check_form, check_limit, check_sigma, check_trim
from daukit.nn.counts import stored_counts
from daukit.nn.initialization import (
    INITIALIZERS,
    Initialization,
    filter_window,
    glorot_normal_,
    grid_shape,
    initialization_options,
)
from daukit.nn.migration import check_call
from daukit.nn.notices import notice_far_units
from daukit.nn.pixels import keep_apart
from daukit.nn.trimming import trimmed
from daukit.ops import MuGradient, dau_conv2d, dau_conv2d_gaussian
from daukit.ops.checks import pair
from daukit.ops.geometry import DEFAULT_MAX_DISPLACEMENT
from daukit.ops.units import pair_of_units

Form = Literal["bilinear", "gaussian"]

_UNIT_NAMES = ("weight", "mu", "sigma")


class DAUConv2d(nn.Module):
    """A convolution layer of displaced aggregation units (paper, section 3).

    Maps (N, C, H, W) to (N, O, ceil(H / stride), ceil(W / stride)). A drop-in for ``nn.Conv2d`` with "same" zero
    padding: there is no ``kernel_size`` and no ``padding``, since a DAU has no window. The third argument is the number
    of units: ``DAUConv2d(3, 64, 3)`` has three of them for every pair of channels, it is not a 3x3 filter.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        units: units per (output, input) pair; ``(rows, columns)`` for a grid of that shape. An integer becomes the
            squarest grid with rows <= columns. It must be given.
        max_displacement: limit of |mu| per axis in dilated pixels, kept by ``project_displacements``; None: no limit.
        sigma: standard deviation of every unit in pixels (the initial one when it is learned). 0, no blur, goes with
            whole pixels; with ``mu_gradient="gaussian"`` displacements are then fixed (``mu.requires_grad`` is False).
        learn_sigma: learn one sigma for the layer (``form="bilinear"``).
        form: ``"bilinear"``, the efficient form of Eq. 13-14, or ``"gaussian"``, the general one of Eq. 2-4 with a
            learned sigma per unit.
        window: odd side of the general form's filters; default: the least that holds ``max_displacement`` and 3 sigma.
        stride: step between outputs.
        dilation: input pixels per pixel of displacement, and between the taps of the blur.
        groups: as in ``nn.Conv2d``.
        bias: add a learned bias.
        init: initialiser of mu by name (``"grid"``, ``"diagonals"`` for two units, ``"uniform"``, ``"normal"``), or a
            mapping with its name and options, as ``{"name": "uniform", "low": -1.5, "high": 1.5}``.
        mu_gradient: ``"gaussian"`` (Eq. 16) or ``"exact"``.
        whole_pixels: read at displacements rounded to whole pixels: a third of the work. The gradient passes straight
            through the rounding, so that ``mu`` itself goes on to learn between pixels.
        trim: rows and columns at the far end of an image for which there is no output, as an ``nn.Conv2d`` has none
            where its window leans out; the output is then ``ceil((H - trim) / stride)``. Not in the general form.

    Attributes:
        weight: parameter (O, C / groups, K); once ragged, (U,).
        mu: parameter (2, O, C / groups, K), displacement (y, x) in dilated pixels; once ragged, (2, U).
        sigma: a float; a parameter of one element when learned; a parameter shaped like weight in the general form.
        unit_ptr: None, or int32 (O * C / groups + 1,) once ragged.

    Raises:
        ValueError: a value that breaks a rule above.
        TypeError: an argument of the wrong type, or one that ``nn.Conv2d`` has and this layer does not.
    """

    sigma: float | nn.Parameter
    bias: nn.Parameter | None
    unit_ptr: Tensor | None
    whole_pixels = False  # of layers that were pickled before there were others
    trim = (0, 0)  # likewise
    _trained = 0  # calls in training, of this process

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        units: int | tuple[int, int] | None = None,
        *positional: NoReturn,
        max_displacement: float | None = DEFAULT_MAX_DISPLACEMENT,
        sigma: float = 0.5,
        learn_sigma: bool = False,
        form: Form = "bilinear",
        window: int | None = None,
        stride: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | Initialization = "grid",
        mu_gradient: MuGradient = "gaussian",
        whole_pixels: bool = False,
        trim: int | tuple[int, int] = 0,
        **unknown: NoReturn,
    ) -> None:
        super().__init__()
        check_call(positional, unknown)
        if units is None:
            raise TypeError("DAUConv2d needs units, the number of units of every pair of channels, as units=2")
        check_channels(in_channels, out_channels, groups)
        check_limit(max_displacement)
        check_form(form, mu_gradient, whole_pixels)
        unblurred = check_sigma(sigma, learn_sigma or form == "gaussian", whole_pixels)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.dilation = pair("stride", stride), pair("dilation", dilation)
        self.max_displacement = max_displacement
        self.form, self.mu_gradient, self.whole_pixels = form, mu_gradient, whole_pixels
        self.trim = check_trim(trim, form)
        rows, columns = grid_shape(units)
        self.units = rows * columns
        self.initialization = initialization_options(init, rows, columns, max_displacement)
        self.window = filter_window(window, max_displacement, sigma) if form == "gaussian" else None

        shape = (out_channels, in_channels // groups, self.units)
        self.weight = nn.Parameter(torch.empty(shape))
        self.mu = nn.Parameter(torch.empty(2, *shape), requires_grad=not unblurred or mu_gradient == "exact")
        if form == "gaussian":
            self.sigma = nn.Parameter(torch.full(shape, float(sigma)))
        elif learn_sigma:
            self.sigma = nn.Parameter(torch.tensor([float(sigma)]))
        else:
            self.sigma = float(sigma)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("unit_ptr", None, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise weights by Glorot's rule, mu by ``initialization``, bias with zero; sigma stays.

        In a layer of whole pixels the units of a pair start on distinct ones, those nearest to where they were put.
        """
        if self.unit_ptr is not None:
            raise ValueError("a ragged layer cannot be re-initialised: its units were chosen by their trained weights")
        if self.weight.is_meta:
            return  # there is nothing to fill, and torch would load a second of Python to draw numbers for it
        glorot_normal_(self.weight)
        options = dict(self.initialization)
        INITIALIZERS[options.pop("name")](self.mu, **options)
        if self.max_displacement is not None:
            with torch.no_grad():
                self.mu.clamp_(-self.max_displacement, self.max_displacement)
        if self.whole_pixels:
            self.settle(apart=True)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, ceil(H / stride), ceil(W / stride)), with ``trim`` to what is left of H and W.

        Raises:
            ValueError: the input has other channels than the layer takes, breaks a rule of ``dau_conv2d``, or is no
                larger than ``trim``.
        """
        if isinstance(input, fx.Proxy) and input.tracer.root is not self:
            path = input.tracer.path_of_module(self)
            return cast(Tensor, input.tracer.create_proxy("call_module", path, (input,), {}))  # a leaf, as nn.Conv2d is
        self._look_at(input)
        if self.form == "gaussian":
            assert isinstance(self.sigma, Tensor) and self.window is not None
            return dau_conv2d_gaussian(
                input, self.weight, self.mu, self.sigma, self.bias, window=self.window,
                stride=self.stride, dilation=self.dilation, groups=self.groups, unit_ptr=self.unit_ptr,
                out_channels=self.out_channels,
            )  # fmt: skip
        output = dau_conv2d(
            input, self.weight, self.displacements(), self.bias, sigma=self.sigma, stride=self.stride,
            dilation=self.dilation, groups=self.groups, unit_ptr=self.unit_ptr, mu_gradient=self.mu_gradient,
            max_displacement=self.max_displacement, out_channels=self.out_channels, whole_pixels=self.whole_pixels,
        )  # fmt: skip
        return trimmed(output, input, self.stride, self.trim)

    def displacements(self) -> Tensor:
        """Where units read: mu, in a layer of whole pixels rounded, with the gradient passed straight through."""
        if not self.whole_pixels:
            return self.mu
        if not torch.is_grad_enabled():
            return self.mu.round()
        # The difference of a number and its rounding is exact in floating point, so that the result is whole.
        return self.mu - (self.mu - self.mu.round()).detach()

    @torch.no_grad()
    def settle(self, *, apart: bool = False) -> None:
        """Round mu for good, as after training: a layer of whole pixels then computes the same, and files get smaller.

        Args:
            apart: no two units of a pair may share a pixel; all but one go to a free one nearby, as
                ``project_displacements`` has it.

        Raises:
            ValueError: the layer does not read at whole pixels.
        """
        if not self.whole_pixels:
            raise ValueError("settle is for layers that read at whole pixels; this one reads between them")
        mu = self.mu.reshape(2, -1)
        pixels = keep_apart(mu, self.unit_counts, self.max_displacement) if apart else mu.round()
        self.mu.copy_(pixels.reshape(self.mu.shape))

    def _look_at(self, input: Tensor) -> None:
        """Refuse other channels; in training, at calls 16, 32, 64 and so on, see where units are: it costs nothing."""
        if not isinstance(input, Tensor) or input.dim() != 4:
            return  # the operator has words for it
        if input.shape[1] != self.in_channels:
            raise ValueError(
                f"DAUConv2d({self.in_channels}, {self.out_channels}, ...) takes {self.in_channels} channels, got "
                f"{input.shape[1]}: the input is {tuple(input.shape)}, (batch, channels, height, width)"
            )
        if not torch.compiler.is_compiling() and self.training and self.mu.requires_grad and torch.is_grad_enabled():
            self._trained += 1
            if self._trained >= 16 and self._trained & (self._trained - 1) == 0:
                notice_far_units(self, (input.shape[2], input.shape[3]))

    @property
    def pairs(self) -> int:
        """Number of (output, input) channel pairs."""
        return self.out_channels * (self.in_channels // self.groups)

    @property
    def is_ragged(self) -> bool:
        """True if pairs may have different numbers of units."""
        return self.unit_ptr is not None

    @property
    def unit_counts(self) -> Tensor:
        """Units of every pair: (pairs,) int64."""
        if self.unit_ptr is None:
            return torch.full((self.pairs,), self.units, device=self.weight.device)
        return self.unit_ptr.long().diff()

    @torch.no_grad()
    def keep_units(self, keep: Tensor) -> None:
        """Keep the units where ``keep`` is True and drop the others for good; the layer becomes ragged.

        Weight, mu (and a per-unit sigma) become new parameters: make a new optimiser afterwards.

        Args:
            keep: bool, shaped like ``weight``.

        Raises:
            ValueError: ``keep`` is not a bool tensor of weight's shape.
        """
        if not isinstance(keep, Tensor):
            raise TypeError(f"keep must be a bool tensor like weight, got {type(keep).__name__}")
        if keep.dtype != torch.bool or keep.shape != self.weight.shape:
            raise ValueError(
                f"keep must be bool of weight's shape {tuple(self.weight.shape)}, got {keep.dtype} {tuple(keep.shape)}"
            )
        keep = keep.to(self.weight.device).flatten()
        pair = pair_of_units(self.unit_counts)
        counts = torch.bincount(pair[keep], minlength=self.pairs)
        self._set_unit("weight", self.weight.flatten()[keep])
        self._set_unit("mu", self.mu.reshape(2, -1)[:, keep])
        if isinstance(self.sigma, Tensor) and self.form == "gaussian":
            self._set_unit("sigma", self.sigma.flatten()[keep])
        self.unit_ptr = unit_pointers(counts)

    def _set_unit(self, name: str, value: Tensor) -> None:
        old = getattr(self, name)
        setattr(self, name, nn.Parameter(value.clone(), requires_grad=old.requires_grad))

    def extra_repr(self) -> str:
        """List what differs from the defaults, as torch's layers print it."""
        units = f"ragged, {self.weight.numel()} units" if self.is_ragged else f"units={self.units}"
        parts = [f"{self.in_channels}, {self.out_channels}, {units}", f"max_displacement={self.max_displacement}"]
        parts.append(f"sigma={self.sigma}" if isinstance(self.sigma, float) else "sigma=learned")
        defaults = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "form": "bilinear", "mu_gradient": "gaussian"}
        defaults |= {"whole_pixels": False, "trim": (0, 0)}
        parts += [f"{name}={getattr(self, name)!r}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(parts if self.bias is not None else [*parts, "bias=False"])

    # State: a ragged layer stores one small count per pair instead of 32-bit pointers.

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.unit_ptr is not None:
            destination[prefix + "unit_counts"] = stored_counts(self.unit_counts, prefix.removesuffix("."))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        counts = state_dict.pop(prefix + "unit_counts", None)
        if counts is not None:
            self._adopt_ragged(counts, state_dict.get(prefix + "weight", self.weight))
        elif self.unit_ptr is not None and state_dict.get(prefix + "weight", self.weight).dim() == 3:
            self._adopt_dense(state_dict[prefix + "weight"])
        super()._load_from_state_dict(state_dict, prefix, *args)
        if counts is not None:
            state_dict[prefix + "unit_counts"] = counts
            self.unit_ptr = unit_pointers(counts.long()).to(self.weight.device)  # which assign=True may have changed

    def _adopt_ragged(self, counts: Tensor, weight: Tensor) -> None:
        if counts.numel() != self.pairs or int(counts.long().sum()) != weight.numel():
            raise ValueError(
                f"unit_counts holds {counts.numel()} pairs and {int(counts.long().sum())} units; "
                f"the layer has {self.pairs} pairs and the file {weight.numel()} units"
            )
        self._adopt_shape((weight.numel(),))

    def _adopt_dense(self, weight: Tensor) -> None:
        self._adopt_shape(tuple(weight.shape))
        self.unit_ptr = None
        self.units = weight.shape[2]

    def _adopt_shape(self, shape: tuple[int, ...]) -> None:
        for name in _UNIT_NAMES[: 3 if self.form == "gaussian" else 2]:
            parameter = getattr(self, name)
            # The same object with other data, so that an optimiser that holds it goes on with it.
            parameter.data = parameter.data.new_empty((2, *shape) if name == "mu" else shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DAUConv2d:
        """Move as asked, but never to half precision: displacements need float32's digits."""

        def keep_digits(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = tensor.is_floating_point() and moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if halved else moved

        super()._apply(keep_digits, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return self


def unit_pointers(counts: Tensor) -> Tensor:
    """Turn counts (pairs,) into the numbers of each pair's first unit: int32 (pairs + 1,)."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
