"""The operator's forward and backward as sequences of kernels, none of which waits for the GPU."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from daukit.ops.cuda.call import Call, Units, blur_bytes, blur_tile, check_sizes
from daukit.ops.cuda.chooser import BACKWARD, BACKWARD_EXACT, FORWARD, Choice
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_taps

THREADS = 256
"""Threads of a block of the kernels that give each thread an element."""

PLAN_THREADS = 128
"""Threads of a block of the kernels that give each thread a unit."""

SUM_THREADS = (32, 32)
"""Threads of a block that adds up the parts of unit gradients: (units, parts at once)."""

FAR_BLOCKS = 4096
FAR_BYTES = 128


def forward(
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    bias: Tensor | None,
    unit_ptr: Tensor | None,
    geo: Geometry,
) -> Tensor:
    """As ``reference.forward``, for an input of float32, half or bfloat16; the output is of its dtype."""
    units = Units.of(weight, mu, unit_ptr)
    check_sizes(geo, units.count)
    output = input.new_empty(geo.batch, geo.out_channels, *geo.out_size)
    if output.numel() == 0:
        return output
    call, bias = Call(geo, units, input), None if bias is None else bias.detach().contiguous()
    taps = blur_taps(sigma.detach(), geo.radius)
    (blurred,) = _blur(call, input, [(taps.gaussian, taps.gaussian)])
    _forward_units(call, blurred, bias, output)
    return output


def backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor,
    unit_ptr: Tensor | None,
    geo: Geometry,
    mu_gradient: str,
    needs: tuple[bool, bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """As ``dense.backward``; ``grad_output`` and ``input`` have one dtype, which is that of the input's gradient."""
    units = Units.of(weight, mu, unit_ptr)
    check_sizes(geo, units.count)
    needs_input, needs_sigma = needs[0], needs[3]
    grads = torch.zeros_like(units.weight), torch.zeros_like(units.mu)
    grad_input = torch.empty_like(input, memory_format=torch.contiguous_format) if needs_input else None
    grad_sigma = torch.zeros_like(sigma) if needs_sigma else None
    if input.numel() and any(needs):
        call, taps = Call(geo, units, input), blur_taps(sigma.detach(), geo.radius)
        g, errors = taps.gaussian, _errors(call, grad_output)
        if grad_input is not None and not any(needs[1:]):
            _blur_adjoint(call, _image_gradient(call, errors), torch.stack([g, g]), grad_input)
            return grad_input, None, None, None
        maps = [(g, g)] if mu_gradient == "exact" else [(g, g), (taps.mu, g), (g, taps.mu)]
        slopes = [(taps.sigma, g), (g, taps.sigma)] if needs_sigma else []
        blurred = _blur(call, input, [*maps, *slopes])
        grad_blurred = _backward_units(call, blurred, errors, mu_gradient == "exact", grads)
        if grad_sigma is not None:
            # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
            grad_sigma = (grad_blurred * blurred[len(maps) :].sum(0)).sum().reshape(sigma.shape)
        if grad_input is not None:
            # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
            _blur_adjoint(call, grad_blurred, torch.stack([g, g]), grad_input)
    return (grad_input, grads[0].reshape(weight.shape), grads[1].reshape(mu.shape), grad_sigma)


def _blur(call: Call, images: Tensor, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Blur images (N, C, H, W) with pairs of taps (along y, along x) into phase images (maps, N * phases, C, h, w)."""
    maps = torch.stack([torch.stack(pair) for pair in taps])
    channels = images.shape[1]
    blurred = call.new_images(channels, len(taps))
    tile, grid = _blur_grid(call, channels)
    call.launch(
        "blur.cu", "dau_blur", (grid,), (tile, 8),
        call.sizes(), ctypes.c_int(channels), images.detach().contiguous(), maps, blurred, ctypes.c_int(len(taps)),
        macros={"DAU_STORAGE": call.storage, "DAU_BLUR_TILE": tile}, shared_bytes=blur_bytes(tile, call.geo.radius),
    )  # fmt: skip
    return blurred


def _blur_adjoint(call: Call, blurred: Tensor, taps: Tensor, images: Tensor) -> None:
    """Blur phase images back into ``images`` (N, C, H, W)."""
    channels = images.shape[1]
    tile, grid = _blur_grid(call, channels)
    call.launch(
        "blur.cu", "dau_blur_adjoint", (grid,), (tile, 8),
        call.sizes(), ctypes.c_int(channels), blurred, taps, images,
        macros={"DAU_STORAGE": call.storage, "DAU_BLUR_TILE": tile}, shared_bytes=blur_bytes(tile, call.geo.radius),
    )  # fmt: skip


def _blur_grid(call: Call, channels: int) -> tuple[int, int]:
    """Side of the blur's tiles, and its blocks: one for each tile of each phase image."""
    height, width = call.phase_size
    tile = blur_tile(call.geo.radius, max(height, width))
    assert tile is not None, "registration sends wider blurs to the dense path"
    return tile, call.geo.batch * call.phases * channels * -(-height // tile) * -(-width // tile)


def _errors(call: Call, grad_output: Tensor) -> Tensor:
    """The output gradient as float32 phase images, zero where a strided layer has no output."""
    geo = call.geo
    grad_output = grad_output.detach().contiguous()
    if call.storage == 0 and geo.stride == geo.dilation == (1, 1):
        return grad_output
    errors = call.new_images(geo.out_channels)
    grid = -(-errors.numel() // THREADS)
    macros = {"DAU_STORAGE": call.storage}
    call.launch("spread.cu", "dau_spread", (grid,), (THREADS,), call.sizes(), grad_output, errors, macros=macros)
    return errors


def _forward_units(call: Call, blurred: Tensor, bias: Tensor | None, output: Tensor) -> None:
    geo, units = call.geo, call.units
    choice = call.choose(FORWARD, transposed=False)
    halo, stride, storage = choice.tile.halo, choice.tile.stride, {"DAU_STORAGE": call.storage}
    macros = {**storage, "DAU_STRIDE_Y": stride[0], "DAU_STRIDE_X": stride[1]}
    plan, far = _records(call), torch.zeros(1, dtype=torch.int32, device=call.device)
    call.launch(
        "forward.cu", "dau_plan_forward", (-(-(units.count + 1) // PLAN_THREADS),), (PLAN_THREADS,),
        call.sizes(halo), units.weight, units.mu, units.unit_ptr, plan, far,
        macros={**choice.tile.macros(), **macros},
    )  # fmt: skip
    parts = None if choice.splits == 1 else blurred.new_empty(choice.splits, *output.shape)
    call.launch_tiled(
        "forward.cu", "dau_forward", call.work(transposed=False), choice, call.sizes(halo, choice.splits),
        blurred, plan, units.unit_ptr, bias, output, parts, **macros,
    )  # fmt: skip
    if parts is not None:
        plane = math.prod(geo.out_size)
        _sum_splits(call, choice, parts, bias, output, (plane, geo.out_channels), storage)
    grid = geo.batch * geo.out_channels * -(-math.prod(geo.out_size) // THREADS)
    call.launch(
        "far.cu", "dau_far_forward", (grid,), (THREADS,),
        call.sizes(halo), far, blurred, units.weight, units.mu, units.unit_ptr, output,
        macros={**storage, "DAU_HALO": halo},
    )  # fmt: skip


def _image_gradient(call: Call, errors: Tensor) -> Tensor:
    """The gradient of the blurred images alone: the forward's sum, from outputs to inputs."""
    geo, units = call.geo, call.units
    choice = call.choose(FORWARD, transposed=True)
    halo, macros = choice.tile.halo, {"DAU_STORAGE": 0, "DAU_STRIDE_Y": 1, "DAU_STRIDE_X": 1}
    plan, far = _records(call), torch.zeros(1, dtype=torch.int32, device=call.device)
    unit_ptr_t = units.transposed_ptr(geo)
    call.launch(
        "forward.cu", "dau_plan_adjoint", (-(-(units.count + 1) // PLAN_THREADS),), (PLAN_THREADS,),
        call.sizes(halo), units.weight, units.mu, units.unit_ptr, unit_ptr_t, plan, far,
        macros={**choice.tile.macros(), **macros},
    )  # fmt: skip
    grad_blurred = call.new_images(geo.in_channels)
    parts = None if choice.splits == 1 else call.new_images(geo.in_channels, choice.splits)
    call.launch_tiled(
        "forward.cu", "dau_forward", call.work(transposed=True), choice, call.transposed_sizes(halo, choice.splits),
        errors, plan, unit_ptr_t, None, grad_blurred, parts, **macros,
    )  # fmt: skip
    if parts is not None:
        _sum_splits(
            call, choice, parts, None, grad_blurred, (math.prod(call.phase_size), geo.in_channels), {"DAU_STORAGE": 0}
        )
    _far_image(call, choice, False, far, errors, grad_blurred)
    return grad_blurred


def _backward_units(call: Call, maps: Tensor, errors: Tensor, exact: bool, grads: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient of the blurred images, and into ``grads`` those of weight and mu."""
    geo, units = call.geo, call.units
    loop = BACKWARD_EXACT if exact else BACKWARD
    choice, work = call.choose(loop, transposed=True), call.work(transposed=True)
    macros = {"DAU_EXACT": int(exact)}
    map0, map_y, map_x = (maps[0], None, None) if exact else (maps[0], maps[1], maps[2])
    plan = _records(call)
    numbers = torch.empty(units.count + 1, dtype=torch.int32, device=call.device)
    far, unit_ptr_t = torch.zeros(1, dtype=torch.int32, device=call.device), units.transposed_ptr(geo)
    call.launch(
        "backward.cu", "dau_plan_backward", (-(-(units.count + 1) // PLAN_THREADS),), (PLAN_THREADS,),
        call.sizes(choice.tile.halo), units.weight, units.mu, units.unit_ptr, unit_ptr_t, plan, numbers, far,
        macros={**choice.tile.macros(), **macros},
    )  # fmt: skip
    grad_blurred = call.new_images(geo.in_channels)
    parts = grad_blurred if choice.splits == 1 else call.new_images(geo.in_channels, choice.splits)
    blocks = choice.tile.blocks(work.images, work.height, work.width)
    sums = grad_blurred.new_empty(blocks, units.count, 4 if exact else 3)
    call.launch_tiled(
        "backward.cu", "dau_backward", work, choice, call.sizes(choice.tile.halo, choice.splits),
        errors, map0, map_y, map_x, plan, numbers, unit_ptr_t, parts, sums, **macros,
    )  # fmt: skip
    if choice.splits > 1:
        plane = math.prod(call.phase_size)
        _sum_splits(call, choice, parts, None, grad_blurred, (plane, geo.in_channels), {"DAU_STORAGE": 0})
    _far_image(call, choice, exact, far, errors, grad_blurred)
    if units.count:
        _unit_gradients(call, choice, exact, far, (errors, map0, map_y, map_x), sums, grads)
    return grad_blurred


def _far_image(call: Call, choice: Choice, exact: bool, far: Tensor, errors: Tensor, grad_blurred: Tensor) -> None:
    """Add what far units give to the gradient of the blurred images."""
    units = call.units
    grid = math.prod(grad_blurred.shape[:2]) * -(-math.prod(call.phase_size) // THREADS)
    call.launch(
        "far.cu", "dau_far_backward", (grid,), (THREADS,),
        call.sizes(choice.tile.halo), far, errors, units.weight, units.mu, units.unit_ptr, grad_blurred,
        macros={"DAU_STORAGE": call.storage, "DAU_HALO": choice.tile.halo, "DAU_EXACT": int(exact)},
    )  # fmt: skip


def _unit_gradients(
    call: Call,
    choice: Choice,
    exact: bool,
    far: Tensor,
    images: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    sums: Tensor,
    grads: tuple[Tensor, Tensor],
) -> None:
    """Gradients of weight and mu: the blocks' sums added up, then those of far units."""
    units, halo = call.units, choice.tile.halo
    macros = {"DAU_EXACT": int(exact)}
    x, y = SUM_THREADS
    call.launch(
        "backward.cu", "dau_sum_gradients", (-(-units.count // x),), SUM_THREADS,
        call.sizes(halo), units.weight, units.mu, sums, ctypes.c_int(sums.shape[0]), *grads,
        macros={**choice.tile.macros(), **macros}, shared_bytes=4 * sums.shape[2] * x * y,
    )  # fmt: skip
    call.launch(
        "far.cu", "dau_far_gradients", (min(units.count, FAR_BLOCKS),), (THREADS,),
        call.sizes(halo), far, *images, units.weight, units.mu, units.unit_ptr, *grads,
        macros={"DAU_STORAGE": call.storage, "DAU_HALO": halo, **macros}, shared_bytes=FAR_BYTES,
    )  # fmt: skip


def _sum_splits(
    call: Call,
    choice: Choice,
    parts: Tensor,
    bias: Tensor | None,
    output: Tensor,
    plane_and_channels: tuple[int, int],
    macros: dict[str, int],
) -> None:
    """Add up the parts of a split sum, in their order."""
    count = output.numel()
    call.launch(
        "sums.cu", "dau_sum_splits", (-(-count // THREADS),), (THREADS,),
        call.sizes(splits=choice.splits), parts, bias, output, ctypes.c_longlong(count),
        *map(ctypes.c_int, plane_and_channels), macros=macros,
    )  # fmt: skip


def _records(call: Call) -> Tensor:
    """Records of four floats for every unit and a sentinel."""
    return torch.empty(call.units.count + 1, 4, dtype=torch.float32, device=call.device)
