"""Networks: the paper's parameter counts to the unit, and every command's operation on every one of them."""

import math

import pytest
import torch
from torch import nn

import daukit
from daukit.checkpoint import from_model, load, read, save
from daukit.erf import effective_receptive_field
from daukit.models import MODELS, create_model
from daukit.models.alexnet import FACTORS
from daukit.models.structure import dau_layers
from daukit.models.tables import empty_model, layer_sizes, paper_rows, parameter_count
from daukit.nn import DAUConv2d
from daukit.pruning import prune
from daukit.rescale import compare, remove_pools, rescale_factors

NARROW_ALEXNET = {"channels": [4, 6, 8, 8, 6], "hidden": 10, "num_classes": 5}
NARROW_RESNET = {"width": 4, "depths": [1, 1, 2, 1], "num_classes": 5}
DENSE = {"task": "segmentation"}

# name, options of both twins, input, output
NETWORKS = [
    ("alexnet", {**NARROW_ALEXNET, "input_size": [67, 83]}, (2, 3, 67, 83), (2, 5)),
    ("alexnet", {**NARROW_ALEXNET, **DENSE}, (1, 3, 65, 73), (1, 5, 65, 73)),
    ("alexnet", {**NARROW_ALEXNET, **DENSE, "pools": "stride1"}, (1, 3, 50, 61), (1, 5, 50, 61)),
    ("cifar10", {}, (2, 3, 24, 24), (2, 10)),
    ("shallow", {"channels": [4, 5, 6]}, (2, 1, 28, 28), (2, 10)),
    ("resnet50", NARROW_RESNET, (2, 3, 64, 49), (2, 5)),
    ("resnet101", {**NARROW_RESNET, **DENSE}, (1, 3, 49, 65), (1, 5, 49, 65)),
    ("deeplabv3plus", {**NARROW_RESNET, "features": 6}, (2, 3, 49, 65), (2, 5, 49, 65)),
    (
        "deeplabv3plus",
        {**NARROW_RESNET, "features": 6, "aspp": False, "image_pool": False, "decoder": False},
        (1, 3, 33, 40),
        (1, 5, 33, 40),
    ),
    ("srn_deblur", {"width": 4, "blocks": 1}, (1, 3, 37, 50), (1, 3, 37, 50)),
]
CASES = [(name + suffix, *rest) for name, *rest in NETWORKS for suffix in ("", "_dau")]
IDS = [f"{name}{i // 2}" for i, (name, *_) in enumerate(CASES)]
DAU_CASES = [case for case in CASES if case[0].endswith("_dau")]
DAU_IDS = [name for name in IDS if "_dau" in name]


def build(name, config):
    torch.manual_seed(0)
    model = create_model(name, **config).eval()
    for layer, module in model.named_modules():
        if layer in ("score", "fc"):
            nn.init.normal_(module.weight, std=0.1)  # scores start at zero, which is the same whatever happens below
    return model


def image(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "config", "shape", "expected"), CASES, ids=IDS)
def test_shapes_gradients_and_round_trip(tmp_path, name, config, shape, expected):
    model = build(name, config).train()
    output = model(image(shape))
    assert output.shape == expected
    output.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    assert any(p.grad.abs().max() > 0 for p in model.parameters())

    model.eval()
    save(model, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert torch.equal(loaded(image(shape)), model(image(shape)))


@pytest.mark.parametrize(("name", "config", "shape", "expected"), DAU_CASES, ids=DAU_IDS)
def test_a_network_is_pruned_and_its_displacements_rescaled(tmp_path, name, config, shape, expected):
    model = build(name, config).double()
    layers = dau_layers(model)
    checkpoint, report = prune(from_model(model), 0.3)
    save(daukit.checkpoint.build_model(checkpoint), tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    kept = [layer.weight.numel() for layer in dau_layers(loaded).values()]
    assert sum(kept) == report.units_after < report.units_before
    # The truth of pruning: the same network with those weights at zero.
    for layer in layers.values():
        layer.weight.data[layer.weight.abs() < 0.3 * layer.weight.abs().max()] = 0
    torch.testing.assert_close(loaded(image(shape).double()), model(image(shape).double()))

    first = next(iter(layers))
    scaled, _ = rescale_factors(from_model(model), {first: 2.0})
    assert torch.equal(scaled.tensors[f"{first}.mu"], 2 * layers[first].mu)


@pytest.mark.parametrize(("name", "config", "shape", "expected"), CASES, ids=IDS)
def test_a_layer_of_every_network_has_a_receptive_field(name, config, shape, expected):
    model = build(name, config)
    layer = [n for n, m in model.named_modules() if isinstance(m, DAUConv2d | nn.Conv2d)][2]
    (field,) = effective_receptive_field(model, layer, image(shape)[:1])
    assert field.map.shape == shape[-2:]
    assert field.center is not None
    # The field lies around what the layer's middle looks at: no farther than half the image.
    assert all(abs(a - b) < size / 2 for a, b, size in zip(field.centroid, field.center, shape[-2:], strict=True))


@pytest.mark.parametrize("suffix", ["", "_dau"])
def test_a_pool_of_the_resnet_is_removed_exactly(suffix):
    model = build("resnet50" + suffix, NARROW_RESNET)
    before = from_model(model)
    after, report = remove_pools(before, ["pool4"], mode="exact", input_size=(64, 48))
    assert report.stopped_before == ("avgpool",)
    difference = compare(before, after, ["pool4"], input_size=(64, 48))
    assert difference.positions == 2 * 2 and difference.relative < 1e-12


@pytest.mark.parametrize("suffix", ["", "_dau"])
def test_a_segmentation_network_is_rescaled_up_to_its_last_resizing(suffix):
    model = build("alexnet" + suffix, {**NARROW_ALEXNET, **DENSE})
    before = from_model(model)
    after, report = remove_pools(before, ["pool1"], mode="exact", input_size=(65, 65))
    assert report.stopped_before == ("interpolate",)
    difference = compare(before, after, ["pool1"], input_size=(65, 65))
    assert difference.positions == 9 * 9 and difference.relative < 1e-12
    # and the finer scores still become an image of the input's size
    assert daukit.checkpoint.build_model(after)(image((1, 3, 65, 65))).shape == (1, 5, 65, 65)


UNITS = {"large": 1_523_712, "medium": 786_432, "small": 393_216}


@pytest.mark.parametrize("size", UNITS)
def test_alexnet_has_the_units_of_the_paper(size):
    rows = {row.quantity: row for row in paper_rows(empty_model("alexnet_dau", size=size))}
    assert rows["units"].count == UNITS[size] == int(rows["units"].paper.replace(",", ""))
    millions = float(rows["parameters of layers 2-5"].paper.split()[0])
    # 4.57 and 2.36 million are printed as 4.5 and 2.3, cut off; 1.18 as 1.2, rounded.
    count = rows["parameters of layers 2-5"].count / 1e6
    assert millions in (math.floor(10 * count) / 10, round(count, 1))
    for quantity in ("parameters per filter, layer 2", "parameters per filter, layers 3-5"):
        assert rows[quantity].count == int(rows[quantity].paper)


def test_plain_alexnet_has_the_parameters_of_the_paper():
    rows = {row.quantity: row.count for row in paper_rows(empty_model("alexnet"))}
    assert rows["parameters of layers 2-5"] == 3_710_976


RESNETS = {
    "resnet50": (11_317_248, 25_549_352),
    "resnet50_dau": (7_544_832, 21_776_936),
    "resnet101": (21_344_256, 44_541_480),
    "resnet101_dau": (14_229_504, 37_426_728),
}


@pytest.mark.parametrize("name", RESNETS)
def test_every_cell_of_table_6_is_reproduced(name):
    rows = paper_rows(empty_model(name))
    spatial, total = RESNETS[name]
    assert [row.count for row in rows] == [spatial, total - spatial, total]
    # The paper cuts its numbers off after the first decimal.
    assert [f"{math.floor(row.count / 1e5) / 10} M" for row in rows] == [row.paper for row in rows]


def test_the_deblurring_networks_have_the_numbers_of_table_8():
    plain, displaced = (paper_rows(empty_model(name)) for name in ("srn_deblur", "srn_deblur_dau"))
    assert [row.count for row in plain] == [6_878_240, 6_878_240]
    assert [row.count for row in displaced] == [1_780_768, 707_616]
    for row in (*plain, *displaced):
        assert f"{row.count / 1e6:.3f} M" == row.paper


def test_a_network_of_other_widths_is_not_the_papers():
    assert paper_rows(empty_model("resnet50", width=32)) == []
    assert paper_rows(empty_model("alexnet_dau", units=[1, 1, 1, 1])) == []
    assert paper_rows(empty_model("shallow_dau")) == []


def test_the_dilations_of_the_pyramid_are_what_is_asked_for():
    options = {**NARROW_RESNET, "features": 6}
    network = create_model("deeplabv3plus", **options, aspp_rates=[2, 5])
    assert [branch[0].dilation[0] for branch in network.aspp.branches] == [1, 2, 5]
    assert network.eval()(image((1, 3, 49, 65))).shape == (1, 5, 49, 65)
    for wrong in ([], [6, 0]):
        with pytest.raises(ValueError, match="aspp_rates must be dilations of at least 1"):
            create_model("deeplabv3plus", **options, aspp_rates=wrong)


def test_the_authors_cifar_example_has_its_units():
    model = empty_model("cifar10_dau")
    assert sum(layer.units or 0 for layer in layer_sizes(model)) == 1_152 + 36_864 + 73_728
    corners = {tuple(abs(v) for v in point) for point in create_model("cifar10_dau").conv1.mu[:, 0, 0].T.tolist()}
    assert corners == {(2.25, 2.25)}


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("_dau")])
def test_twins_differ_in_nothing_but_their_daus(name):
    plain, displaced = ({x.name: x for x in layer_sizes(empty_model(n))} for n in (name, f"{name}_dau"))
    # One DAU layer replaces ASPP's branches, so what reads them reads fewer channels.
    common = [layer for layer in plain if layer in displaced and not layer.startswith("project")]
    assert any(displaced[layer].kind == "DAU" for layer in common)
    for layer in common:
        channels = [(twin[layer].in_channels, twin[layer].out_channels) for twin in (plain, displaced)]
        assert channels[0] == channels[1]
        assert displaced[layer].kind in ("DAU", plain[layer].kind)
    assert all(layer.startswith("aspp") for layer in set(plain) ^ set(displaced))


def test_a_pretrained_classifier_becomes_the_segmentation_network_of_the_paper(tmp_path):
    """The plan of section 6.1: factors 1, 2, 2, 2, 4, 4 for layers 2 to 7."""
    classifier = build("alexnet_dau", {**NARROW_ALEXNET, "input_size": [67, 67]})
    dense, report = remove_pools(from_model(classifier), ["pool2", "pool5"], mode="paper", input_size=(67, 67))
    assert {layer.name: layer.factor for layer in report.layers if layer.name in FACTORS} == FACTORS
    segmenter = dau_layers(build("alexnet_dau", {**NARROW_ALEXNET, **DENSE}))
    for name, layer in dau_layers(classifier).items():
        twice = FACTORS[name] * layer.mu
        assert torch.equal(dense.tensors[f"{name}.mu"], twice)
        assert torch.equal(segmenter[name].mu, twice)  # its grid is the classifier's, scaled
        assert segmenter[name].max_displacement == FACTORS[name] * layer.max_displacement
    path = tmp_path / "m.safetensors"
    daukit.checkpoint.write(dense, path)
    assert read(path).header.modules["pool2"] == {"type": "Identity"}


def test_output_p_of_the_segmentation_network_looks_at_input_8p():
    model = build("alexnet", {**NARROW_ALEXNET, **DENSE})
    (field,) = effective_receptive_field(model, "conv5", image((1, 3, 129, 145)))
    assert field.center == (8 * (17 // 2), 8 * (19 // 2))


def test_deblurring_passes_a_whole_number_of_cells_at_every_scale():
    model = build("srn_deblur_dau", {"width": 4, "blocks": 1})
    results = model.forward_scales(image((1, 3, 37, 50)))
    assert [tuple(r.shape[-2:]) for r in results] == [(10, 13), (19, 25), (37, 50)]
    assert torch.equal(results[-1], model(image((1, 3, 37, 50))))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("alexnet_dau", {"size": "tiny"}, "size must be one of"),
        ("alexnet_dau", {"units": [1, 2]}, "units must be four numbers"),
        ("alexnet", {"input_size": [28, 28]}, "67 is the least"),
        ("alexnet", {"task": "detection"}, "task must be"),
        ("resnet50", {"depths": [1, 2]}, "depths must be four"),
        ("srn_deblur", {"scales": 0}, "must be positive"),
    ],
)
def test_a_wrong_option_is_named(name, config, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **config)


def test_parameters_are_counted_with_biases_and_normalisation():
    model = create_model("shallow", channels=[2, 3, 4], num_classes=2, input_size=[8, 8])
    # 3x3 filters, scale and shift of the normalisation, the linear layer on 4 maps of one pixel
    assert parameter_count(model) == 9 * (2 + 6 + 12) + 2 * 9 + 4 * 2 + 2


def test_sigmas_of_the_general_form_are_drawn_from_a_range_anew_for_every_unit():
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[8, 8, 8], learn_sigma="unit", sigma_range=[0.3, 0.8])
    sigmas = torch.cat([layer.sigma.detach().flatten() for layer in network.modules() if hasattr(layer, "sigma")])
    assert 0.3 <= sigmas.min() < 0.32 and 0.78 < sigmas.max() <= 0.8
    # Of n uniform numbers, the mean's deviation is width / sqrt(12 n); four of them.
    assert abs(sigmas.mean() - 0.55) < 4 * 0.5 / (12 * len(sigmas)) ** 0.5
    for wrong, words in (([0.8, 0.3], "the larger one last"), ([0.3], "two numbers"), ([0.3, 9.0], "from 0.1 to 1.6")):
        with pytest.raises(ValueError, match=words):
            daukit.create_model("shallow_dau", learn_sigma="unit", sigma_range=wrong)
    with pytest.raises(ValueError, match="sigma_range is for learn_sigma \"unit\", got 'none'"):
        daukit.create_model("shallow_dau", sigma_range=[0.3, 0.8])
