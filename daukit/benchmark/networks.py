"""Times of networks beside their twins with convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from daukit.benchmark.layers import REACH
from daukit.benchmark.timing import Quartiles, interleave, without_grad
from daukit.models import create_model
from daukit.nn import DAUConv2d


def bench_training(*, batch: int = 128, rounds: int = 5, seed: int = 0) -> dict[str, Quartiles]:
    """Time a training step of the shallow network (section 4.1, K = 2) and of its 3x3 twin on noise."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(batch, 1, 28, 28, generator=generator), torch.arange(batch) % 10

    def step(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return run

    return interleave(
        {
            "training step 3x3": step(create_model("shallow")),
            "training step DAU K=2": step(create_model("shallow_dau", units=2)),
        },
        rounds,
    )


INFERENCE = {"resnet50": (8, 3, 224, 224), "alexnet": (8, 3, 227, 227)}
"""Networks whose inference is timed, with the shape of their input."""


def bench_inference(name: str, *, rounds: int = 5) -> dict[str, Quartiles]:
    """Time a network of ``INFERENCE`` on noise, with convolutions and with DAUs."""
    images = torch.randn(INFERENCE[name], generator=torch.Generator().manual_seed(0))

    def classify(model: nn.Module) -> Callable[[], object]:
        return without_grad(lambda: model(images))

    twins = {twin: classify(create_model(twin).eval()) for twin in (name, f"{name}_dau")}
    return interleave(twins, rounds)


def bench_gamma(*, batch: int = 8, rounds: int = 5) -> dict[str, Quartiles]:
    """Time the network of section 4.4, three layers of 192 channels at 32x32, with 9x9 filters and with two units.

    The paper's Eq. 17 promises a speed-up of ``gamma = 9 * 9 / (4 * 2)``, counted in products.
    """
    x = torch.randn(batch, 192, 32, 32, generator=torch.Generator().manual_seed(0))
    dense = nn.Sequential(*(nn.Conv2d(192, 192, 9, padding=4) for _ in range(3)))
    displaced = nn.Sequential(*(DAUConv2d(192, 192, 2, max_displacement=REACH) for _ in range(3)))
    tasks = {"forward 9x9": lambda: dense(x), "forward DAU K=2": lambda: displaced(x)}
    return interleave({name: without_grad(task) for name, task in tasks.items()}, rounds)


BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))
"""Output channels of a stack's blocks, as multiples of the first layer's, and strides: those of MobileNet."""


def depthwise_stack(width: int = 32, num_classes: int = 1000) -> nn.Sequential:
    """A network like MobileNet (Howard et al., 2017): depthwise 3x3 and 1x1 convolutions in turn, all normalised.

    Maps (N, 3, H, W) to (N, num_classes).

    Args:
        width: channels of the first layer.
        num_classes: outputs.
    """

    def block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers, channels = block(3, width, 3, stride=2), width
    for factor, stride in BLOCKS:
        layers += block(channels, channels, 3, stride, groups=channels) + block(channels, factor * width, 1)
        channels = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
