"""What a network takes is asked in one place, and every command gets the same answer."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.erf import random_inputs
from daukit.models import set_record
from daukit.models.inputs import input_channels, known_input_size, noise_for
from daukit.models.record import ModelRecord
from daukit.preprocessing import Preprocessing

SMALL = {
    "srn_deblur_dau": {"width": 2, "blocks": 1, "scales": 2, "in_channels": 5},
    "shallow_dau": {"channels": [2, 2, 2], "in_channels": 2},
    "resnet50": {"width": 2, "depths": [1, 1, 1, 1], "in_channels": 4},
}


class Side(nn.Module):
    """A layer that reads something else comes before the one that reads the image."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.late, self.norm, self.first = nn.Conv2d(6, 2, 1), nn.BatchNorm2d(3), nn.Conv2d(6, 6, 3, padding=1)
        self.own, self.up = nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(3, 6, 2, stride=2)

    def forward(self, x):
        if self.kind == "decides" and x.mean() > 1:
            return x
        first = {
            "twice": lambda: self.first(torch.cat([x, F.relu(x)], 1)),
            "norm": lambda: self.own(F.pad(self.norm(F.max_pool2d(x * 2, 2)), (1, 1))),
            "up": lambda: self.up(F.interpolate(x, scale_factor=2.0) - 0.5),
            "decides": lambda: self.own(x),
            "flipped": lambda: self.own(x.flip(1)),
        }
        return self.late(first[self.kind]())


@pytest.mark.parametrize("name", SMALL)
def test_networks_of_daukits_say_it_by_their_options(name):
    network = daukit.create_model(name, **SMALL[name])
    assert input_channels(network) == SMALL[name]["in_channels"]
    assert random_inputs(network, 2, (8, 9), 0).shape == (2, SMALL[name]["in_channels"], 8, 9)


@pytest.mark.parametrize("kind", ["twice", "norm", "up", "decides", "flipped"])
def test_other_networks_are_traced_to_the_layer_that_reads_the_image_or_tried(kind):
    network = Side(kind)
    assert input_channels(network) == 3
    assert network.training and not network.norm.num_batches_tracked  # trying leaves it as it was
    network(noise_for(network, 1, (6, 6), 0))


def test_what_the_preprocessing_says_counts_before_any_layer():
    network = Side("twice")
    set_record(
        network, ModelRecord({"factory": "x:y", "config": {}}, Preprocessing((0.5,) * 2, (1.0,) * 2, "rgb", (4, 6)))
    )
    assert input_channels(network) == 2


def test_a_single_layer_and_a_network_without_one():
    assert input_channels(nn.Conv2d(7, 1, 1)) == input_channels(daukit.DAUConv2d(7, 1, 1)) == 7
    with pytest.raises(ValueError, match="no 2-D convolution"):
        input_channels(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


@pytest.mark.parametrize(
    ("said", "size"), [([4, 6], (4, 6)), (5, (5, 5)), ("big", None), ([1, 2, 3], None), ([4, 0], None), (True, None)]
)
def test_the_size_is_what_options_say_where_they_say_one(said, size):
    assert known_input_size({"factory": "x:y", "config": {"input_size": said}}, None) == size
    assert known_input_size(
        {"factory": "x:y", "config": {"input_size": said}}, Preprocessing((0,), (1,), "gray", (7, 8))
    ) == (7, 8)


@pytest.fixture
def deblurring(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "srn.safetensors"
    daukit.save(daukit.create_model("srn_deblur_dau", width=2, blocks=1, scales=2), path)
    return path


@pytest.mark.slow
def test_a_network_that_reads_its_image_twice_is_baked_timed_and_probed(daukit_command, tmp_path, deblurring):
    out = daukit_command("bake", deblurring, "--size", "16,24", "--dry-run", "--json").stdout
    assert json.loads(out)["time"]["input"] == [8, 3, 16, 24]
    arguments = ("--threshold", "0.1", "--time", "--size", "16", "--dry-run", "--json")
    out = daukit_command("prune", deblurring, *arguments).stdout
    assert json.loads(out)["time"]["input"] == [8, 3, 16, 16]
    arguments = ("--layer", "encoder2.0.conv", "--images", "2", "--size", "16", "-o", tmp_path / "e.png")
    assert daukit_command("erf", deblurring, *arguments).returncode == 0
