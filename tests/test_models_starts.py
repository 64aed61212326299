"""Where networks start: weights by their papers' rules, scores at zero."""

import math

import pytest
import torch
from torch import nn

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
