"""The search for the best displacements: exact along lines, from several starts, the weights always at their optimum.

Between two neighbouring atoms a unit's kernel is linear in the shares of both. So along one axis of one unit, with the
weights of all units solved for anew at every point (variable projection), the error between two atoms has its minimum
in closed form: a step finds the best point of a whole line, kinks at whole displacements included. It needs no slopes
and no rate. Places are counted in atoms from the first one. Shapes end in (starts, F).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.fitting.atoms import Atoms

SCOUT_SWEEPS, POLISH_SWEEPS = 2, 8
"""Sweeps over all units: from every start, and then from each filter's best."""

INDEPENDENT = 1e-2
"""Least share of a unit's energy that is its own. Nearer to the others, it would get a weight that they must cancel."""


def place_units(atoms: Atoms, units: int, starts: int, seed: int, *, every: bool) -> Iterator[Tensor]:
    """Best places found for 1, 2, ..., ``units`` units: (2, count, F), in atoms.

    All starts are tried for ``every`` count, or only for the last one.
    """
    best = atoms.energy.new_zeros(2, 0, 1, len(atoms.energy))
    for count in range(1, units + 1):
        grown = torch.cat([best, _largest(_unexplained(atoms, best[:, :, 0]), 1)], dim=1)
        if every or count == units:
            best = _from_all_starts(atoms, grown, starts, seed)
        else:
            best = _descend(atoms, grown, SCOUT_SWEEPS)
        yield best[:, :, 0]


def solve_weights(atoms: Atoms, places: Tensor) -> Tensor:
    """The least-squares weights of units at ``places`` (2, units, F): (units, F)."""
    rows = _eliminated(atoms, places[:, :, None])[:, :, 0]
    units = len(rows)
    weight = torch.zeros_like(places[0])
    for u in reversed(range(units)):
        rest = rows[u, -1] - (rows[u, u + 1 : units] * weight[u + 1 :]).sum(0)
        # A unit that depends on those before it has no row of its own, and no weight.
        weight[u] = torch.where(rows[u, u] > 0, rest / rows[u, u], 0)
    return weight


def _from_all_starts(atoms: Atoms, grown: Tensor, starts: int, seed: int) -> Tensor:
    """Descend from every start, and on from each filter's best: (2, units, 1, F)."""
    units, count = grown.shape[1], grown.shape[-1]
    centre = atoms.centre[..., None]
    room = torch.minimum(centre, centre.new_tensor(atoms.kernels.shape[:2]).reshape_as(centre) // 2)
    draw = torch.rand(2, units, starts - 2, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scattered = (centre + (2 * draw.to(grown) - 1) * room).expand(-1, -1, -1, count)
    places = torch.cat([grown, _largest(_padded(atoms), units), scattered], dim=2)
    scouted = _choose(atoms, _descend(atoms, places, SCOUT_SWEEPS))
    polished = _descend(atoms, scouted, POLISH_SWEEPS)
    # A step may leave another unit too little of its own, and then the error grows: what was better stands.
    return _choose(atoms, torch.cat([polished, scouted, grown], dim=2))


def _choose(atoms: Atoms, places: Tensor) -> Tensor:
    """Of each filter's starts (2, units, starts, F) the one that explains most of it: (2, units, 1, F)."""
    explained = _eliminated(atoms, places)[:, -1].square().sum(0)
    best = explained.argmax(0).expand(*places.shape[:2], 1, -1)
    return places.gather(2, best)


def _largest(values: Tensor, units: int) -> Tensor:
    """Places of the largest |values| (atoms y, atoms x, 1, F): (2, units, 1, F), repeated where units are more."""
    columns = values.shape[1]
    order = values.abs().flatten(0, 1).sort(dim=0, descending=True, stable=True).indices
    order = order[torch.arange(units, device=order.device) % len(order)]
    return torch.stack([order // columns, order % columns]).to(values)


def _padded(atoms: Atoms) -> Tensor:
    """The filters' taps where their atoms are: (atoms y, atoms x, 1, F)."""
    (height, width, _), (rows, columns) = atoms.kernels.shape, atoms.products.shape[:2]
    y, x = (rows - height) // 2, (columns - width) // 2
    return F.pad(atoms.kernels, (0, 0, x, x, y, y))[:, :, None]


def _unexplained(atoms: Atoms, places: Tensor) -> Tensor:
    """Inner products of atoms with what units at ``places`` (2, units, F) leave: (atoms y, atoms x, 1, F)."""
    mixture = atoms.mixture(solve_weights(atoms, places), places)
    gram_y, gram_x = atoms.gram
    return atoms.products - (gram_y @ mixture @ gram_x).permute(1, 2, 0)[:, :, None]


def _descend(atoms: Atoms, places: Tensor, sweeps: int) -> Tensor:
    places = places.clone()
    for _ in range(sweeps):
        for unit in range(places.shape[1]):
            for axis in (0, 1):
                places[axis, unit] = _best_on_line(atoms, places, unit, axis)
    return places


def _best_on_line(atoms: Atoms, places: Tensor, unit: int, axis: int) -> Tensor:
    """The position along ``axis`` at which the unit explains most of the other units' residual: (starts, F)."""
    order = [*(u for u in range(places.shape[1]) if u != unit), unit]
    along, across = (atoms.coefficients(places[a, order], a) for a in (axis, 1 - axis))
    products = atoms.products if axis else atoms.products.transpose(0, 1)
    reads = _contract(across, products)  # (units, atoms along, starts, F)
    gram_along, gram_across = _apply(atoms.gram[axis], along), _apply(atoms.gram[1 - axis], across)
    between = _inner(across, gram_across)  # (units, units, starts, F)
    # One row for each other unit: its inner products with them, with the atoms of the line, and with the filter.
    rows = torch.cat(
        [
            between[:-1, :-1] * _inner(along[:-1], gram_along[:-1]),
            between[:-1, -1:] * gram_along[:-1],
            (reads[:-1] * along[:-1]).sum(1, keepdim=True),
        ],
        dim=1,
    )
    _eliminate(rows)
    line, target = rows[:, len(rows) : -1], rows[:, -1:]
    own = _Line(
        reads[-1] - (line * target).sum(0),
        between[-1, -1] * atoms.gram[axis][0, 0] - line.square().sum(0),
        between[-1, -1] * atoms.gram[axis].diagonal(1)[:, None, None] - (line[:, :-1] * line[:, 1:]).sum(0),
    )
    whole = between[-1, -1] * (along[-1] * gram_along[-1]).sum(0)
    best, explained = own.best_point(between[-1, -1], atoms.gram[axis])
    # The best point of a cell may be no unit of its own, and its ends worse than where the unit is.
    stays = own.explained(along[-1], whole) >= explained
    return torch.where(stays, places[axis, unit], best)


class _Line(NamedTuple):
    """The atoms along a line, of which the other units have been projected out.

    Attributes:
        products: (atoms, starts, F), inner products with the filter.
        energies: (atoms, starts, F).
        neighbours: (atoms - 1, starts, F), inner products of neighbouring atoms.
    """

    products: Tensor
    energies: Tensor
    neighbours: Tensor

    def explained(self, shares: Tensor, whole: Tensor) -> Tensor:
        """Energy that a mixture (atoms, starts, F) explains, from its own (starts, F) before projection."""
        energy = (self.energies * shares.square()).sum(0)
        energy = energy + 2 * (self.neighbours * shares[:-1] * shares[1:]).sum(0)
        return (self.products * shares).sum(0).square() / _or_infinite(energy, whole)

    def best_point(self, across: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
        """The point that explains most, and how much, each (starts, F).

        Args:
            across: (starts, F), a unit's energy across the line.
            gram: (atoms, atoms), inner products along the line before projection.
        """
        ends = self.products.square() / _or_infinite(self.energies, across * gram[0, 0])
        explained, atom = ends.max(0)
        if len(ends) == 1:
            return atom.to(ends), explained
        # Least squares by two neighbours; shares of opposite sign lie outside of the segment between them.
        (left, right), (first, second) = (_neighbours(x) for x in (self.products, self.energies))
        a, b = left * second - right * self.neighbours, right * first - left * self.neighbours
        fraction = torch.where(a * b > 0, b / (a + b), 0)
        rest = 1 - fraction
        mixed = fraction * rest
        energy = rest.square() * first + 2 * mixed * self.neighbours + fraction.square() * second
        whole = across * (gram[0, 0] * (1 - 2 * mixed) + 2 * gram[0, 1] * mixed)
        between = (rest * left + fraction * right).square() / _or_infinite(energy, whole)
        inside, cell = between.max(0, keepdim=True)
        point = (cell + fraction.gather(0, cell))[0]
        return torch.where(inside[0] > explained, point, atom), torch.maximum(inside[0], explained)


def _neighbours(values: Tensor) -> tuple[Tensor, Tensor]:
    return values[:-1], values[1:]


def _or_infinite(energy: Tensor, whole: Tensor) -> Tensor:
    """The energy where enough of the whole is left, and infinity, by which nothing is explained, elsewhere."""
    return torch.where(energy > INDEPENDENT * whole, energy, math.inf)


def _eliminated(atoms: Atoms, places: Tensor) -> Tensor:
    """Eliminated rows of the normal equations at ``places``: (units, units + 1, starts, F), the filter last."""
    y, x = (atoms.coefficients(places[axis], axis) for axis in (0, 1))
    gram = _inner(y, _apply(atoms.gram[0], y)) * _inner(x, _apply(atoms.gram[1], x))
    target = (_contract(y, atoms.products) * x).sum(1, keepdim=True)
    rows = torch.cat([gram, target], dim=1)
    _eliminate(rows)
    return rows


def _eliminate(rows: Tensor) -> None:
    """Cholesky's elimination in place, of rows [Gram matrix, right-hand sides]; a dependent row becomes zero.

    Afterwards the squares in a right-hand side add up to what all rows explain of it.
    """
    count = len(rows)
    whole = rows.diagonal().movedim(-1, 0).clone()
    for i in range(count):
        rows[i] *= _or_infinite(rows[i, i], whole[i]).rsqrt()
        rows[i + 1 :, i:] -= rows[i, i + 1 : count, None] * rows[i, i:]


def _apply(gram: Tensor, coefficients: Tensor) -> Tensor:
    """Inner products of mixtures (units, atoms, ...) with the atoms: (units, atoms, ...)."""
    return (gram @ coefficients.flatten(2)).reshape(coefficients.shape)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Dot products over the atoms: (units, atoms, ...) and (others, atoms, ...) to (units, others, ...)."""
    total = left[:, None, 0] * right[None, :, 0]
    for atom in range(1, left.shape[1]):
        total.addcmul_(left[:, None, atom], right[None, :, atom])
    return total


def _contract(across: Tensor, products: Tensor) -> Tensor:
    """Inner products of the filters with lines of atoms: (units, across, ...), (across, along, ...) to (units, along,
    ...).
    """
    total = across[:, 0, None] * products[0]
    for atom in range(1, len(products)):
        total.addcmul_(across[:, atom, None], products[atom])
    return total
