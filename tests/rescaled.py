"""Networks to rescale, and their comparison with the network before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import Checkpoint, build_model, from_model
from daukit.models import create_model
from daukit.rescale import Mode, RescaleReport, remove_pools

POOLS: dict[str, Callable[[], nn.Module]] = {
    "max 2/2": lambda: nn.MaxPool2d(2),
    "max 3/2": lambda: nn.MaxPool2d(3, 2),
    "max 3/2 padded": lambda: nn.MaxPool2d(3, 2, padding=1),
    "max 2/2 padded": lambda: nn.MaxPool2d(2, 2, padding=1),
    "max 2/3": lambda: nn.MaxPool2d(2, 3),
    "max 2/2 ceil": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "max 3/2 ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max 3/2 padded ceil": lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max 2/3 ceil": lambda: nn.MaxPool2d(2, 3, ceil_mode=True),
    "max 2x3/2 padded ceil": lambda: nn.MaxPool2d((2, 3), 2, padding=(0, 1), ceil_mode=True),
    "max dilated": lambda: nn.MaxPool2d(2, 2, dilation=2),
    "average 2/2": lambda: nn.AvgPool2d(2),
    "average 3/2 padded": lambda: nn.AvgPool2d(3, 2, padding=1),
}
STRIDES = {name: 3 if "/3" in name else 2 for name in POOLS}
CHOICES = [c for n in (1, 2, 3) for c in itertools.combinations(("pool1", "pool2", "pool3"), n)]


def three_pools(pool: str) -> nn.Sequential:
    """DAU layers and plain convolutions around three equal pools, with maps that are negative as often as positive."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(1, 2, 3, padding=1),
        "pool1": POOLS[pool](),
        "conv2": daukit.DAUConv2d(2, 3, 2),
        "bn2": nn.BatchNorm2d(3),
        "pool2": POOLS[pool](),
        "conv3": nn.Conv2d(3, 2, 3, padding=2),
        "pool3": POOLS[pool](),
        "conv4": daukit.DAUConv2d(2, 2, 2, stride=2),
        "conv5": nn.Conv2d(2, 2, (1, 3), padding=(0, 1), stride=(1, 2)),
    }
    return network_of(layers)


class Residual(nn.Module):
    """A pool, a residual block, a concatenation of two pooled branches, and a global pool."""

    def __init__(self, second: str = "max 3/2 padded", globally: str = "module") -> None:
        super().__init__()
        self.globally = globally
        self.stem, self.pool = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)
        self.body, self.skip = daukit.DAUConv2d(2, 2, 2), nn.Conv2d(2, 2, 1)
        self.left, self.right = nn.MaxPool2d(3, 2, padding=1), POOLS[second]()
        self.mix = nn.Conv2d(4, 3, 3, padding=1)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        x = F.relu(self.body(x) + self.skip(x))
        x = self.mix(torch.cat([self.left(x), self.right(x)], dim=1))
        if self.globally == "none":
            return x
        x = self.gap(x) if self.globally == "module" else x.mean(dim=(2, 3), keepdim=True)
        return self.head(self.flatten(x))


def alexnet_imitation() -> nn.Sequential:
    """AlexNet's plan: pools behind layers 1, 2 and 5, DAU layers 2 to 5, and three linear layers; 67 x 67 images."""
    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, 2, 11, stride=4, padding=2), "pool1": nn.MaxPool2d(3, 2)}
    layers |= {"conv2": daukit.DAUConv2d(2, 2, 2), "pool2": nn.MaxPool2d(3, 2)}
    layers |= {f"conv{i}": daukit.DAUConv2d(2, 2, 2) for i in (3, 4, 5)}
    layers |= {"pool5": nn.MaxPool2d(3, 2, ceil_mode=True), "flatten": nn.Flatten(), "fc6": nn.Linear(2, 4)}
    layers |= {"relu6": nn.ReLU(), "drop6": nn.Dropout(), "fc7": nn.Linear(4, 4), "fc8": nn.Linear(4, 5)}
    return network_of(layers)


def single(kind: str) -> nn.Sequential:
    """A pool and one layer behind it, of the kind that a test asks for."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "reflect": lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        "same even": lambda: nn.Conv2d(1, 1, 2, padding="same"),
        "same odd": lambda: nn.Conv2d(1, 1, 3, padding="same"),
        "group norm": lambda: nn.GroupNorm(1, 1),
        "average ceil": lambda: nn.AvgPool2d(2, ceil_mode=True),
        "average border": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
        "zero pad": lambda: nn.ZeroPad2d((1, 2, 0, 1)),
        "constant pad": lambda: nn.ConstantPad2d((1, 2, 0, 1), 0.25),
        "gaussian": lambda: daukit.DAUConv2d(1, 2, 2, form="gaussian"),
        "learned": lambda: daukit.DAUConv2d(1, 2, 2, learn_sigma=True, groups=1),
        "flatten all": lambda: nn.Flatten(2),
    }
    return network_of({"stem": nn.Conv2d(1, 1, 1), "pool": nn.MaxPool2d(2), "layer": layers[kind]()})


class Calls(nn.Module):
    """A pool and something that a graph cannot follow, or that no file can replace."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.pool, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Linear(18, 2)

    def forward(self, x: Tensor) -> Any:
        if self.kind == "decides" and x.sum() > 0:
            return x
        x = self.pool(self.conv(x))
        if self.kind == "twice":
            return self.conv(x.mean(1, keepdim=True))
        return (x, x) if self.kind == "two outputs" else self.head(torch.flatten(x, 1))


def network_of(layers: dict[str, nn.Module]) -> nn.Sequential:
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def factory_name(factory: Callable[..., nn.Module]) -> str:
    return f"{factory.__module__}:{factory.__name__}"


def checkpoint_of(factory: Callable[..., nn.Module] | str, seed: int = 0, **config: Any) -> Checkpoint:
    """A checkpoint with random displacements within +-3 and random statistics; in memory, with no file behind it."""
    torch.manual_seed(seed)
    named = isinstance(factory, str)
    network = create_model(factory, **config) if isinstance(factory, str) else factory(**config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, daukit.DAUConv2d):
                module.mu.uniform_(-3, 3)
                module.weight.normal_()
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    architecture = None if named else {"factory": factory_name(factory), "config": config}
    return from_model(network, architecture=architecture)


def built(checkpoint: Checkpoint) -> nn.Module:
    return build_model(checkpoint, model=checkpoint.header.architecture.get("factory")).double()


def removed(
    checkpoint: Checkpoint, names: Sequence[str], mode: Mode, **options: Any
) -> tuple[Checkpoint, RescaleReport]:
    return remove_pools(checkpoint, names, mode, model=checkpoint.header.architecture.get("factory"), **options)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@torch.no_grad()
def assert_same_at_coarse_positions(
    before: Checkpoint, after: Checkpoint, image: Tensor, stride: int, until: str | None = None
) -> None:
    """The promise of mode exact, at every coarse position and to 1e-6 of the largest output."""
    coarse, fine = output_of(built(before), image, until), output_of(built(after), image, until)
    common = fine[..., ::stride, ::stride]
    assert common.shape == coarse.shape
    assert (common - coarse).abs().max() <= 1e-6 * coarse.abs().max()
    assert coarse.abs().max() > 0


def output_of(network: nn.Module, image: Tensor, until: str | None) -> Tensor:
    """What the network returns, or what its module ``until`` does."""
    seen = [network(image)]
    if until is not None:
        network.get_submodule(until).register_forward_hook(lambda module, inputs, output: seen.append(output))
        network(image)
    return seen[-1]
