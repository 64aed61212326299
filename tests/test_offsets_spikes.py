"""Spikes: planted ones are found, weighed and named; what has none gives none."""

import math

import numpy as np
import pytest
import torch
from planted import one_layer

from daukit.nn import normal_, uniform_
from daukit.offsets import displacement_distributions

EPS = np.finfo(np.float64).eps
GRID = {"name": "grid", "rows": 2, "columns": 2, "extent": 3.0}  # points at (+-1.75, +-1.75)


def spikes(weight, mu, share=1, **words):
    (layer,) = displacement_distributions(one_layer(weight, mu, **words), shares=[share])
    return layer.distributions[0].spikes


def crowd(at_points=0, at_limit=0, elsewhere=9000, seed=0):
    """Units at the grid's points, at the limit x = 4 with |y| < 0.3, and all over the square: (2, units)."""
    generator = torch.Generator().manual_seed(seed)
    points = 1.75 * (2 * torch.randint(2, (2, at_points), generator=generator) - 1).float()
    limit = torch.stack([0.6 * torch.rand(at_limit, generator=generator) - 0.3, torch.full((at_limit,), 4.0)])
    return torch.cat([points, limit, 7.98 * torch.rand(2, elsewhere, generator=generator) - 3.99], 1)


def test_planted_spikes_are_found_weighed_and_named():
    mu = crowd(at_points=1000, at_limit=600)
    weight = torch.rand(mu.shape[1], generator=torch.Generator().manual_seed(1)) + 0.5
    first, second = spikes(weight, mu, initialization=GRID)
    assert (first.reason, second.reason) == ("initialisation", "limit")
    assert first.start <= math.hypot(1.75, 1.75) < first.end
    assert second.start <= 4.0 < second.end
    size, distance = weight.double().numpy(), mu.double().norm(dim=0).numpy()
    for spike, where in ((first, slice(0, 1000)), (second, slice(1000, 1600))):
        inside = (spike.start <= distance) & (distance < spike.end)
        assert spike.weight == pytest.approx(size[inside].sum() / size.sum(), rel=2 * len(size) * EPS)
        share = spike.at_points if spike.reason == "initialisation" else spike.at_limit
        assert share >= size[where].sum() / size[inside].sum() * (1 - 2 * len(size) * EPS)  # besides, chance neighbours


def test_the_papers_story_units_at_their_start_matter_little_and_those_at_the_limit_do():
    mu = crowd(at_points=1000, at_limit=600)
    weight = torch.ones(mu.shape[1])
    weight[:1000] = 0.5
    reasons = {share: [s.reason for s in spikes(weight, mu, share, initialization=GRID)] for share in (1, 0.9)}
    assert reasons == {1: ["initialisation", "limit"], 0.9: ["limit"]}


def test_an_untrained_grid_is_one_spike_of_everything():
    mu = 1.75 * torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]]).repeat(1, 25)
    (spike,) = spikes([1.0] * 100, mu, initialization=GRID)
    assert (spike.weight, spike.at_points, spike.at_limit, spike.reason) == (1.0, 1.0, 0.0, "initialisation")


def test_a_spike_that_nothing_explains_has_no_reason():
    mu = torch.cat([crowd(), torch.tensor([[2.0], [0.5]]).repeat(1, 1000)], 1)
    (spike,) = spikes([1.0] * 10_000, mu, initialization=GRID)
    assert spike.start <= math.hypot(2.0, 0.5) < spike.end
    assert spike.reason is None


@pytest.mark.parametrize("units", [12, 384, 5000, 100_000])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", [uniform_, normal_])
def test_random_initialisation_has_no_spikes(start, seed, units):
    torch.manual_seed(seed)
    mu = start(torch.empty(2, units)).clamp(-4, 4)
    assert spikes(torch.randn(units), mu) == ()


def test_one_heavy_unit_is_no_spike():
    mu = crowd(elsewhere=500)
    assert spikes([1e6] + [1.0] * 499, mu) == ()


def test_without_weight_there_is_no_spike():
    assert spikes([0.0] * 1000, crowd(at_points=1000, elsewhere=0), initialization=GRID) == ()
