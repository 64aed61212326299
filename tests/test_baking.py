"""Plain convolutions in place of DAU layers: the same numbers everywhere, and a program that needs no daukit."""

import subprocess
import sys

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import daukit
from daukit.baking import bake, export
from daukit.errors import NetworkError
from daukit.models.running import largest_difference
from daukit.models.structure import dau_layers
from daukit.ops.taps import tap_kernel

CASES = {
    "plain": {},
    "stride": {"stride": (2, 3)},
    "dilation": {"dilation": (2, 3)},
    "stride and dilation": {"stride": 2, "dilation": 3},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "out_channels": 4},
    "no bias": {"bias": False},
    "learned sigma": {"learn_sigma": True, "sigma": 1.4},
    "wide blur": {"sigma": 1.4},
    "no blur": {"sigma": 0.01},
    "general form": {"form": "gaussian", "window": 7},
    "general form, groups": {"form": "gaussian", "window": 9, "groups": 2, "stride": 2, "dilation": (1, 2)},
}


def a_layer(out_channels=6, spread=3.0, **options):
    torch.manual_seed(0)
    layer = daukit.DAUConv2d(4, out_channels, 3, **options).double()
    layer.mu.data.normal_(0, spread)
    layer.mu.data.view(-1)[::5] = layer.mu.data.view(-1)[::5].round()
    if layer.bias is not None:
        layer.bias.data.normal_()
    return layer


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_baked_layer_equals_the_layer_at_every_position(case, ragged):
    layer = a_layer(**CASES[case])
    if ragged:
        layer.keep_units(torch.rand(layer.weight.shape) < 0.4)
    twin = bake(layer)
    assert not any(isinstance(module, daukit.DAUConv2d) for module in twin.modules())
    for size in ((11, 14), (1, 5), (24, 3)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        with daukit.backend("reference"):
            expected = layer(x)
        # Sums of at most 4 x 3 x 4 products of blurred values, in float64.
        assert (twin(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("mu", [(0, 7), (-30, 2), (40.5, 40.5), (0, 0), (-1, -1), (-0.5, 3)])
def test_units_on_one_side_or_outside_the_image_are_where_they_were(mu):
    layer = a_layer()
    layer.mu.data[:] = torch.tensor(mu, dtype=torch.float64)[:, None, None, None]
    x = torch.randn(1, 4, 9, 10, dtype=torch.float64)
    with daukit.backend("reference"):
        expected = layer(x)
    assert (bake(layer)(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_a_layer_without_units_is_its_bias():
    layer = a_layer()
    layer.keep_units(torch.zeros(layer.weight.shape, dtype=torch.bool))
    assert torch.equal(bake(layer)(torch.ones(1, 4, 5, 5).double()), layer.bias[None, :, None, None].expand(1, 6, 5, 5))


def test_the_kernel_is_the_worked_example():
    # One unit of weight 8 a quarter down and half right of the centre, one of weight 2 one pixel up.
    mu = torch.tensor([[0.25, -1.0], [0.5, 0.0]])
    kernel, first = tap_kernel(torch.tensor([8.0, 2.0]), mu, torch.tensor([0, 0]), 2)
    assert first == (-1, 0)
    assert kernel.tolist() == [[[2, 0], [3, 3], [1, 1]], [[0, 0], [0, 0], [0, 0]]]


@pytest.mark.parametrize("name", ["shallow_dau", "resnet50_dau"])
def test_a_baked_network_equals_the_network_and_leaves_it_alone(name):
    torch.manual_seed(0)
    small = {"channels": [3, 4, 5]} if name == "shallow_dau" else {"width": 4, "depths": [1, 1, 2, 1]}
    network = daukit.create_model(name, **small).double().eval()
    layers = dau_layers(network)
    for layer in layers.values():
        layer.mu.data.normal_(0, 2)
    list(network.parameters())[-2].data.normal_()  # a score layer may start at zero
    example = torch.randn(2, 1 if name == "shallow_dau" else 3, 28, 28, dtype=torch.float64)
    twin = bake(network)
    assert largest_difference(network, twin, example) <= 1e-12
    assert dau_layers(network) == layers and not dau_layers(twin)


def test_the_difference_is_a_share_of_the_largest_output():
    first, second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    second.load_state_dict(first.state_dict())
    nn.init.constant_(first.weight, 2.0)
    nn.init.constant_(second.weight, 1.5)
    nn.init.zeros_(first.bias)
    nn.init.zeros_(second.bias)
    assert largest_difference(first, second, torch.ones(1, 1, 3, 3)) == 0.25
    with pytest.raises(NetworkError, match=r"its forward failed on \(1, 2, 3, 3\)"):
        largest_difference(first, second, torch.ones(1, 2, 3, 3))


def test_far_displacements_are_refused_with_their_size():
    layer = daukit.DAUConv2d(64, 64, 1, max_displacement=None)
    layer.mu.data[0, 0, 0] = 500
    layer.mu.data[1, 0, 1] = 500
    with pytest.raises(ValueError, match="up to 500 pixels"):
        bake(nn.Sequential(layer))


RUN = """
import sys
sys.modules["daukit"] = None  # importing it would fail
import torch
program = torch.export.load(sys.argv[1], extra_files=(notes := {"daukit": ""})).module()
inputs = torch.load(sys.argv[2])
torch.save([program(x) for x in inputs], sys.argv[2])
print(notes["daukit"])
"""


@pytest.mark.slow
def test_the_program_runs_without_daukit_on_any_number_of_images(tmp_path):
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[3, 4, 5]).eval()
    program, data = tmp_path / "m.pt2", tmp_path / "data.pt"
    program.write_bytes(export(bake(network), torch.zeros(2, 1, 28, 28), {"daukit": "a note"}))
    inputs = [torch.randn(count, 1, 28, 28) for count in (1, 2, 5)]
    torch.save(inputs, data)
    done = subprocess.run([sys.executable, "-c", RUN, program, data], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a note\n"
    with torch.no_grad():
        for x, actual in zip(inputs, torch.load(data), strict=True):
            expected = network(x)
            assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_network_that_decides_by_its_input_cannot_be_exported():
    class Fickle(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch\.export cannot express"):
        export(Fickle(), torch.zeros(2, 1, 3, 3))


class Doubled(daukit.DAUConv2d):
    """A class of one's own, which computes something else."""

    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize("what", ["hook", "pre-hook", "mask", "weight norm", "subclass"])
def test_a_layer_that_does_more_than_its_type_says_is_refused(what):
    layer = Doubled(2, 2, 1) if what == "subclass" else daukit.DAUConv2d(2, 2, 1)
    add = {
        "hook": lambda: layer.register_forward_hook(lambda module, inputs, output: 2 * output),
        "pre-hook": lambda: layer.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],)),
        "mask": lambda: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
        "weight norm": lambda: nn.utils.parametrizations.weight_norm(layer),
        "subclass": lambda: None,
    }
    add[what]()
    with pytest.raises(
        ValueError, match=r"layer '0' cannot be baked: (it has hooks|its weight is|Doubled is a subclass)"
    ):
        bake(nn.Sequential(layer))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "normalize", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm]
)
def test_normalised_convolutions_beside_dau_layers_stay_as_they_are(normalize):
    network = nn.Sequential(normalize(nn.Conv2d(2, 4, 3)), a_layer().float()).eval()
    x = torch.randn(2, 2, 9, 9)
    network(x)  # what old-style hooks compute has a history now, which torch does not copy
    assert largest_difference(network, bake(network), x) <= 1e-5


def test_a_layer_under_two_names_is_baked_under_both():
    layer = a_layer(out_channels=4)
    network = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)})
    twin = bake(network)
    assert not dau_layers(twin) and twin["a"] is twin["b"][0]


def test_differences_of_several_outputs_count_all_of_them():
    class Two(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, x):
            return {"a": x, "b": (x.bool(), x + self.shift)}

    x = torch.tensor([1.0, 4.0])
    assert largest_difference(Two(0.0), Two(0.0), x) == 0
    assert largest_difference(Two(0.0), Two(1.0), x) == 0.25
    assert largest_difference(nn.Identity(), Two(1.0), x) == float("inf")
    assert not largest_difference(Two(0.0), Two(float("nan")), x) <= 1
