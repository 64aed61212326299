"""Measure effective receptive fields: one forward pass for all layers, one backward pass per output channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from daukit.distributed import ALONE, Ranks
from daukit.erf.field import MASSES, About, ReceptiveField
from daukit.erf.passes import Passes
from daukit.erf.probing import MEASURES, Measure
from daukit.erf.survey import survey_layers
from daukit.limits import check_type, either, every, is_number, is_text
from daukit.nn.wrappers import unwrapped
from daukit.receptive_field.forward import find_layers, frozen

LEAST_IMAGES = 8
"""Least number of images from which the stability of a radius is estimated."""

_AT_ONCE = 4
"""Most images between two looks at how stable a radius is."""

_LATER = 1.25
"""Factor by which the images must grow before stability is looked at again: each look takes time and may err."""


def effective_receptive_field(
    model: nn.Module,
    layers: str | Sequence[str],
    inputs: Tensor,
    measure: Measure = "absolute",
    *,
    masses: Sequence[float] = MASSES,
    about: About = "center",
    tokens: tuple[int, int] | None = None,
    probes: int | None = None,
    until_stable: float | None = None,
    seed: int = 0,
    crop: bool = True,
    batch_size: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> list[ReceptiveField]:
    """Measure how much every input pixel influences the middle output of each layer (Luo et al., 2017).

    The module's own output (its first, if it is called several times) at position ``(h // 2, w // 2)`` is
    differentiated by the input, with the model in eval mode. The forward pass stops once all layers are reached, so
    the inputs need only fit the layers up to there. The model is left as it was, its parameters' gradients included.

    Args:
        model: any module; it must treat the images of a batch independently.
        layers: names of modules that give maps: (N, C, h, w), or with height and width along other dimensions, as in
            (N, h, w, C) and (N, h * w, C), wherever the network's operations determine which.
        inputs: (N, C, H, W), what the model takes, on its device.
        measure: ``"absolute"``: for each output channel the absolute gradients summed over input channels, then the
            mean over output channels and images; ``"squared"``: the same with squares, for which theory has closed
            forms; ``"signed"``: the plain mean of the gradients, whose absolute value is then the influence.
        masses: shares of the influence that contours are to enclose, each within (0, 1].
        about: the point that ``Contour.reach`` is measured from; the centroid if the center is not known.
        tokens: (height, width) of the map, for outputs (N, tokens, C) if operations do not determine it. Tokens before
            them, as a class token, are left out.
        probes: differentiate this many mixtures of all output channels with random signs instead of every channel:
            an unbiased estimate of the squared measure, and of no other.
        until_stable: stop adding images when the 95 % interval of the 50 % radius of every layer reaches no more than
            this share of it to either side of its middle; 8 images at least, those of ``inputs`` at most.
        seed: of the probes' signs and of the resampling behind their errors.
        crop: compute only what of the input the probed outputs can see, where that changes nothing.
        batch_size: images times output channels that are differentiated at once; default: as many as keep the maps of
            a forward pass within 1 GiB, 32 at most.
        on_batch: called with (backward passes done, backward passes in all).
        ranks: the processes that divide the inputs, which all have; each returns the fields of all inputs.

    Returns:
        One field per layer, in the order of ``layers``.

    Raises:
        ValueError: a layer is unknown or not reached, gives no map or one of unknown layout, or its gradient is not
            finite or all zero; or an argument breaks a rule above.
        NetworkError: the model's forward or backward fails on such inputs.

    Example:
        >>> (field,) = effective_receptive_field(nn.Conv2d(3, 8, 5), "", torch.rand(2, 3, 15, 15))
        >>> field.center, field.contours[-1].area
        ((7.0, 7.0), 25)
    """
    model = unwrapped(model, "effective_receptive_field")
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor (N, C, H, W), got {type(inputs).__name__}")
    check_type(layers, either(is_text, every(is_text)), "layers must be a name or a list of names")
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    modules = find_layers(model, names)
    _check(inputs, measure, masses, about, probes, until_stable, batch_size)
    # Not only enable_grad: that would not reach out of a caller's inference_mode.
    with frozen(model), torch.inference_mode(False), torch.enable_grad():
        survey = survey_layers(model, modules, inputs[:1], crop=crop, tokens=tokens)
        most = len(inputs) if until_stable is None else _AT_ONCE
        passes = Passes(
            model, modules, survey, measure, probes=probes, seed=seed, batch_size=batch_size, most=most, ranks=ranks
        )
        chunks = inputs.split(passes.images)
        done, total, check = 0, len(chunks) * passes.per_chunk, LEAST_IMAGES
        for chunk in chunks:
            for _ in passes.add(chunk):
                done += 1
                if on_batch is not None:
                    on_batch(done, total)
            if until_stable is not None and passes.number >= check:
                if passes.are_stable(until_stable):
                    break
                check = math.ceil(_LATER * passes.number)
    return [passes.field(name, masses, about) for name in names]


def _check(
    inputs: Tensor,
    measure: str,
    masses: Sequence[float],
    about: str,
    probes: int | None,
    until_stable: float | None,
    batch_size: int | None,
) -> None:
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating-point (N, C, H, W), got {inputs.dtype} {tuple(inputs.shape)}")
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    if about not in ("center", "centroid"):
        raise ValueError(f"about must be center or centroid, got {about!r}")
    check_type(masses, every(is_number), "masses must be a list of shares")
    if not masses or not all(0 < mass <= 1 for mass in masses):
        raise ValueError(f"masses must be shares within (0, 1], got {tuple(masses)}")
    if probes is not None and measure != "squared":
        raise ValueError(f"probes estimate the squared measure only, got measure {measure!r}; drop them or square")
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be positive, got {probes}")
    if until_stable is not None and not until_stable > 0:
        raise ValueError(f"until_stable must be a positive share of the radius, got {until_stable}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
