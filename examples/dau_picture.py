"""Draw what a displaced aggregation unit is: a 3x3 filter, and a DAU filter of the bundled network that learned.

Run it from anywhere: ``python examples/dau_picture.py picture.png``. It draws docs/images/dau.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import daukit

FOLDER = Path(__file__).parent / "fashion-mnist"
LAYER = "conv3"
REACH = 4.5


def filter_that_moved_most() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Where its units started and are, (2, K) each, their weights (K,) and their sigma.

    It is the filter with the greatest sum of distances, each times its unit's share of the weight.
    """
    before, after = (
        daukit.load(FOLDER / name).get_submodule(LAYER) for name in ("start.safetensors", "shallow_dau.safetensors")
    )
    assert isinstance(before, daukit.DAUConv2d) and isinstance(after, daukit.DAUConv2d)
    share = after.weight.abs() / after.weight.abs().sum(-1, keepdim=True)
    moved = (share * (after.mu - before.mu).norm(dim=0)).sum(-1)
    o, c = np.unravel_index(int(moved.argmax()), tuple(moved.shape))
    start, end = (layer.mu[:, o, c].detach().numpy() for layer in (before, after))
    weight = after.weight[o, c].detach().numpy()
    return start, end, weight / np.abs(weight).max(), float(after.sigma)


def gaussian_field(places: np.ndarray, weights: np.ndarray, sigma: float, size: int = 361) -> np.ndarray:
    """The filter that the units make, finely sampled (Eq. 2)."""
    y, x = np.meshgrid(*2 * [np.linspace(-REACH, REACH, size)], indexing="ij")
    units = zip(*places, weights, strict=True)
    return sum(w * np.exp(-((y - uy) ** 2 + (x - ux) ** 2) / (2 * sigma**2)) for uy, ux, w in units)


def pixels(axes: Axes, title: str) -> None:
    """An empty 9x9 pixel grid around the filter's centre."""
    for edge in np.arange(-REACH, REACH + 1):
        axes.axhline(edge, color="0.6", linewidth=0.4, alpha=0.5, zorder=3)
        axes.axvline(edge, color="0.6", linewidth=0.4, alpha=0.5, zorder=3)
    axes.set(xlim=(-REACH, REACH), ylim=(REACH, -REACH), aspect="equal", xticks=range(-4, 5, 2), yticks=range(-4, 5, 2))
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)


@plt.style.context("default")  # whatever a matplotlibrc says
def main(path: str) -> None:
    start, end, weights, sigma = filter_that_moved_most()
    figure, (grid, units) = plt.subplots(1, 2, figsize=(6.6, 3.5), layout="constrained")
    pixels(grid, "3x3 convolution: 9 weights, fixed grid")
    grid.imshow(
        np.array([[0.6, 0.2, -0.5], [0.9, 0.4, -0.8], [0.5, 0.1, -0.6]]),
        cmap="RdBu_r", vmin=-1, vmax=1, extent=(-1.5, 1.5, 1.5, -1.5), zorder=1,
    )  # fmt: skip
    pixels(units, f"DAU filter: {len(weights)} weights, learned positions")
    field = gaussian_field(end, weights, sigma)
    units.imshow(field, cmap="RdBu_r", vmin=-1, vmax=1, extent=(-REACH, REACH, REACH, -REACH))
    for (y0, x0), (y1, x1) in zip(start.T, end.T, strict=True):
        units.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "-|>", "color": "0.25", "linewidth": 0.9})
    units.plot(
        start[1], start[0], "o", color="0.25", markerfacecolor="white", markersize=4, label="where training began"
    )
    units.legend(fontsize=7, loc="lower right", frameon=False, handletextpad=0.2)
    for axes in (grid, units):
        axes.plot(0, 0, "+", color="0.15", markersize=7)
        axes.set_xlabel("x (pixels)", fontsize=8)
    grid.set_ylabel("y (pixels)", fontsize=8)
    figure.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1])
