"""Draw what a displaced aggregation unit is: a 3x3 filter, four displaced units, and what they compute.

Run it from anywhere: ``python examples/dau_picture.py picture.png``. It draws docs/images/dau.png.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

UNITS = [(-2.3, -1.1, 1.0), (0.4, 2.6, 0.7), (2.1, -2.7, -0.8), (1.2, 0.6, 0.5)]  # (y, x, weight)
SIGMA = 0.5
REACH = 4.5


def gaussian_field(size: int = 361) -> np.ndarray:
    """The filter that the units make, finely sampled (Eq. 2)."""
    y, x = np.meshgrid(*2 * [np.linspace(-REACH, REACH, size)], indexing="ij")
    return sum(w * np.exp(-((y - uy) ** 2 + (x - ux) ** 2) / (2 * SIGMA**2)) for uy, ux, w in UNITS)


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
    figure, (grid, units) = plt.subplots(1, 2, figsize=(6.6, 3.5), layout="constrained")
    pixels(grid, "3x3 convolution: 9 weights, fixed grid")
    grid.imshow(
        np.array([[0.6, 0.2, -0.5], [0.9, 0.4, -0.8], [0.5, 0.1, -0.6]]),
        cmap="RdBu_r", vmin=-1, vmax=1, extent=(-1.5, 1.5, 1.5, -1.5), zorder=1,
    )  # fmt: skip
    pixels(units, "DAU filter: 4 weights, learned positions")
    units.imshow(gaussian_field(), cmap="RdBu_r", vmin=-1, vmax=1, extent=(-REACH, REACH, REACH, -REACH))
    for uy, ux, _ in UNITS:
        units.annotate("", (ux, uy), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "0.25", "linewidth": 0.9})
    units.annotate(r"$\mu$", (-0.15, 0.95), fontsize=11, color="0.15")
    for axes in (grid, units):
        axes.plot(0, 0, "+", color="0.15", markersize=7)
        axes.set_xlabel("x (pixels)", fontsize=8)
    grid.set_ylabel("y (pixels)", fontsize=8)
    figure.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1])
