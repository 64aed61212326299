"""The proof by numbers: both networks on the same noise, compared at the positions that both have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn

from daukit.checkpoint import Checkpoint, Given, build_model, taken
from daukit.errors import NetworkError, in_words_of_caller
from daukit.models.graph import values_at
from daukit.models.inputs import TRIAL_SIZES, input_channels, known_input_size, noise_for
from daukit.models.running import run
from daukit.models.structure import Description, describe
from daukit.rescale.modes import Mode
from daukit.rescale.outcome import EXACT_LIMIT, Difference
from daukit.rescale.plan import Plan, plan
from daukit.rescale.strided import trace
from daukit.rescale.surgery import apply_edits, head_position, windows_of_heads


def examine(
    before: Checkpoint,
    after: Checkpoint,
    removed: Sequence[str],
    steps: Plan,
    mode: Mode,
    *,
    model: str | None,
    input_size: tuple[int, int] | None,
) -> Difference | None:
    """Run what a rescale made, before anybody writes it; in mode ``exact``, compare it with the network before.

    Args:
        before: the checkpoint before.
        after: the rescaled one.
        removed: names of pools and layers whose stride went.
        steps: the plan that was followed.
        mode: ``"paper"`` or ``"exact"``.
        model: as in ``daukit.load``.
        input_size: (height, width), where it is known.

    Returns:
        How far the networks are apart; None in mode ``paper``, or if no size is known and none of ``TRIAL_SIZES`` fits.

    Raises:
        NetworkError: the network before cannot be run on its input.
        ValueError: the new one cannot, or is not exact where it is to be.
    """
    coarse = build_model(before, model=model)
    size = _trial_size(coarse, trace(coarse), steps, input_size)
    if size is None:
        return None
    image = noise_for(coarse, 1, size, 0)
    run(coarse, image)
    try:
        fine = build_model(after, model=model)
        run(fine, image)
        if mode == "paper":
            return None
        difference = _compare(coarse, fine, removed, size)
    except (ValueError, NetworkError) as error:
        raise ValueError(f"maps behind the removed strides no longer fit each other: {error}") from None
    check_exact(difference)
    return difference


def check_exact(difference: Difference) -> None:
    """Raise ``ValueError`` if a difference breaks the promise of mode ``exact``."""
    if not difference.is_exact:
        raise ValueError(
            f"the rescaled network differs by {difference.relative:.2g} of the largest output at "
            f"{difference.positions} former positions and lacks {difference.missing}, where mode exact allows "
            f"{EXACT_LIMIT:g} and none: something behind the removed strides looks at more than it says. Mode paper "
            "makes no such promise, and needs training"
        )


def compare(
    before: Given,
    after: Given,
    pools: Sequence[str],
    *,
    strides: Sequence[str] = (),
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    positions: int = 1,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Difference:
    """Compare the network before with what ``remove_pools`` made of it, in float64 and eval mode.

    Both see the same two images of N(0, 1) noise. Behind a global pool the networks differ by design; there, what that
    pool reads is compared.

    Args:
        before: the checkpoint before, a path or a model likewise.
        after: what ``remove_pools`` made of it, likewise.
        pools: the names of pools that were given to it.
        strides: the names of layers that were given to it.
        model: as in ``daukit.load``.
        input_size: (height, width) of the noise, where the file does not say.
        positions: former positions to compare along each axis: where the input has fewer, the noise is larger, and
            linear layers behind a flattening predict for every window of it in the network before, too.
        seed: of the noise.
        device: where to run them.

    Raises:
        ValueError: the input size is unknown.
        NetworkError: a network cannot be run on it.
    """
    with taken(before, "compare", model) as coarse, taken(after, "compare", model) as fine:
        size = input_size or known_input_size(coarse.header.architecture, coarse.header.preprocessing)
        if size is None:
            raise ValueError(
                "the file does not tell the network's input size; pass "
                + in_words_of_caller("input_size=(height, width)", "--size H,W")
            )
        networks = build_model(coarse, model=model), build_model(fine, model=model)
        return _compare(*networks, (*pools, *strides), size, positions=positions, seed=seed, device=device)


def _compare(
    coarse: nn.Module,
    fine: nn.Module,
    removed: Sequence[str],
    size: tuple[int, int],
    *,
    positions: int = 1,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Difference:
    """Compare two networks as ``compare`` says; both are changed."""
    coarse, fine = (network.double().to(device) for network in (coarse, fine))
    graph = trace(coarse)
    steps = plan(coarse, graph, removed)
    ends, place = steps.ends, head_position(_descriptions(fine, steps.heads))
    generator = torch.Generator().manual_seed(seed)
    channels = input_channels(coarse, size)
    if positions > 1:
        size = _enlarge(coarse, graph, steps, (channels, *size), positions)
        graph = trace(coarse)  # its heads are windows now
    noise = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(device)
    old, new = values_at(coarse, graph, ends, noise), values_at(fine, trace(fine), ends, noise)
    pairs = [
        _common(old[node], new[node], factor, place if node in steps.predictions else None)
        for node, factor in ends.items()
    ]
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    relative = max(_share(float((a - b).abs().max()), float(a.abs().max())) for a, b in pairs)
    compared = sum(_positions(a) for a, _ in pairs)
    return Difference(
        largest=largest,
        relative=relative,
        positions=compared,
        missing=sum(map(_positions, old.values())) - compared,
        input_size=size,
    )


def _trial_size(
    network: nn.Module, graph: fx.Graph, steps: Plan, told: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The least size of images that gives two positions along both axes of what is compared, or the one told."""
    found = None
    for side in TRIAL_SIZES:
        if told is not None and (steps.heads or side >= min(told)):
            break
        try:
            ends = values_at(network, graph, steps.ends, noise_for(network, 1, (side, side), 0))
        except NetworkError:
            continue
        found = (side, side)
        if all(end.dim() == 4 and min(end.shape[-2:]) > 1 for end in ends.values()):
            return found
    return told or found


def _enlarge(
    network: nn.Module, graph: fx.Graph, steps: Plan, shape: tuple[int, int, int], positions: int
) -> tuple[int, int]:
    """A size that gives ``network`` so many positions along each axis; its linear heads become windows, in place."""
    tensors, size = network.state_dict(), shape[1:]
    device = next(iter(tensors.values())).device
    read = {name: steps.inputs[name] for name in steps.heads}
    maps = values_at(network, graph, {*steps.ends, *read.values()}, torch.zeros(1, *shape).double().to(device))
    shapes = {name: maps[node].shape for name, node in read.items()}
    edits = windows_of_heads(network, steps, tensors, {n: (s[1], s[2], s[3]) for n, s in shapes.items()})
    apply_edits(network, tensors, edits)
    network.double().to(device)  # new layers are not
    larger = []
    for side, axis in zip(size, (-2, -1), strict=True):
        least = min(maps[node].shape[axis] for node in (read.values() or steps.ends))
        more = positions - (1 if read else least)
        larger.append(side + max(0, more) * math.ceil(side / least))
    try:
        values_at(network, trace(network), (), torch.zeros(1, shape[0], *larger).double().to(device))
    except NetworkError:
        return size  # something in the network takes one size only
    return larger[0], larger[1]


def _descriptions(network: nn.Module, names: Sequence[str]) -> Iterator[Description]:
    for name in names:
        description = describe(network.get_submodule(name))
        assert description is not None  # remove_pools made it
        yield description


def _common(coarse: Tensor, fine: Tensor, factor: int, position: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Both maps at the positions that both have, (N, C, H, W); a vector is a map of one position, ``position``."""
    coarse, fine = (x[..., None, None] if x.dim() == 2 else x for x in (coarse, fine))
    top, left = position or (0, 0)
    fine = fine[..., top::factor, left::factor]
    height, width = min(coarse.shape[-2], fine.shape[-2]), min(coarse.shape[-1], fine.shape[-1])
    return coarse[..., :height, :width], fine[..., :height, :width]


def _positions(map: Tensor) -> int:
    return map.shape[-2] * map.shape[-1] if map.dim() == 4 else 1


def _share(part: float, whole: float) -> float:
    return part / whole if whole else part
