"""Where networks start: weights by their papers' rules, scores at zero."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import from_model
from daukit.models import MODELS
from daukit.receptive_field import theoretical_receptive_field

NARROW_ALEXNET = {"channels": [16, 16, 24, 24, 16], "hidden": 64, "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {**NARROW_ALEXNET, "input_size": [67, 67]}),
        ("shallow", {"channels": [16, 16, 24], "in_channels": 3}),
        ("alexnet_dau", {**NARROW_ALEXNET, "task": "segmentation"}),
        ("srn_deblur_dau", {"width": 8, "blocks": 1}),
    ],
)
def test_plain_layers_start_by_glorots_rule(name, options):
    torch.manual_seed(0)
    seen = 0
    for layer, module in daukit.create_model(name, **options).named_modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or layer == "score":
            continue
        seen += 1
        outputs, inputs, *window = module.weight.shape
        expected = math.sqrt(2 / ((inputs + outputs) * math.prod(window)))
        assert abs(module.weight.std() - expected) < 4 * expected / math.sqrt(2 * module.weight.numel()), layer
        assert module.bias is None or not module.bias.any(), layer
    assert seen >= 3


NARROW_RESNET = {"width": 4, "depths": [1, 1, 1, 1]}
DENSE = {"task": "segmentation"}
SCORED = [
    *((f"resnet50{twin}", {**NARROW_RESNET, **task}) for twin in ("", "_dau") for task in ({}, DENSE)),
    *((f"deeplabv3plus{twin}", {**NARROW_RESNET, "features": 8}) for twin in ("", "_dau")),
    *((f"alexnet{twin}", {**NARROW_ALEXNET, **DENSE}) for twin in ("", "_dau")),
    *((f"shallow{twin}", {"channels": [4, 5, 6], "in_channels": 3, **DENSE}) for twin in ("", "_dau")),
]


SMALL = {
    "alexnet_dau": NARROW_ALEXNET,
    "cifar10_dau": {},
    "deeplabv3plus_dau": {**NARROW_RESNET, "features": 8, "aspp_init": {"name": "normal", "std": 0.25}},
    "resnet50_dau": NARROW_RESNET,
    "resnet101_dau": {**NARROW_RESNET, **DENSE},
    "shallow_dau": {"channels": [16, 16, 24]},
    "srn_deblur_dau": {"width": 4, "blocks": 1},
}


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("_dau")])
def test_every_network_of_daus_takes_a_start_and_a_gradient(name):
    torch.manual_seed(0)
    start = {"name": "normal", "std": 0.25}
    network = daukit.create_model(name, **SMALL[name], init=start, mu_gradient="exact")
    layers = {name: module for name, module in network.named_modules() if isinstance(module, daukit.DAUConv2d)}
    assert layers
    for place, layer in layers.items():
        behind_missing_pool = "stage4" in place and name in ("deeplabv3plus_dau", "resnet101_dau")
        expected = 0.5 if behind_missing_pool else 0.25
        assert abs(layer.mu.std() - expected) < 4 * expected / math.sqrt(2 * layer.mu.numel()), place
        assert layer.mu_gradient == "exact"


@pytest.mark.parametrize(("name", "options"), SCORED)
def test_the_first_loss_is_the_logarithm_of_the_number_of_classes(name, options):
    torch.manual_seed(0)
    network = daukit.create_model(name, **{**options, "num_classes": 7}).train()
    images = torch.randn(2, 3, 33, 41)
    scores = network(images)
    assert not scores.any()
    labels = torch.randint(7, (2, *scores.shape[2:]))
    loss = F.cross_entropy(scores.double(), labels)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-15)
    loss.backward()
    last = network.fc if hasattr(network, "fc") else network.score
    assert last.weight.grad.any()  # it learns from the first step on


SMALL_DEEPLAB = {**NARROW_RESNET, "features": 4, "num_classes": 3, "decoder": False, "image_pool": False}


def gradients_of_the_wide_layer(**options):
    torch.manual_seed(0)
    network = daukit.create_model("deeplabv3plus_dau", **SMALL_DEEPLAB, **options).double()
    layer = network.aspp[0]
    maps = torch.rand(2, layer.in_channels, 5, 5, dtype=torch.float64)
    layer(maps).square().sum().backward()
    return layer


def test_all_units_of_the_wide_layer_learn_on_a_small_map():
    layer = gradients_of_the_wide_layer()
    assert layer.max_displacement == 18 and layer.mu.abs().max() <= 2
    assert layer.weight.grad.all() and layer.mu.grad.all()
    # On the grid over all that units may reach, they begin beyond such a map and learn nothing.
    layer = gradients_of_the_wide_layer(aspp_init="grid")
    assert not layer.weight.grad.any() and not layer.mu.grad.any()
    assert gradients_of_the_wide_layer(aspp_max_displacement=1.0).mu.abs().max() <= 1


def test_a_file_of_before_the_wide_layer_began_near_is_as_it_was(tmp_path):
    torch.manual_seed(0)
    before = from_model(daukit.create_model("deeplabv3plus_dau", **SMALL_DEEPLAB, aspp_init="grid"))
    architecture = {"name": "deeplabv3plus_dau", "config": SMALL_DEEPLAB}  # it knew no other start
    daukit.checkpoint.write(replace(before, header=replace(before.header, architecture=architecture)), tmp_path / "a")
    loaded = daukit.load(tmp_path / "a")
    assert torch.equal(loaded.aspp[0].mu, before.tensors["aspp.0.mu"])
    daukit.save(loaded, tmp_path / "b")
    for file in ("a", "b"):
        layer = daukit.read(tmp_path / file).layer("aspp.0")
        assert layer.description["initialization"]["name"] == "grid"
    assert torch.equal(daukit.load(tmp_path / "b").aspp[0].mu, loaded.aspp[0].mu)


MEDIUM = {"channels": [4, 6, 8, 8, 6], "hidden": 8, "num_classes": 3, "size": "medium"}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_medium_alexnet_on_diagonals_sees_as_far_up_and_down_as_across(task):
    def field(**options):
        network = daukit.create_model("alexnet_dau", **MEDIUM, task=task, **options).eval()
        return theoretical_receptive_field(network, "conv5", torch.zeros(1, 3, 227, 227))[0].size

    on_grid, on_diagonals = field(), field(init="diagonals")
    assert on_grid[0] < on_grid[1]  # two units of the grid lie on a horizontal line
    assert on_diagonals == (on_grid[1], on_grid[1])


def test_layers_of_a_shallow_network_that_have_other_counts_start_on_the_grid():
    options = {"channels": [4, 6, 8], "units": [8, 2], "max_displacement": 3.0}
    network = daukit.create_model("shallow_dau", **options, init={"name": "diagonals", "extent": 1.5})
    on_grid = daukit.create_model("shallow_dau", **options, init={"name": "grid", "extent": 1.5})
    assert torch.equal(network.conv1.mu, on_grid.conv1.mu)
    assert network.conv2.mu.abs().unique().tolist() == [1.0] and on_grid.conv2.mu[0].unique().tolist() == [0.0]


@pytest.mark.parametrize(("name", "units"), [("shallow_dau", [8, 3, 3]), ("alexnet_dau", [6, 4, 4, 4])])
def test_diagonals_that_no_layer_could_start_on_are_refused(name, units):
    with pytest.raises(ValueError, match=r"'diagonals' is for layers of two units per pair, and these have \["):
        daukit.create_model(name, units=units, init="diagonals")


def test_a_network_on_diagonals_is_scaled_written_and_read(tmp_path):
    network = daukit.create_model("alexnet_dau", **MEDIUM, task="segmentation", init={"name": "diagonals", "extent": 2})
    starts = [network.get_submodule(f"conv{i}").initialization for i in (2, 3, 4, 5)]
    grid = {"name": "grid", "rows": 2, "columns": 2, "extent": 2, "scale": 1.0}
    assert starts == [grid, *[{"name": "diagonals", "extent": 2, "scale": 2.0}] * 3]
    assert network.conv3.mu.abs().unique().tolist() == [2.5]
    daukit.save(network, tmp_path / "a")
    assert daukit.load(tmp_path / "a").conv3.initialization == starts[1]
    pruned, _ = daukit.prune(network, 0.5)
    assert pruned.conv3.initialization == starts[1]
