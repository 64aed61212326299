"""The operator's forward and backward as sequences of kernels, none of which waits for the GPU."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor

from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.cuda.availability import giving_up, state, supports
from daukit.ops.cuda.call import Call, Prepared, Units, check_sizes
from daukit.ops.cuda.chooser import BACKWARD, BACKWARD_EXACT, BACKWARD_WEIGHTS, FORWARD, Choice, Loop, strips_of_block
from daukit.ops.cuda.far import UnitGradients, far_forward, far_gradients, far_image
from daukit.ops.cuda.images import MU, SIGMA, THREADS, G, Pairs, blur, blur_adjoint, unstrided
from daukit.ops.cuda.launcher import Launch
from daukit.ops.cuda.pointers import transposed_pointers
from daukit.ops.geometry import Geometry

PLAN_THREADS = 128
"""Threads of a block of the kernels that give each thread a unit."""

PAIRS_OF_THREAD = 16
"""Pointers of a ragged layer that a thread looks at where there are more pairs than units."""

SUMS_BYTES = 2**23
"""Sums that blocks of the backward leave in more memory than this are worth blocks that go through several strips."""

SUM_THREADS = (32, 32)
"""Threads of a block that adds up the parts of unit gradients: (units, parts at once)."""


MAPS: Pairs = ((G, G), (MU, G), (G, MU))
"""The blurred images that the units' sums are made with; all but the first are for the paper's gradient of mu."""

BY_SIGMA: Pairs = ((SIGMA, G), (G, SIGMA))
"""Those whose sum is the derivative of the blurred image by sigma."""


class Form(NamedTuple):
    """One of the backward's forms, by the gradient for mu that is asked for.

    Attributes:
        loop: its costs.
        maps: blurred images of the input that it reads.
        sums: sums over all pixels that it makes for every unit.
        macros: preprocessor definitions.
    """

    loop: Loop
    maps: int
    sums: int
    macros: dict[str, int]


FORMS: dict[str | None, Form] = {
    "gaussian": Form(BACKWARD, 3, 3, {"DAU_EXACT": 0, "DAU_MU": 1}),
    "exact": Form(BACKWARD_EXACT, 1, 4, {"DAU_EXACT": 1, "DAU_MU": 1}),
    None: Form(BACKWARD_WEIGHTS, 1, 1, {"DAU_EXACT": 0, "DAU_MU": 0}),
}
"""By ``mu_gradient``, or None where no gradient for mu is asked for."""


class Cuda(Backend):
    """The CUDA kernels, for images in float32, float16 or bfloat16 with float32 parameters.

    Args:
        rank: of the instance that does the summing, in the order of the model's predictions.
    """

    name = "cuda"
    convolves = False
    takes_half = True

    def __init__(self, rank: int = 0):
        self.rank = rank

    def state(self) -> str:
        """As ``Backend.state``."""
        return state()

    def supports(self, tensors: Tensors, geo: Geometry) -> bool:
        """As ``Backend.supports``. Warns once where a missing piece forbids it."""
        return supports(tensors.mu.device, tensors.mu.dtype, geo)

    def check_values(self, tensors: Tensors) -> None:
        """Nothing here: the host would wait for a GPU.

        Wrong pointers fail on the device, and displacements that are not finite make NaN of what they touch.
        """

    @giving_up
    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """As ``Backend.forward``; the output is of the input's dtype."""
        units, bias = _units(tensors), tensors.bias
        check_sizes(geo, units.count)
        output = tensors.input.new_empty(geo.batch, geo.out_channels, *geo.out_size)
        if output.numel() == 0:
            return output
        call = Call(geo, units, tensors.input, self.rank)
        (blurred,) = blur(call, tensors.input, tensors.sigma.detach(), MAPS[:1])
        self.sum_units(call, blurred, None if bias is None else bias.detach().contiguous(), output, compute)
        return output

    @giving_up
    def backward(
        self,
        grad_output: Tensor,
        tensors: Tensors,
        geo: Geometry,
        *,
        mu_gradient: str,
        needs: Needs,
        compute: torch.dtype,
    ) -> Gradients:
        """As ``Backend.backward``; the input's gradient alone, or weight and mu together with what is asked for."""
        input, units = tensors.input, _units(tensors)
        check_sizes(geo, units.count)
        grad_input = grad_sigma = None
        if input.numel() == 0 or not any(needs):
            grads = torch.zeros_like(units.weight), torch.zeros_like(units.mu) if needs.mu else None
            grad_input, grad_sigma = torch.zeros_like(input), torch.zeros_like(tensors.sigma)
            return _gradients(tensors, grad_input, grads, grad_sigma)
        call, sigma = Call(geo, units, input, self.rank), tensors.sigma.detach()
        errors = unstrided(call, grad_output)
        if needs.input and not any(needs[1:]):
            grad_blurred = self.image_gradient(call, grad_output, errors, compute)
            return Gradients(blur_adjoint(call, grad_blurred, sigma, input.dtype), None, None, None)
        form = FORMS[mu_gradient if needs.mu else None]
        grads = torch.empty_like(units.weight), torch.empty_like(units.mu) if needs.mu else None
        blurred = blur(call, input, sigma, MAPS[: form.maps] + BY_SIGMA * needs.sigma)
        grad_blurred = self.gradients(call, blurred, grad_output, errors, form, grads, compute)
        if needs.sigma:
            # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
            grad_sigma = (grad_blurred * blurred[form.maps :].sum(0)).sum().reshape(tensors.sigma.shape)
        if needs.input:
            # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
            grad_input = blur_adjoint(call, grad_blurred, sigma, input.dtype)
        return _gradients(tensors, grad_input, grads, grad_sigma)

    def sum_units(self, call: Call, blurred: Tensor, bias: Tensor | None, output: Tensor, compute: torch.dtype) -> None:
        """Sum over the units what they read of the blurred images, into ``output``."""
        _forward_units(call, blurred, bias, output)

    def image_gradient(self, call: Call, grad_output: Tensor, errors: Tensor, compute: torch.dtype) -> Tensor:
        """The gradient of the blurred images alone; ``errors`` is ``grad_output`` at stride 1, as phase images."""
        return _image_gradient(call, errors)

    def gradients(
        self,
        call: Call,
        maps: Tensor,
        grad_output: Tensor,
        errors: Tensor,
        form: Form,
        grads: UnitGradients,
        compute: torch.dtype,
    ) -> Tensor:
        """The gradient of the blurred images, and into ``grads`` those of weight and, if asked for, of mu."""
        return _backward_units(call, maps, errors, form, grads)


def _gradients(
    tensors: Tensors, grad_input: Tensor | None, grads: UnitGradients, grad_sigma: Tensor | None
) -> Gradients:
    """All gradients, those of weight and mu in the shapes of their tensors."""
    weight, mu = grads
    mu = None if mu is None else mu.reshape(tensors.mu.shape)
    return Gradients(grad_input, weight.reshape(tensors.weight.shape), mu, grad_sigma)


def _units(tensors: Tensors) -> Units:
    """All units as flat lists."""
    weight, mu, unit_ptr = tensors.weight.detach(), tensors.mu.detach(), tensors.unit_ptr
    per_pair = weight.shape[2] if unit_ptr is None else 0
    return Units(
        weight.contiguous().reshape(-1),
        mu.contiguous().reshape(2, -1),
        None if unit_ptr is None else unit_ptr.contiguous(),
        per_pair,
    )


def _forward_units(call: Call, blurred: Tensor, bias: Tensor | None, output: Tensor) -> None:
    """Sum over the units what they read of the blurred images, into ``output``."""
    units = call.units
    choice = call.choose(FORWARD, transposed=False)
    halo, stride, storage = choice.tile.halo, choice.tile.stride, {"DAU_STORAGE": call.storage}
    macros = {**storage, "DAU_STRIDE_Y": stride[0], "DAU_STRIDE_X": stride[1]}
    plan, far = _records(call), _count(call)
    call.queue(
        "plan forward", lambda: (_plan("forward.cu", "dau_plan_forward", call, choice, macros), call.sizes(halo)),
        units.weight, units.mu, units.unit_ptr, plan, far,
    )  # fmt: skip
    parts = None if choice.splits == 1 else blurred.new_empty(choice.splits, *output.shape)
    call.queue(
        "forward", lambda: (
            call.tiled("forward.cu", "dau_forward", call.work(transposed=False), choice, **macros),
            call.sizes(halo, choice.splits),
        ),
        blurred, plan, units.unit_ptr, bias, output, parts,
    )  # fmt: skip
    if parts is not None:
        _sum_splits(call, parts, bias, output, call.storage)
    far_forward(call, halo, far, blurred, output)


def _image_gradient(call: Call, errors: Tensor) -> Tensor:
    """The gradient of the blurred images alone: the forward's sum, from outputs to inputs."""
    geo, units = call.geo, call.units
    choice = call.choose(FORWARD, transposed=True)
    halo, macros = choice.tile.halo, {"DAU_STORAGE": 0, "DAU_STRIDE_Y": 1, "DAU_STRIDE_X": 1}
    plan, far = _records(call), _count(call)
    unit_ptr_t = transposed_pointers(call)
    call.queue(
        "plan adjoint", lambda: (_plan("forward.cu", "dau_plan_adjoint", call, choice, macros), call.sizes(halo)),
        units.weight, units.mu, units.unit_ptr, unit_ptr_t, plan, far,
    )  # fmt: skip
    grad_blurred = call.new_images(geo.in_channels)
    parts = None if choice.splits == 1 else call.new_images(geo.in_channels, choice.splits)
    call.queue(
        "adjoint", lambda: (
            call.tiled("forward.cu", "dau_forward", call.work(transposed=True), choice, **macros),
            call.transposed_sizes(halo, choice.splits),
        ),
        errors, plan, unit_ptr_t, None, grad_blurred, parts,
    )  # fmt: skip
    if parts is not None:
        _sum_splits(call, parts, None, grad_blurred)
    far_image(call, halo, FORMS[None].macros, far, errors, grad_blurred)
    return grad_blurred


def _backward_units(call: Call, maps: Tensor, errors: Tensor, form: Form, grads: UnitGradients) -> Tensor:
    """The gradient of the blurred images, and into ``grads`` those of weight and, if asked for, of mu."""
    geo, units = call.geo, call.units
    choice, work = call.choose(form.loop, transposed=True), call.work(transposed=True)
    halo = choice.tile.halo
    map0, map_y, map_x = (maps[0], maps[1], maps[2]) if form.maps == 3 else (maps[0], None, None)
    plan, far, unit_ptr_t = _records(call), _count(call), transposed_pointers(call)
    numbers = torch.empty(units.count + 1, dtype=torch.int32, device=call.device)
    call.queue(
        ("plan backward", form.loop),
        lambda: (_plan("backward.cu", "dau_plan_backward", call, choice, form.macros), call.sizes(halo)),
        units.weight, units.mu, units.unit_ptr, unit_ptr_t, plan, numbers, far,
    )  # fmt: skip
    grad_blurred = call.new_images(geo.in_channels)
    parts = grad_blurred if choice.splits == 1 else call.new_images(geo.in_channels, choice.splits)
    blocks = choice.tile.blocks(work.images, work.height, work.width)
    strips = strips_of_block(choice, work, call.gpu) if 4 * blocks * units.count * form.sums > SUMS_BYTES else 1
    blocks = -(-blocks // strips)
    macros, shape = {**form.macros, "DAU_SEVERAL_STRIPS": int(strips > 1)}, (blocks, units.count, form.sums)
    sums = grad_blurred.new_zeros(shape) if strips > 1 else grad_blurred.new_empty(shape)
    call.queue(
        ("backward", form.loop), lambda: (
            call.tiled("backward.cu", "dau_backward", work, choice, blocks, **macros), call.sizes(halo, choice.splits)
        ),
        errors, map0, map_y, map_x, plan, numbers, unit_ptr_t, parts, sums,
    )  # fmt: skip
    if choice.splits > 1:
        _sum_splits(call, parts, None, grad_blurred)
    far_image(call, halo, form.macros, far, errors, grad_blurred)
    if units.count:
        _unit_gradients(call, choice, form, far, (errors, map0, map_y, map_x), sums, grads)
    return grad_blurred


def _unit_gradients(
    call: Call,
    choice: Choice,
    form: Form,
    far: Tensor,
    images: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    sums: Tensor,
    grads: UnitGradients,
) -> None:
    """Gradients of weight and mu: the blocks' sums added up, then those of far units."""
    units, halo = call.units, choice.tile.halo

    def summing() -> Prepared:
        x, y = SUM_THREADS
        grid, macros = (-(-units.count // x),), {**choice.tile.macros(), **form.macros}
        shared_bytes = 4 * sums.shape[2] * x * y
        return Launch.of("backward.cu", "dau_sum_gradients", grid, SUM_THREADS, macros, shared_bytes), call.sizes(halo)

    call.queue(
        ("sum gradients", form.loop), summing, units.weight, units.mu, sums, ctypes.c_int(sums.shape[0]), *grads,
    )  # fmt: skip
    far_gradients(call, halo, form.macros, far, images, grads)


def _plan(file: str, kernel: str, call: Call, choice: Choice, macros: dict[str, int]) -> Launch:
    """The launch of a kernel that writes the records of all units and of a sentinel, one a thread.

    Where nearly all units are gone, more threads look at the pointers.
    """
    pairs = 0 if call.units.unit_ptr is None else call.units.unit_ptr.numel()
    grid = (-(-max(call.units.count + 1, pairs // PAIRS_OF_THREAD) // PLAN_THREADS),)
    return Launch.of(file, kernel, grid, (PLAN_THREADS,), {**choice.tile.macros(), **macros})


def _sum_splits(call: Call, parts: Tensor, bias: Tensor | None, output: Tensor, storage: int = 0) -> None:
    """Add up the parts (splits, *output.shape) of a split sum, in their order, into ``output`` (N, C, H, W)."""
    count, plane, channels = output.numel(), math.prod(output.shape[2:]), output.shape[1]

    def launch() -> Prepared:
        grid, splits = (-(-count // THREADS),), parts.shape[0]
        return Launch.of("sums.cu", "dau_sum_splits", grid, (THREADS,), {"DAU_STORAGE": storage}), call.sizes(
            splits=splits
        )

    call.queue(
        ("sum splits", count, storage, parts.shape[0]), launch, parts, bias, output,
        ctypes.c_longlong(count), ctypes.c_int(plane), ctypes.c_int(channels),
    )  # fmt: skip


def _records(call: Call) -> Tensor:
    """Records of four floats for every unit and a sentinel."""
    return torch.empty(call.units.count + 1, 4, dtype=torch.float32, device=call.device)


def _count(call: Call) -> Tensor:
    """The number of far units, which only the GPU will know."""
    return torch.zeros(1, dtype=torch.int32, device=call.device)
