"""Compare ways to train layers that read at whole pixels, by short trainings: ``python study.py DATA LOG``.

DATA is the folder of the full Fashion-MNIST. Every run that ends appends a line of JSON to LOG; runs that LOG has
already are left out, so that a study that was stopped goes on where it was. ``summarize.py`` makes the table.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.datasets import ImageDataset, load_folder
from daukit.nn import DAUConv2d, parameter_groups, project_displacements

STEPS, BATCH, LR, DECAY = 1000, 32, 0.05, 5e-4


@dataclass(frozen=True)
class Method:
    """A way to train; shares are of all steps.

    Attributes:
        layer: ``"dau"``, or ``"conv"`` for the twin with 3x3 convolutions.
        gradient: of displacements, the paper's or the exact one.
        mu_factor: displacements learn at this multiple of the rate of weights.
        straight_from: from here on units read at rounded displacements, the gradient passed straight through.
        soften_from: from here to ``snap_at`` cells sharpen: the way between two pixels becomes a step.
        snap_at: here displacements are rounded for good, and weights train on; None: never.
        apart: no two units of a pair are rounded to one pixel.
        refit: fit weights to the old filters when units snap.
        split: when units snap, each becomes the (up to four) pixels that it read; a pair keeps this many.
    """

    layer: str = "dau"
    gradient: str = "gaussian"
    mu_factor: float = 100
    straight_from: float = math.inf
    soften_from: float = math.inf
    snap_at: float | None = None
    apart: bool = False
    refit: bool = False
    split: int | None = None


METHODS = {
    "conv": Method(layer="conv"),
    "bilinear": Method(),
    "bilinear, slower": Method(mu_factor=10),
    "straight": Method(straight_from=0),
    "straight, slower": Method(straight_from=0, mu_factor=10),
    "straight, apart": Method(straight_from=0, apart=True),
    "soften to 0.5": Method(soften_from=0, snap_at=0.5),
    "soften 0.25 to 0.75": Method(soften_from=0.25, snap_at=0.75),
    "snap 0.25": Method(snap_at=0.25),
    "snap 0.25, slower": Method(snap_at=0.25, mu_factor=10),
    "snap 0.5": Method(snap_at=0.5),
    "snap 0.75": Method(snap_at=0.75),
    "snap 0.5, apart, refit": Method(snap_at=0.5, apart=True, refit=True),
    "snap 0.75, apart, refit": Method(snap_at=0.75, apart=True, refit=True),
    "split in 6 at 0.5": Method(snap_at=0.5, split=6),
}
COMPARED = (
    ("conv", 0), ("bilinear", 2), ("snap 0.25", 2), ("snap 0.5", 2), ("snap 0.5", 6), ("split in 6 at 0.5", 2),
    ("snap 0.5, apart, refit", 2), ("straight", 2), ("straight, slower", 2), ("soften to 0.5", 2), ("snap 0.75", 2),
    ("snap 0.75, apart, refit", 2), ("soften 0.25 to 0.75", 2), ("straight, apart", 2), ("bilinear, slower", 2),
    ("snap 0.25, slower", 2), ("snap 0.25, slower", 4), ("snap 0.25, slower", 6), ("bilinear, slower", 4),
)  # fmt: skip
NETWORKS = ("shallow", "deep")
RUNS = [(network, *each, seed) for each in COMPARED for seed in range(3) for network in NETWORKS]


class Layer(DAUConv2d):
    """A DAU layer whose cells may be steeper than bilinear ones."""

    slope = 1.0  # of the way between two pixels, in its middle; infinite: rounding
    apart = False

    def displacements(self) -> Tensor:
        """Where units read, (2, O, C, K); the gradient is passed straight through."""
        if self.slope == 1:
            return self.mu
        mu = self.mu.detach()
        if math.isinf(self.slope):
            read = apart(mu) if self.apart else mu.round()
        else:
            read = mu.floor() + (0.5 + self.slope * (mu - mu.floor() - 0.5)).clamp(0, 1)
        return self.mu + (read - mu)


def apart(mu: Tensor) -> Tensor:
    """The nearest whole pixels, each unit's among those that no earlier unit of its pair has: like ``mu``."""
    steps = torch.stack(torch.meshgrid(torch.arange(-2.0, 3), torch.arange(-2.0, 3), indexing="ij")).flatten(1)
    taken = torch.full_like(mu, math.inf)
    for unit in range(mu.shape[-1]):
        here = mu[..., unit, None]
        pixels = here.round() + steps[:, None, None]  # (2, O, C, 25)
        cost = (pixels - here).square().sum(0)
        free = (pixels[..., None] != taken[..., None, :]).any(0).all(-1)
        best = torch.where(free, cost, math.inf).argmin(-1)
        taken[..., unit] = pixels.gather(-1, best.expand(2, *best.shape)[..., None])[..., 0]
    return taken


def build(network: str, method: Method, units: int) -> nn.Sequential:
    """Build a network: ``"shallow"`` is near ``shallow_dau``; ``"deep"`` has four layers and a mean over pixels."""

    def layer(inputs: int, outputs: int) -> nn.Module:
        if method.layer == "conv":
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return Layer(inputs, outputs, units, init="uniform", mu_gradient=method.gradient, bias=False)  # type: ignore[arg-type]

    plan = (16, "pool", 16, 32, "pool") if network == "shallow" else (16, "pool", 16, 16, 32)
    modules: list[nn.Module] = []
    channels = 1
    for part in plan:
        if isinstance(part, int):
            modules += [layer(channels, part), nn.BatchNorm2d(part), nn.ReLU()]
            channels = part
        else:
            modules.append(nn.MaxPool2d(2))
    modules += [nn.Flatten(), nn.Linear(32 * 9, 10)] if network == "shallow" else [_Mean(), nn.Linear(32, 10)]
    return nn.Sequential(*modules)


class _Mean(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


@torch.no_grad()
def snap(layer: Layer, method: Method) -> None:
    """Move a layer's units to whole pixels for good."""
    layer.slope = 1.0
    old_weight, old_mu = layer.weight.clone(), layer.mu.clone()
    if method.split:
        split(layer, method.split)
    else:
        layer.mu.copy_(apart(layer.mu) if method.apart else layer.mu.round())
    if method.refit:
        refit(layer, old_weight, old_mu)
    layer.mu.requires_grad_(False)


def split(layer: Layer, units: int) -> None:
    """Replace each unit by those of the pixels that it reads that weigh most, ``units`` a pair."""
    weight, mu = taps(layer.weight, layer.mu)
    for unit in range(weight.shape[-1]):  # those on one pixel become one
        same = (mu[..., unit:] == mu[..., unit, None]).all(0)
        total = torch.where(same, weight[..., unit:], 0).sum(-1)
        weight[..., unit:][same] = 0
        weight[..., unit] = total
    best = weight.abs().topk(units).indices
    layer.weight = nn.Parameter(weight.gather(-1, best))
    layer.mu = nn.Parameter(mu.gather(-1, best.expand(2, *best.shape)))
    layer.units = units


def taps(weight: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """The four pixels that each unit reads: weights (O, C, 4 K) and places (2, O, C, 4 K)."""
    low = mu.floor()
    f = mu - low
    weights, places = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            weights.append(weight * (f[0] if dy else 1 - f[0]) * (f[1] if dx else 1 - f[1]))
            places.append(low + torch.tensor([dy, dx]).reshape(2, 1, 1, 1))
    return torch.cat(weights, -1), torch.cat(places, -1)


def refit(layer: Layer, old_weight: Tensor, old_mu: Tensor) -> None:
    """Set weights so that each pair's blurred filter is nearest, by least squares, to the one before."""
    assert isinstance(layer.sigma, float)
    reach = torch.arange(-8, 9)
    blur = torch.exp(-(reach**2) / (2 * layer.sigma**2))
    blur = blur / blur.sum()
    overlap = torch.nn.functional.conv1d(blur[None, None], blur[None, None], padding=16)[0, 0]  # of blurs 0, 1.. apart

    def product(a: Tensor, b: Tensor) -> Tensor:  # (O, C, K, M) from (2, O, C, K) and (2, O, C, M)
        apart = (a[..., :, None] - b[..., None, :]).long().clamp(-16, 16) + 16
        return overlap[apart[0]] * overlap[apart[1]]

    weight, places = taps(old_weight, old_mu)
    gram = product(layer.mu, layer.mu).double()
    gram += 1e-6 * torch.eye(gram.shape[-1])  # units on one pixel share a weight
    right = (product(layer.mu, places).double() @ weight.double()[..., None])[..., 0]
    layer.weight.copy_(torch.linalg.solve(gram, right))


def slope(method: Method, progress: float) -> float:
    """The steepness of cells at a share of the steps."""
    if progress >= method.straight_from:
        return math.inf
    if progress <= method.soften_from:
        return 1.0
    assert method.snap_at is not None
    return 1 / max(1e-6, 1 - (progress - method.soften_from) / (method.snap_at - method.soften_from))


def train(model: nn.Sequential, method: Method, images: Tensor, labels: Tensor, seed: int) -> float:
    """Train in place; return the mean loss of the last tenth of the steps."""
    layers = [module for module in model if isinstance(module, Layer)]
    for layer in layers:
        layer.apart = method.apart
    optimizer = torch.optim.SGD(parameter_groups(model, LR, method.mu_factor * LR, DECAY), lr=LR, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    order, losses, is_snapped = torch.empty(0, dtype=torch.int64), [], method.snap_at is None
    model.train()
    for step in range(STEPS):
        progress = step / STEPS
        for group in optimizer.param_groups:
            group["lr"] = (
                (method.mu_factor if group["name"] == "mu" else 1) * LR * 0.5 * (1 + math.cos(math.pi * progress))
            )
        if not is_snapped and method.snap_at is not None and progress >= method.snap_at:
            for layer in layers:
                snap(layer, method)
            optimizer, is_snapped = fresh(optimizer, model), True
        if not is_snapped or method.snap_at is None:
            for layer in layers:
                layer.slope = slope(method, progress)
        if len(order) < BATCH:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[:BATCH], order[BATCH:]
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project_displacements(model)
        losses.append(loss.item())
    return sum(losses[-STEPS // 10 :]) / (STEPS // 10)


def fresh(old: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """An optimiser for the parameters that the model has now, with the momenta of those that it had before."""
    new = torch.optim.SGD(parameter_groups(model, LR, LR, DECAY), lr=LR, momentum=0.9)
    for parameter in model.parameters():
        if parameter in old.state and parameter.requires_grad:
            new.state[parameter] = old.state[parameter]
    return new


@torch.no_grad()
def measure(model: nn.Sequential, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and loss on test images."""
    model.eval()
    scores = torch.cat([model(part) for part in images.split(500)])
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return {"accuracy": round(accuracy, 4), "test_loss": round(F.cross_entropy(scores, labels).item(), 4)}


def run(network: str, name: str, units: int, seed: int, sets: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Train and measure one network."""
    method = METHODS[name]
    torch.manual_seed(seed)
    started = time.perf_counter()
    model = build(network, method, units)
    loss = train(model, method, *sets[0], seed)
    result: dict[str, Any] = {"network": network, "method": name, "units": units, "seed": seed, **asdict(method)}
    result |= {"train_loss": round(loss, 4), **measure(model, *sets[1])}
    layers = [module for module in model if isinstance(module, Layer)]
    result["whole"] = all(torch.equal(d := layer.displacements(), d.round()) for layer in layers) and bool(layers)
    if layers and not result["whole"]:  # rounded at the end, without training on
        with torch.no_grad():
            for layer in layers:
                layer.mu.round_()
        result["rounded"] = measure(model, *sets[1])["accuracy"]
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def normalized(data: ImageDataset) -> tuple[Tensor, Tensor]:
    """Images at half their size, (N, 1, 14, 14), and labels."""
    return F.avg_pool2d(data.preprocessing().normalize(data.images), 2), data.labels


def main() -> None:
    """Run what the log has not."""
    folder, log = Path(sys.argv[1]), Path(sys.argv[2])
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {(line["network"], line["method"], line["units"], line["seed"]) for line in done}
    sets = [normalized(load_folder(folder, "train")), normalized(load_folder(folder, "test"))]
    for each in RUNS:
        if each not in known:
            result = run(*each, sets)
            with log.open("a") as file:
                file.write(json.dumps({k: v for k, v in result.items() if v is not None and v != math.inf}) + "\n")


if __name__ == "__main__":
    main()
