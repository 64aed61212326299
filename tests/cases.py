"""The lists of operator cases: odd, mutually different sizes, and everything that a layer can be asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One call of the operator, made of seeded noise.

    ``displacement`` is the scale of displacements in pixels, ``integer`` rounds them, ``mixed`` every other unit's;
    ``ragged`` drops units at random.
    """

    name: str
    batch: int = 2
    in_channels: int = 3
    out_channels: int = 5
    units: int = 2
    size: tuple[int, int] = (7, 9)
    groups: int = 1
    displacement: float = 2.0
    sigma: float = 0.5
    ragged: bool = False
    integer: bool = False
    mixed: bool = False
    bias: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def moves(self, mu_gradient: str) -> bool:
        """True where displacements have such a gradient: without a blur the paper's does not exist."""
        return self.sigma > 0 or mu_gradient == "exact"

    def arguments(self, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        """Arguments of ``dau_conv2d``; leaves require gradients. Unless asked, mu stays 0.1 away from integers."""
        generator = torch.Generator().manual_seed(len(self.name) + 31 * self.units + self.size[0])

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        shape = (self.out_channels, self.in_channels // self.groups, self.units)
        floor = (self.displacement * noise(2, *shape)).floor()
        fraction = 0.1 + 0.8 * torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        if self.integer or self.mixed:
            fraction[..., :: 2 if self.mixed else 1] = 0
        weight, mu = noise(*shape), floor + fraction
        unit_ptr = None
        if self.ragged:
            keep = torch.rand(shape, generator=generator) < 0.5
            counts = keep.flatten(0, 1).sum(1)
            unit_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
            weight, mu = weight[keep], mu[:, keep]
        leaves = {"input": noise(self.batch, self.in_channels, *self.size), "weight": weight, "mu": mu}
        leaves["bias"] = noise(self.out_channels)
        ready: dict[str, Any] = {name: leaf.to(dtype).requires_grad_() for name, leaf in leaves.items()}
        if not self.bias:
            ready["bias"] = None
        return {**ready, "unit_ptr": unit_ptr, "sigma": self.sigma, "groups": self.groups, **self.options}


CASES = [
    Case("plain"),
    Case("one_pixel", size=(1, 1)),
    Case("row", size=(1, 13)),
    Case("one_unit", units=1, in_channels=1, out_channels=1),
    Case("many_units", units=7),
    Case("empty_batch", batch=0),
    Case("no_rows", size=(0, 9), options={"stride": (1, 2)}),
    Case("no_columns", size=(7, 0), in_channels=4, out_channels=6, groups=2, ragged=True, options={"dilation": 2}),
    Case("no_units", units=0),
    Case("one_image", batch=1, bias=False),
    Case("groups", in_channels=4, out_channels=6, groups=2),
    Case("depthwise", in_channels=5, out_channels=5, groups=5),
    Case("stride", options={"stride": 2}),
    Case("uneven_stride_dilation", options={"stride": (3, 2), "dilation": (1, 2)}),
    Case("dilation", size=(11, 13), options={"dilation": 3}),
    Case("strided_groups", in_channels=4, out_channels=8, groups=4, options={"stride": 2, "dilation": 2}),
    Case("integer", integer=True),
    Case("integer_row", size=(1, 13), integer=True),
    Case("integer_depthwise", in_channels=5, out_channels=5, units=3, groups=5, integer=True),
    Case("integer_uneven", integer=True, displacement=4.0, options={"stride": (3, 2), "dilation": (1, 2)}),
    Case("integer_ragged", units=3, in_channels=4, out_channels=6, groups=2, ragged=True, integer=True),
    Case("integer_far", displacement=8.0, integer=True, options={"dilation": 2}),
    Case("mixed", units=4, mixed=True),
    Case("far", displacement=8.0),
    Case("beyond", displacement=300.0),
    Case("ragged", units=3, ragged=True),
    Case("ragged_groups", units=3, in_channels=4, out_channels=6, groups=2, ragged=True, options={"stride": 2}),
    Case("wide_blur", sigma=1.3),
    Case("narrow_blur", sigma=0.2),
]

UNBLURRED = [
    Case("unblurred", sigma=0.0, integer=True),
    Case("unblurred_pixel", sigma=0.0, size=(1, 1), integer=True),
    Case("unblurred_row", sigma=0.0, size=(1, 13), integer=True, bias=False),
    Case("unblurred_column", sigma=0.0, size=(13, 1), integer=True, options={"stride": 2}),
    Case("unblurred_unit", sigma=0.0, units=1, in_channels=1, out_channels=1, integer=True),
    Case("unblurred_units", sigma=0.0, units=9, size=(11, 13), displacement=3.0, integer=True),
    Case("unblurred_batch", sigma=0.0, batch=0, integer=True),
    Case("unblurred_none", sigma=0.0, units=0),
    Case("unblurred_depthwise", sigma=0.0, in_channels=5, out_channels=5, units=3, groups=5, integer=True),
    Case("unblurred_stride", sigma=0.0, integer=True, options={"stride": 2}),
    Case("unblurred_dilation", sigma=0.0, size=(11, 13), integer=True, options={"dilation": 3}),
    Case("unblurred_uneven", sigma=0.0, integer=True, options={"stride": (3, 2), "dilation": (1, 2)}),
    Case(
        "unblurred_ragged", sigma=0.0, units=3, in_channels=4, out_channels=6, groups=2, ragged=True, integer=True,
        options={"stride": 2},
    ),
    Case("unblurred_far", sigma=0.0, displacement=8.0, integer=True),
    Case("unblurred_beyond", sigma=0.0, displacement=300.0, integer=True),
    Case("unblurred_mixed", sigma=0.0, units=4, mixed=True),
    Case("unblurred_between", sigma=0.0),
    # Units that all read the pixel that they write.
    Case("points", sigma=0.0, batch=3, in_channels=9, out_channels=4, displacement=0.0, integer=True),
    Case("points_of_vectors", sigma=0.0, in_channels=9, size=(1, 13), displacement=0.0, integer=True, bias=False),
    Case("points_alone", sigma=0.0, batch=50, in_channels=17, size=(1, 1), displacement=0.0, ragged=True, integer=True),
    Case(
        "points_of_many_channels", sigma=0.0, batch=1, in_channels=350, out_channels=1, units=1, size=(11, 13),
        displacement=0.0, ragged=True, integer=True,
    ),
    Case(
        "points_of_groups", sigma=0.0, in_channels=24, out_channels=10, units=3, size=(12, 17), groups=2,
        displacement=0.0, ragged=True, integer=True, options={"stride": 2},
    ),
]  # fmt: skip
"""Cases without a blur: sigma cannot be learned there, nor mu by the paper's gradient."""
