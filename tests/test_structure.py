"""What differs between two networks is found, and applied again, whatever their size and however they hold modules."""

import copy

import torch
from torch import fx, nn

from daukit.models.costs import multiply_adds
from daukit.models.structure import apply_differences, differences
from daukit.rescale.operands import why_not_beside


def network(blocks):
    return nn.Sequential(*[nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1)) for _ in range(blocks)])


def changed(model):
    model = copy.deepcopy(model)
    for block in list(model)[::2]:
        block[0] = nn.Conv2d(1, 1, 3, padding=1)
    return model


def test_time_grows_with_the_size_of_a_network_not_with_its_square(monkeypatch):
    visits, walk = [0], nn.Module.named_modules

    def counted(self, *arguments, **options):
        visits[0] += 1
        return walk(self, *arguments, **options)

    monkeypatch.setattr(nn.Module, "named_modules", counted)
    before = network(150)
    after = changed(before)
    modules = 2 * (1 + 150 * 4)  # of both
    found = differences(after, before)
    assert visits[0] < 3 * modules
    apply_differences(before, found)
    assert visits[0] < 8 * modules
    assert len(found) == 75 and [str(module) for module in before] == [str(module) for module in after]


def test_modules_that_are_held_twice_stay_one_also_within_what_is_replaced():
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1))
    model.add_module("again", model[1])
    model[0].eval()
    replaced = {
        "0": {"type": "Sequential", "modules": [{"type": "Identity"}, {"type": "Identity"}]},
        "0.1": {"type": "ZeroPad2d", "padding": [1, 1, 1, 1]},
        "1": {"type": "Conv2d", "kernel_size": [3, 3]},
    }
    apply_differences(model, replaced)
    assert isinstance(model[0][1], nn.ZeroPad2d) and model.again is model[1]
    assert model[1].kernel_size == (3, 3) and not model[0].training and not model[0][1].training and model[1].training


def test_networks_without_parameters_and_with_derived_weights_are_counted():
    assert multiply_adds(nn.Sequential(nn.ReLU()), (1, 3, 8, 8)) == {}
    plain = nn.Conv2d(3, 4, 3)
    normed = copy.deepcopy(plain)
    normed.weight_v = normed.weight * 2  # as old weight normalisation keeps it: with a history
    assert multiply_adds(normed, (1, 3, 8, 8)) == multiply_adds(plain, (1, 3, 8, 8)) == {"": 4 * 3 * 9 * 36}
    assert torch.equal(plain.weight, normed.weight)


class Doubling(nn.Module):
    """Adds a constant whose graph has 2^40 ways from its parameter to the map."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1, 1, 2, 2))

    def forward(self, x):
        constant = self.bias
        for _ in range(40):
            constant = (constant + constant) / 2
        return x + constant


def test_what_a_constant_is_made_of_is_looked_at_once():
    model = Doubling()
    graph = fx.symbolic_trace(model).graph
    first, *_, joining, _ = graph.nodes
    assert "size of its own" in (why_not_beside(model, joining, {first}, is_flat=False) or "")
