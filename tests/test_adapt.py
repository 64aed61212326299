"""One network's layers in another: what both compute at the same places, factors, limits, and what is said."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.checkpoint import from_model, read
from daukit.errors import CheckpointError
from daukit.models import ModelRecord, alexnet, record_of, set_record
from daukit.models.alexnet import FACTORS
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.preprocessing import Preprocessing
from daukit.rescale import finer_maps
from daukit.workflows.adapt import adapt_checkpoint
from daukit.workflows.adapt_layers import take_layers
from daukit.workflows.convert import Destination

SIZES = {"channels": [3, 4, 5, 4, 3], "hidden": 6}
RESNET = {"width": 2, "depths": [1, 1, 1, 1]}
SEEN = Preprocessing((0.1,) * 3, (0.2,) * 3, "bgr", (227, 227), class_names=("cat", "dog", "hen", "cow", "pig"))
NO_BLUR = 0.001


def network(name, seed=1, **options):
    torch.manual_seed(seed)
    made = daukit.create_model(name, **options)
    for tensor in (*made.parameters(), *(b for b in made.buffers() if b.is_floating_point())):
        tensor.data += 0.1 * torch.rand_like(tensor)  # statistics too; variances stay positive
    return made.eval()


def at_whole_pixels(made, reach):
    """Put all displacements where a dilated kernel could have taps: without a blur they are read without any loss."""
    for name, layer in dau_layers(made).items():
        most = reach.get(name, 1)
        layer.mu.data = torch.randint(-most, most + 1, layer.mu.shape).float()
    return made


def adapted(made, name, **options):
    """A new network of this name with the layers of another one, without a file."""
    new = daukit.create_model(name, **options).eval()
    return new, take_layers(new, made, name)


def features(made, x, end):
    """What a network makes of images up to the module called ``end``."""
    for name, module in made.named_children():
        x = module(x)
        if name == end:
            return x
    raise AssertionError(end)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_dau"])
def test_the_strides_of_both_networks_give_the_factors_of_section_6_1(name):
    before, after = network(name, **SIZES), network(name, task="segmentation", **SIZES)
    ratios = finer_maps(before, after, {layer: layer for layer in FACTORS})
    assert ratios == {layer: (factor, factor) for layer, factor in FACTORS.items()}


@pytest.mark.parametrize("name", [pytest.param("alexnet", marks=pytest.mark.slow), "alexnet_dau"])
def test_alexnet_computes_at_the_former_places_what_it_computed_before(name):
    """Dilated convolutions exactly, and units at twice their whole displacements where nothing is blurred."""
    options = {} if name == "alexnet" else {"sigma": NO_BLUR}
    before = at_whole_pixels(network(name, **options, **SIZES), {"conv2": 2}).double()
    after, _ = adapted(before, name, task="segmentation", pools="stride1", **options, **SIZES)
    x = torch.randn(1, 3, 227, 227, dtype=torch.float64)
    with torch.no_grad():
        old, new = features(before, x, "pool5"), features(after.double(), F.pad(x, (7, 0, 7, 0)), "pool5")
    # Windows of the classifier are not padded: its place p looks at pixel 32 p + 33, and place q of the other one at
    # 8 q, of an image that begins 7 pixels earlier. The classifier reads zeros beyond its maps outside of [2, 3].
    torch.testing.assert_close(new[..., 13:18:4, 13:18:4], old[..., 2:4, 2:4])
    assert old[..., 2:4, 2:4].abs().max() > 0


@pytest.mark.parametrize("name", [pytest.param("resnet101", marks=pytest.mark.slow), "resnet101_dau"])
def test_a_deeplabs_backbone_computes_at_the_former_places_what_the_resnet_did(name):
    """With a last pool that only takes every other place, so that nothing else is lost with it."""
    options = {} if name == "resnet101" else {"sigma": NO_BLUR}
    before = at_whole_pixels(network(name, **options, **RESNET), {})
    before.pool4 = nn.MaxPool2d(1, stride=2)
    family = name.replace("resnet101", "deeplabv3plus")
    after, told = adapted(before, family, features=2, **options, **RESNET)
    x = torch.randn(1, 3, 129, 97, dtype=torch.float64)
    with torch.no_grad():
        (old_first, old_last), (first, last) = before.double().stages(x), after.double().backbone.stages(x)
    torch.testing.assert_close(first, old_first, rtol=0, atol=0)
    torch.testing.assert_close(last[..., ::2, ::2], old_last)
    assert last.shape[-2:] == (9, 7) and old_last.abs().max() > 0
    assert told.left == ("fc",)
    assert told.scaled == ({"backbone.stage4.0.conv2": 2} if name == "resnet101_dau" else {})
    assert not after.score.weight.any() and not after.score.bias.any()


@pytest.mark.parametrize("name", [pytest.param("shallow", marks=pytest.mark.slow), "shallow_dau"])
def test_a_shallow_network_keeps_its_layers_and_begins_its_scores_at_zero(name):
    options = {"channels": [2, 3, 4]} | ({"sigma": NO_BLUR} if name == "shallow_dau" else {})
    before = at_whole_pixels(network(name, **options), {})
    before.pool2, before.pool3 = nn.MaxPool2d(1, stride=2), nn.Identity()
    after, told = adapted(before, name, task="segmentation", num_classes=3, **options)
    assert told.left == ("classifier",) and told.new == (list(after.state_dict())[-1].rpartition(".")[0],)
    x = torch.randn(1, 1, 28, 28)
    assert not after(x).any() and after(x).shape == (1, 3, 28, 28)
    with torch.no_grad():
        for end, step in (("relu1", 1), ("relu2", 1), ("relu3", 2)):
            torch.testing.assert_close(features(after, x, end)[..., ::step, ::step], features(before, x, end))


def test_displacements_limits_and_starts_are_multiplied_together():
    before = network("alexnet_dau", max_displacement=3.0, **SIZES)
    after, told = adapted(before, "alexnet_dau", task="segmentation", max_displacement=3.0, **SIZES)
    for name, layer in dau_layers(after).items():
        former, factor = before.get_submodule(name), FACTORS[name]
        assert torch.equal(layer.mu, factor * former.mu) and torch.equal(layer.weight, former.weight)
        assert layer.max_displacement == 3.0 * factor and layer.initialization["scale"] == factor
    assert told.scaled == {"conv3": 2, "conv4": 2, "conv5": 2} and told.notes == ()
    entry = told.history[-1]
    assert entry["operation"] == "rescale" and entry["arguments"]["factors"] == told.scaled
    shown = {layer.name: layer for layer in told.layers}
    assert (shown["conv3"].limit_before, shown["conv3"].limit_after) == (3.0, 6.0)
    assert shown["conv3"].displacement_after == 2 * shown["conv3"].displacement_before
    assert (shown["fc6"].factor, shown["fc6"].dilation_after, shown["fc6"].type_before) == (4, (4, 4), "Linear")
    assert shown["score"].zero and [layer.name for layer in told.layers if layer.zero] == ["score"]


def test_a_way_back_to_coarser_maps_divides():
    before = network("alexnet_dau", task="segmentation", **SIZES)
    after, told = adapted(before, "alexnet_dau", num_classes=5, **SIZES)
    assert torch.equal(after.conv4.mu, before.conv4.mu / 2) and told.scaled["conv4"] == 0.5
    # Limits never shrink below what the other network's displacements need, and never below the network's own.
    assert after.conv4.max_displacement == 4.0
    assert set(told.new) == {"fc6", "fc7", "fc8"}


def stack(*, pools=(2, 2), limit=4.0, flat=False, **options):
    """A user's network: units on maps behind two pools, which may be missing."""
    modules = OrderedDict(conv1=DAUConv2d(1, 2, 2, sigma=NO_BLUR))
    for i, stride in enumerate(pools, start=2):
        modules[f"pool{i}"] = nn.MaxPool2d(1, stride=stride) if stride != 1 else nn.Identity()
        modules[f"conv{i}"] = DAUConv2d(2, 2, 2, sigma=NO_BLUR, max_displacement=limit, **options)
    if flat:
        modules |= OrderedDict(flatten=nn.Flatten(), head=nn.Linear(2 * 4 * 9, 3))
    return nn.Sequential(modules)


def trained(build=stack, **options):
    torch.manual_seed(3)
    return at_whole_pixels(build(**options), {}).eval()


def test_a_users_network_that_does_not_know_of_finer_maps_gets_wider_limits():
    before = trained()
    after = stack(pools=(2, 1))
    told = take_layers(after, before, "dense")
    assert told.scaled == {"conv3": 2} and torch.equal(after.conv3.mu, 2 * before.conv3.mu)
    assert [layer.max_displacement for layer in dau_layers(after).values()] == [4.0, 4.0, 8.0]
    x = torch.randn(1, 1, 24, 20)
    torch.testing.assert_close(after(x)[..., ::2, ::2], before(x))
    assert take_layers(stack(pools=(2, 1), limit=20.0), before, "dense").network.conv3.max_displacement == 20.0
    assert take_layers(stack(pools=(2, 1), limit=None), before, "dense").network.conv3.max_displacement is None


def test_units_of_a_dilated_layer_are_dilated_instead_of_moved():
    before = trained()
    after = stack(pools=(1, 2), dilation=2)
    told = take_layers(after, before, "dense")
    assert torch.equal(after.conv2.mu, before.conv2.mu) and torch.equal(after.conv3.mu, before.conv3.mu)
    assert after.conv2.max_displacement == 4.0 and told.scaled == {"conv2": 2, "conv3": 2}
    x = torch.randn(1, 1, 24, 20)
    torch.testing.assert_close(after(x)[..., ::2, ::2], before(x))


def test_maps_that_are_finer_along_one_axis_alone_are_refused():
    before = trained()
    with pytest.raises(CheckpointError, match=r"'conv3' would read a map that is 2 and 1 times finer along y and x"):
        take_layers(stack(pools=(2, (1, 2))), before, "dense")


class Deciding(nn.Module):
    """A forward that no trace can follow."""

    def __init__(self, limit=4.0):
        super().__init__()
        self.conv1 = DAUConv2d(1, 2, 2, sigma=NO_BLUR, max_displacement=limit)

    def forward(self, x):
        return self.conv1(x) if x.sum() > 0 else x


def test_where_strides_cannot_be_counted_the_report_says_so():
    before = trained(Deciding)
    after = Deciding()
    told = take_layers(after, before, "dense")
    assert torch.equal(after.conv1.mu, before.conv1.mu) and told.layers[0].factor is None
    assert len(told.notes) == 1 and "conv1" in told.notes[0] and "cannot be told" in told.notes[0]
    with pytest.raises(CheckpointError, match=r"'conv1' has max_displacement 4\.0, and 9\.0 here; daukit\.rescale"):
        take_layers(Deciding(9.0), before, "dense")


def test_a_convolution_that_does_not_spread_is_told():
    before = network("alexnet", **SIZES)
    after = alexnet(task="segmentation", **SIZES)
    after.conv4.dilation, after.conv4.padding = (1, 1), (1, 1)
    told = take_layers(after, before, "mine")
    assert len(told.notes) == 1 and told.notes[0].startswith("conv4: convolutions whose dilation in mine is not")


def test_units_at_whole_pixels_stay_there():
    before = trained(whole_pixels=True)
    before.conv3.settle()
    after = stack(pools=(2, 1))
    take_layers(after, before, "dense")
    assert after.conv3.whole_pixels and torch.equal(after.conv3.mu, 2 * before.conv3.mu)
    with pytest.raises(CheckpointError, match="'conv2' has whole_pixels False, and True here"):
        take_layers(stack(whole_pixels=True), trained(), "dense")


@pytest.mark.parametrize(("window", "is_taken"), [((4, 9), True), ((6, 6), False)])
def test_a_linear_layer_becomes_the_window_that_it_read_and_no_other(window, is_taken):
    before = trained(flat=True)
    set_record(before, ModelRecord({"factory": "any", "config": {}}, Preprocessing((0.0,), (1.0,), "gray", (16, 36))))
    after = stack()
    after.add_module("head", nn.Conv2d(2, 3, window))
    told = take_layers(after, before, "dense")
    assert ("head" in told.new) != is_taken
    if is_taken:
        x = torch.randn(2, 1, 16, 36)
        torch.testing.assert_close(after(x)[..., 0, 0], before(x))


def test_options_are_those_of_the_file_and_classes_those_that_are_given(tmp_path):
    before = network("alexnet_dau", num_classes=5, **SIZES)
    record_of(before).preprocessing = SEEN
    checkpoint = from_model(before)
    result = adapt_checkpoint(checkpoint, "alexnet_dau", {"task": "segmentation"})
    assert result.architecture["config"] == {**SIZES, "task": "segmentation"}
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    result = adapt_checkpoint(checkpoint, "alexnet_dau", {"task": "segmentation"}, classes=tmp_path / "classes.txt")
    assert result.architecture["config"]["num_classes"] == 2 and result.output is None
    with pytest.raises(ValueError, match="num_classes is 3, and there are 2 names of classes"):
        adapt_checkpoint(checkpoint, "alexnet_dau", {"num_classes": 3}, classes=tmp_path / "classes.txt")


@pytest.mark.slow
def test_classes_stay_from_one_segmentation_to_another():
    segments = from_model(network("resnet50_dau", task="segmentation", num_classes=4, **RESNET))
    assert adapt_checkpoint(segments, "deeplabv3plus_dau", {"features": 2}).architecture["config"]["num_classes"] == 4


def test_new_layers_follow_the_seed_and_others_do_not(tmp_path):
    checkpoint, made = from_model(network("alexnet_dau", **SIZES)), []
    for i, seed in enumerate((1, 1, 2)):
        place = Destination(path=tmp_path / f"{i}.safetensors")
        adapt_checkpoint(checkpoint, "alexnet_dau", {"task": "segmentation", "hidden": 7}, place, seed=seed)
        made.append(read(place.path).tensors)
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())
    changed = {name for name, tensor in made[0].items() if not torch.equal(tensor, made[2][name])}
    assert {"fc6.weight", "fc7.weight"} <= changed <= {f"fc{i}.{kind}" for i in (6, 7) for kind in ("weight", "bias")}
