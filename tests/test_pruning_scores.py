"""What units are compared by: scores against other ways to get the same numbers, and what is no score."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit
from daukit import DAUConv2d
from daukit.checkpoint import from_model
from daukit.pruning import prune, sweep, taylor
from daukit.workflows.prune import prune_checkpoint

NAMES = ("conv1", "conv2", "conv3")


def network_of(**config):
    torch.manual_seed(3)
    made = daukit.create_model("shallow_dau", channels=[2, 3, 2], units=2, input_size=[8, 8], num_classes=3, **config)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        labels = torch.randint(0, 3, (4 + i,), generator=generator)
        yield torch.randn(4 + i, 1, 8, 8, generator=generator, dtype=torch.float64), labels


def losses(network, count=2):
    for images, labels in batches(count):
        yield F.cross_entropy(network(images), labels, reduction="sum")


def test_a_units_score_is_the_slope_of_each_batchs_loss_times_its_weight():
    network = network_of().double()
    found, step = taylor(network, losses(network)), 1e-6
    for name in NAMES:
        weight = network.get_submodule(name).weight
        expected = torch.zeros_like(weight, dtype=torch.float64)
        for place in np.ndindex(tuple(weight.shape)):
            own = float(weight[place].detach())
            sides = []
            for moved in (own + step, own - step):
                with torch.no_grad():
                    weight[place] = moved
                    sides.append([float(loss) for loss in losses(network)])
            with torch.no_grad():
                weight[place] = own
            expected[place] = sum(abs(own * (up - down) / (2 * step)) for up, down in zip(*sides, strict=True))
        # Central differences: step^2 of the third derivative, and rounding of the loss over the step.
        assert (found[name] - expected).abs().max() <= 1e-7


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_scores_of_units_at_whole_pixels_are_those_of_the_weights_of_a_convolution(whole_pixels):
    sigma = 0.0 if whole_pixels else 1e-3
    layer = DAUConv2d(2, 3, 9, sigma=sigma, whole_pixels=whole_pixels, max_displacement=1, bias=False).double()
    rows, columns = torch.meshgrid(torch.arange(3) - 1.0, torch.arange(3) - 1.0, indexing="ij")
    with torch.no_grad():
        layer.mu.copy_(torch.stack([rows, columns]).reshape(2, 1, 1, 9).expand_as(layer.mu))
    twin = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    with torch.no_grad():
        twin.weight.copy_(layer.weight.reshape(3, 2, 3, 3))
    images = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(twin(images).pow(2).sum(), twin.weight)
    found = taylor(nn.Sequential(layer), [layer(images).pow(2).sum()])["0"]
    expected = (twin.weight * grad).abs().reshape(3, 2, 9).detach()
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)


def test_scoring_leaves_gradients_and_flags_as_they_were_and_scores_what_no_loss_depends_on_with_zero():
    network = network_of()
    network.conv1.weight.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.spare = DAUConv2d(1, 1, 2)
    found = taylor(network, _of_first_layer(network))
    assert {n: p.requires_grad for n, p in network.named_parameters() if not n.startswith("spare")} == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert float(found["conv1"].sum()) > 0 and float(found["spare"].sum()) == float(found["conv3"].sum()) == 0


def _of_first_layer(network):
    yield network.conv1(torch.ones(1, 1, 8, 8)).square().sum()


def test_without_losses_there_are_no_scores():
    with pytest.raises(ValueError, match="there are no losses"):
        taylor(network_of(), [])


def test_a_network_without_units_has_no_scores_and_asks_for_no_loss():
    def losses():
        raise AssertionError
        yield

    assert taylor(nn.Conv2d(1, 1, 1), losses()) == {}


def by_position(model, name, layer):
    """A score of a user's own: the distance of a unit from its output."""
    assert model.get_submodule(name) is layer
    return layer.mu.norm(dim=0)


@pytest.mark.parametrize("relative_to", ["layer", "network"])
def test_a_score_of_ones_own_is_compared_as_weights_are(relative_to):
    before = from_model(network_of(init="uniform"))
    distance = {name: before.layer(name).mu.double().norm(dim=0) for name in NAMES}
    largest = max(float(one.max()) for one in distance.values())
    for score in (by_position, dense(before, distance)):
        after, report = prune(before, 0.5, relative_to, score=score)
        for name in NAMES:
            base = largest if relative_to == "network" else float(distance[name].max())
            keep = [not float(one) < 0.5 * base for one in distance[name]]
            assert torch.equal(after.layer(name).weight, before.layer(name).weight[torch.tensor(keep)])
        assert report.rule.score == ("by_position()" if callable(score) else "given")
        assert after.header.history[-1]["arguments"]["score"] == report.rule.score


def dense(checkpoint, flat):
    return {name: flat[name].reshape(checkpoint.tensors[f"{name}.weight"].shape) for name in flat}


@pytest.mark.parametrize("units", [0, 1, 7, 23, 24])
def test_a_budget_ranks_by_the_score_and_of_equal_ones_takes_the_first(units):
    before = from_model(network_of())
    ranks = {name: torch.arange(before.layer(name).weight.numel()) % 3 + 1.0 for name in NAMES}
    flat = torch.cat(list(ranks.values())).tolist()
    total = len(flat)
    units = min(units, total)
    after, report = prune(before, units=units, score=dense(before, ranks))
    order = sorted(range(total), key=lambda i: (flat[i], i))
    expected = torch.cat([before.layer(name).weight for name in NAMES])[sorted(order[total - units :])]
    assert torch.equal(torch.cat([after.layer(name).weight for name in NAMES]), expected)
    if units:
        least = flat[order[total - units]]
        assert report.least_kept == least / 3 and report.ties == sum(flat[i] == least for i in order[: total - units])


def test_random_scores_remove_what_their_seed_says_over_the_whole_network():
    before = from_model(network_of())
    first, again, other = (prune(before, units=9, score="random", seed=seed)[1] for seed in (0, 0, 1))
    assert first == again and first.units_after == other.units_after == 9
    kept = [prune(before, units=9, score="random", seed=seed)[0].tensors["conv2.unit_counts"] for seed in range(4)]
    assert len({tuple(counts.tolist()) for counts in kept}) > 1
    with pytest.raises(ValueError, match="needs a seed"):
        prune(before, units=9, score="random")


def test_a_sweep_counts_by_the_score_what_pruning_removes():
    before = from_model(network_of())
    for report in sweep(before, [0.2, 0.6], "channel", score="random", seed=4):
        assert report == prune(before, report.rule.threshold, "channel", score="random", seed=4)[1]


def test_a_file_pruned_layer_by_layer_has_the_same_random_units(tmp_path):
    daukit.save(network_of(), tmp_path / "m.safetensors")
    rule = daukit.pruning.Rule(units=11, score="random", seed=2)
    daukit.pruning.prune_file(tmp_path / "m.safetensors", rule, tmp_path / "p.safetensors")
    expected, _ = prune(tmp_path / "m.safetensors", units=11, score="random", seed=2)
    found = daukit.read(tmp_path / "p.safetensors")
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        ("size", ValueError, "score must be"),
        (3, TypeError, "a function or a mapping"),
        (lambda model, name, layer: 1.0, TypeError, "must be a tensor, got float"),
        (lambda model, name, layer: layer.weight.flatten(), ValueError, "is \\(4,\\), its weight \\(2, 1, 2\\)"),
        (lambda model, name, layer: layer.weight - 100, ValueError, "negative or not finite"),
        (lambda model, name, layer: layer.weight * torch.nan, ValueError, "negative or not finite"),
        ({"conv1": torch.zeros(2, 1, 2)}, TypeError, "'conv2' must be a tensor, got NoneType"),
    ],
)
def test_what_is_no_score_is_refused_by_name(score, error, message):
    with pytest.raises(error, match=message):
        prune(from_model(network_of()), units=3, score=score)


def test_a_rule_that_names_no_score_or_one_without_its_images_is_refused():
    before = from_model(network_of())
    for score, message in (("size", "score must be one of"), ("taylor", "needs data")):
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(before, daukit.pruning.Rule(units=3, score=score))
