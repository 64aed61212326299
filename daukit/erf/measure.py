"""Measure effective receptive fields: one forward pass for all layers, one backward pass per output channel."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from daukit.erf.arithmetic import input_position
from daukit.erf.field import MASSES, ReceptiveField

Measure = Literal["absolute", "squared", "signed"]
MEASURES: tuple[Measure, ...] = ("absolute", "squared", "signed")


def effective_receptive_field(
    model: nn.Module,
    layers: str | Sequence[str],
    inputs: Tensor,
    measure: Measure = "absolute",
    *,
    masses: Sequence[float] = MASSES,
    batch_size: int = 16,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[ReceptiveField]:
    """Measure how much every input pixel influences the middle output of each layer (Luo et al., 2017).

    What is differentiated by the input is the module's own output (its first, where it is called several times) at
    position ``(h // 2, w // 2)``, with the model in eval mode. The forward pass stops once all layers are reached, so
    the inputs need only fit the layers up to there. The model is left as it was, its parameters' gradients included.

    Args:
        model: any module; it must treat the images of a batch independently.
        layers: names of modules whose output is (N, O, h, w).
        inputs: (N, C, H, W), what the model takes, on its device.
        measure: ``"absolute"``: for each output channel the absolute gradients summed over input channels, then the
            mean over output channels and images; ``"squared"``: the same with squares, for which theory has closed
            forms; ``"signed"``: the plain mean of the gradients, whose absolute value is then the influence.
        masses: shares of the influence that contours are to enclose, each within (0, 1].
        batch_size: images times output channels that are differentiated at once; memory grows with it.
        on_batch: called with (backward passes done, backward passes in all).

    Returns:
        One field per layer, in the order of ``layers``.

    Raises:
        ValueError: a layer is unknown, is not reached, has no (N, O, h, w) output, or a gradient that is not finite or
            all zero; the model cannot take such inputs; or an argument breaks a rule above.

    Example:
        >>> (field,) = effective_receptive_field(nn.Conv2d(3, 8, 5), "", torch.rand(2, 3, 15, 15))
        >>> field.center, field.contours[-1].area
        ((7.0, 7.0), 25)
    """
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    modules = _find(model, names)
    _check(inputs, measure, masses, batch_size)
    centers: dict[str, tuple[float, float] | None] = {}
    images = min(len(inputs), batch_size)
    copies = 1 if measure == "signed" else max(1, batch_size // images)
    done, chunks = 0, torch.split(inputs, images)
    # Not only enable_grad: that would not reach out of a caller's inference_mode.
    with _frozen(model), torch.inference_mode(False):
        gradients = {name: torch.zeros(inputs.shape[2:], dtype=torch.float64) for name in names}
        for chunk in chunks:
            leaf = chunk.detach().repeat_interleave(copies, 0).requires_grad_()  # (images * copies, C, H, W)
            probes = _forward(model, modules, leaf)
            total = len(chunks) * sum(_passes(probe, copies, measure) for probe in probes.values())
            for name, probe in probes.items():
                centers[name] = probe.center
                for part in _gradients(probe.outputs, leaf, copies, measure):
                    gradients[name] += part
                    done += 1
                    if on_batch is not None:
                        on_batch(done, total)
    return [ReceptiveField.of(name, gradients[name], centers[name], masses) for name in names]


class _Probe(NamedTuple):
    """What a forward pass leaves of one layer: its outputs at the probed position (N, O), and where that looks."""

    outputs: Tensor
    center: tuple[float, float] | None


class _AllReached(BaseException):
    """Ends a forward pass; no ``Exception``, so that no model can take it for a failure of its own."""


def _find(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    if not names:
        raise ValueError("name at least one layer")
    for name in names:
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the model has no layer {name!r}{hint}")
    return {name: modules[name] for name in names}


def _check(inputs: Tensor, measure: str, masses: Sequence[float], batch_size: int) -> None:
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating-point (N, C, H, W), got {inputs.dtype} {tuple(inputs.shape)}")
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    if not masses or not all(0 < mass <= 1 for mass in masses):
        raise ValueError(f"masses must be shares within (0, 1], got {tuple(masses)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and parameters without gradients inside; as it was outside."""
    modes = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in learned:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode  # one by one: a model may keep some of its modules in another mode


def _forward(model: nn.Module, modules: dict[str, nn.Module], leaf: Tensor) -> dict[str, _Probe]:
    probes: dict[str, _Probe] = {}

    def reach(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name not in probes:
                probes[name] = _probe(name, output, leaf)
            if len(probes) == len(modules):
                raise _AllReached

        return hook

    handles = [module.register_forward_hook(reach(name)) for name, module in modules.items()]
    try:
        model(leaf.clone())  # a model may change its input in place, and a leaf must not change
    except _AllReached:
        pass
    except RuntimeError as error:
        raise ValueError(f"the model's forward pass failed on inputs {tuple(leaf.shape)}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in modules if name not in probes]
    if missing:
        raise ValueError(f"the model's forward pass did not reach the layers {missing}")
    return probes


def _probe(name: str, output: Any, leaf: Tensor) -> _Probe:
    if not isinstance(output, Tensor) or output.dim() != 4 or len(output) != len(leaf):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer {name!r} must give maps (N, O, h, w), one per input, got {got} for {len(leaf)} inputs")
    if output.grad_fn is None or not output.numel():
        raise ValueError(f"layer {name!r} gives {tuple(output.shape)}, which does not depend on the input")
    height, width = output.shape[2:]
    position = (height // 2, width // 2)
    # A copy, and the node as it is now: the next module may change the output in place.
    outputs = output[:, :, position[0], position[1]].clone()  # (N, O)
    return _Probe(outputs, input_position(output.grad_fn, leaf, position))


def _passes(probe: _Probe, copies: int, measure: Measure) -> int:
    return 1 if measure == "signed" else math.ceil(probe.outputs.shape[1] / copies)


def _gradients(outputs: Tensor, leaf: Tensor, copies: int, measure: Measure) -> Iterator[Tensor]:
    """Backward passes of one layer, each reduced to (H, W) float64: ``copies`` output channels of every image at once.

    The sum over channels and images stands for the mean: a field has no scale.
    """
    channels = outputs.shape[1]
    images = len(outputs) // copies
    # The signed gradients of all channels add up, so that one pass gives them all.
    directions = torch.ones(1, channels) if measure == "signed" else torch.eye(channels)
    for chosen in torch.split(directions.to(outputs), copies):
        rows = outputs.new_zeros(copies, channels)
        rows[: len(chosen)] = chosen
        (gradient,) = torch.autograd.grad(
            outputs, leaf, rows.repeat(images, 1), retain_graph=True, materialize_grads=True
        )  # (images * copies, C, H, W)
        # In float64 before squaring, which float32 may not survive; on the CPU, since not every device has float64.
        gradient = gradient.cpu().double()
        if measure == "absolute":
            gradient = gradient.abs()
        elif measure == "squared":
            gradient = gradient.square()
        yield gradient.sum((0, 1))  # (H, W)
