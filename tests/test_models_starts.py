"""Where networks start: weights by their papers' rules, scores at zero."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit

NARROW_ALEXNET = {"channels": [16, 16, 24, 24, 16], "hidden": 64, "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {**NARROW_ALEXNET, "input_size": [67, 67]}),
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
        assert not module.bias.any(), layer
    assert seen >= 3


NARROW_RESNET = {"width": 4, "depths": [1, 1, 1, 1]}
DENSE = {"task": "segmentation"}
SCORED = [
    *((f"resnet50{twin}", {**NARROW_RESNET, **task}) for twin in ("", "_dau") for task in ({}, DENSE)),
    *((f"deeplabv3plus{twin}", {**NARROW_RESNET, "features": 8}) for twin in ("", "_dau")),
    *((f"alexnet{twin}", {**NARROW_ALEXNET, **DENSE}) for twin in ("", "_dau")),
]


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
