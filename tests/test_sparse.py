"""Convolutions with zeros as layers of whole pixels: the same outputs, for every shape, mask and precision."""

import copy
import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.pruning.sparsifier.utils import FakeSparsity
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import daukit
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.substitution.taps import units_of, why_no_units


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def assert_same(model, reference, x):
    """Outputs equal to 1e-6 of the largest."""
    with torch.no_grad():
        expected, actual = reference(x), model(x)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


def names(report):
    return [layer.name for layer in report.layers]


def reasons(report):
    return {layer.name: layer.reason for layer in report.skipped}


def with_zeros(model, share=0.6):
    """``model`` with a share of the weights of every convolution zero, one of them a negative zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for conv in model.modules():
            if isinstance(conv, nn.Conv2d):
                conv.weight[torch.rand(conv.weight.shape, generator=generator) < share] = 0
                conv.weight.view(-1)[0] = -0.0
    return model


@st.composite
def convolutions(draw):
    """A convolution and a size of images: kernels of 1 to 7, strides and dilations of 1 to 3, any padding there is."""
    groups = draw(st.sampled_from([1, 2, 3]))
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    if draw(st.booleans()):  # depthwise, of one or two outputs a channel
        groups, outputs = inputs, inputs * draw(st.integers(1, 2))
    kernel, stride, dilation = ((draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (7, 3, 3))
    extent = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    if padding == "numbers":
        padding = tuple(draw(st.integers(0, pixels // 2)) for pixels in extent)
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride=1 if padding == "same" else stride, padding=padding, dilation=dilation,
        groups=groups, bias=draw(st.booleans()),
    )  # fmt: skip
    size = tuple(pixels + 1 + draw(st.integers(0, 9)) for pixels in extent)
    return conv, size, draw(st.integers(0, 2**32))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=120, deadline=None, derandomize=True)
@given(convolutions(), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.sampled_from([torch.float64, torch.float32]))
def test_a_convolution_keeps_its_outputs_whatever_its_shape(case, share, dtype):
    conv, size, seed = case
    torch.manual_seed(seed)
    conv.reset_parameters()
    with torch.no_grad():
        conv.weight[torch.rand(conv.weight.shape) < share] = 0
        conv.weight.view(-1)[0] = -0.0
    conv = conv.to(dtype)
    assert why_no_units(conv) is None
    layer = units_of(conv, conv.weight.detach())
    assert layer.weight.numel() == int((conv.weight != 0).sum()) == int(layer.unit_counts.sum())
    x = torch.randn(2, conv.in_channels, *size, dtype=dtype)
    expected, actual = conv(x), layer(x)
    assert actual.shape == expected.shape and actual.dtype == dtype
    # The same products, summed in another order.
    absolute = None if conv.bias is None else conv.bias.double().abs()
    shape = (conv.stride, conv.padding, conv.dilation, conv.groups)
    bound = F.conv2d(x.double().abs(), conv.weight.double().abs(), absolute, *shape)
    terms = conv.weight[0].numel() + 1
    assert ((actual.double() - expected).abs() <= 2 * terms * torch.finfo(dtype).eps * bound).all()


@pytest.mark.parametrize(
    ("options", "dilation", "displacements", "trim"),
    [
        ({"padding": 1}, (1, 1), (-1, 0, 1), (0, 0)),
        ({"dilation": 2, "padding": 2}, (2, 2), (-1, 0, 1), (0, 0)),
        ({"dilation": 2, "padding": 1}, (1, 1), (-1, 1, 3), (2, 2)),
        ({"dilation": 3}, (3, 3), (0, 1, 2), (6, 6)),
        ({"stride": 2}, (1, 1), (0, 1, 2), (2, 2)),
    ],
)
def test_taps_lie_where_padding_and_dilation_put_them(options, dilation, displacements, trim):
    conv = nn.Conv2d(1, 1, 3, **options)
    layer = units_of(conv, torch.ones_like(conv.weight))
    assert (layer.dilation, layer.trim) == (dilation, trim)
    expected = [(y, x) for y in displacements for x in displacements]
    assert [tuple(column) for column in layer.mu.T.tolist()] == expected
    assert layer.max_displacement == max(map(abs, displacements))
    assert layer.whole_pixels and layer.sigma == 0 and layer.stride == conv.stride


class Network(nn.Module):
    """One convolution of every kind that stays, and two that do not."""

    def __init__(self):
        super().__init__()
        self.valid = nn.Conv2d(3, 6, 4, stride=2, bias=False)
        self.one = nn.Conv2d(6, 6, 1, groups=2)
        self.full = nn.Conv2d(6, 6, 3, padding=2)
        self.reflect = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(6, 6, 3)
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.normal = parametrizations.weight_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.hooked = nn.Conv2d(6, 6, 3, padding=1)
        self.hooked.register_forward_hook(lambda module, inputs, output: output * 2)
        self.tied, self.tied_too = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.tied_too.weight = self.tied.weight
        self.whole = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        x = self.normal(self.up(self.reflect(self.full(self.one(self.valid(x))))))
        return self.whole(self.tied_too(self.tied(self.hooked(x))))


def test_what_cannot_be_or_gains_nothing_stays_with_its_reason():
    model = Network().requires_grad_(False)
    for name in ("valid", "one", "full", "reflect", "hooked", "tied"):
        with_zeros(model.get_submodule(name))
    before = copy.deepcopy(model)
    report = daukit.substitute(model, sparse=True)
    assert names(report) == ["valid", "one"] == list(dau_layers(model))
    expected = {
        "full": "padding (2, 2) is more than half",
        "reflect": "pads by 'reflect'",
        "up": "transposed",
        "line": "not a two-dimensional",
        "normal": "its weight is parametrised",
        "hooked": "hooks",
        "tied": "shared",
        "tied_too": "shared",
        "whole": "none of its 324 weights is zero",
    }
    found = reasons(report)
    assert set(found) == set(expected)
    assert all(words in found[name] for name, words in expected.items())
    assert_same(model, before, noise(2, 3, 19, 24))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ["lazy", "meta", "quantised", "complex", "far"])
def test_other_convolutions_stay_with_their_reason(kind):
    made = {
        "lazy": (lambda: nn.LazyConv2d(2, 3), "no weights before its first call"),
        "meta": (lambda: nn.Conv2d(2, 2, 3, device="meta"), "on the meta device"),
        "quantised": (lambda: torch.ao.nn.quantized.Conv2d(2, 2, 3), "quantised"),
        "complex": (lambda: nn.Conv2d(2, 2, 3, dtype=torch.complex64), "complex64"),
        "far": (lambda: nn.Conv2d(1, 1, (1, 2), dilation=40_000), "40,000 pixels"),
    }[kind]
    report = daukit.substitute(nn.Sequential(made[0]()), sparse=True)
    assert made[1] in reasons(report)["0"] and not report.layers


def masked():
    """A convolution behind each way to hold a mask, with the values that it leaves."""
    kept = (torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.3).float()

    class Mask(nn.Module):
        def forward(self, weight):
            return weight * kept

    def attached(conv):
        prune.custom_from_mask(conv, "weight", kept)
        prune.l1_unstructured(conv, "weight", 1)  # a second one, of the rest
        return prune.l1_unstructured(conv, "bias", 2)

    def permanent(conv):
        return prune.remove(attached(conv), "weight")

    def parametrised(conv):
        parametrize.register_parametrization(conv, "weight", Mask())
        return conv

    def torch_ao(conv):
        parametrize.register_parametrization(conv, "weight", FakeSparsity(kept))
        return conv

    return {f.__name__: f for f in (attached, permanent, parametrised, torch_ao)}


@pytest.mark.parametrize("how", masked())
def test_a_pruned_convolution_becomes_what_its_mask_leaves(how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()).eval()
    conv = masked()[how](model[0])
    x, left = noise(2, 2, 7, 9), int((conv.weight != 0).sum())
    expected = model(x)
    report = daukit.substitute(model, sparse=True)
    assert type(model[0]) is DAUConv2d and report.layers[0].units == left < 72
    assert sorted(model[0].state_dict()) == ["bias", "mu", "unit_counts", "weight"]
    assert (model(x) - expected).abs().max() <= 1e-6 * expected.abs().max()
    # The convolution, which may be used elsewhere, is as it was.
    assert torch.equal(conv(x).relu(), expected) and int((conv.weight != 0).sum()) == left
    assert model[0].weight.requires_grad and model[0].bias.requires_grad


def test_a_pattern_of_two_in_four_is_taken_as_it_comes():
    conv = nn.Conv2d(8, 6, 3, padding=1)
    with torch.no_grad():
        blocks = conv.weight.permute(0, 2, 3, 1).reshape(-1, 4)
        kept = torch.zeros_like(blocks).scatter_(1, blocks.abs().topk(2, dim=1).indices, 1.0)
        conv.weight.mul_(kept.reshape(6, 3, 3, 8).permute(0, 3, 1, 2))
    model = nn.Sequential(conv)
    before = copy.deepcopy(model)
    (layer,) = daukit.substitute(model, sparse=True).layers
    assert layer.units == layer.zeros == 6 * 8 * 9 // 2
    assert_same(model, before, noise(1, 8, 9, 8))


@pytest.mark.parametrize("amount", [0.5, 0.9])
def test_sparsity_prunes_the_weights_that_torchs_pruning_does(amount):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 5, 3, stride=2))
    reference = copy.deepcopy(model)
    for conv in reference:
        prune.l1_unstructured(conv, "weight", amount)
    report = daukit.substitute(model, sparse=True, sparsity=amount)
    assert [layer.zeros for layer in report.layers] == [round(amount * 600), round(amount * 360)]
    assert_same(model, reference, noise(1, 3, 12, 13))


def test_one_sparsity_over_all_layers_is_torchs_global_pruning():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 5, 3, stride=2))
    with torch.no_grad():
        model[1].weight.mul_(3)
    reference = copy.deepcopy(model)
    chosen = [(conv, "weight") for conv in reference]
    prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=0.8)
    report = daukit.substitute(model, sparse=True, sparsity=0.8, everywhere=True)
    assert [layer.zeros for layer in report.layers] == [int((conv.weight == 0).sum()) for conv in reference]
    assert report.everywhere and report.sparsity == 0.8
    assert_same(model, reference, noise(1, 3, 12, 13))


def test_a_threshold_is_a_magnitude_and_strict():
    model = nn.Sequential(nn.Conv2d(1, 1, (1, 5), padding="same", bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, -0.25, 0.125, -0.125, 1.0]).reshape(1, 1, 1, 5))
    (layer,) = daukit.substitute(model, sparse=True, threshold=0.25).layers
    assert (layer.weights, layer.zeros, layer.units) == (5, 2, 3)
    assert model[0].weight.tolist() == [0.5, -0.25, 1.0]
    assert model[0].mu.tolist() == [[0.0, 0.0, 0.0], [-2.0, -1.0, 2.0]]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sparse": True, "units": 3}, ValueError, "drop units"),
        ({"sparse": True, "fit": True}, ValueError, "drop units"),
        ({"threshold": 0.1}, ValueError, "go with sparse=True"),
        ({"sparse": True, "threshold": 0.1, "sparsity": 0.5}, ValueError, "give one of"),
        ({"sparse": True, "threshold": -1.0}, ValueError, "at least 0"),
        ({"sparse": True, "sparsity": 1.5}, ValueError, r"within \[0, 1\]"),
        ({"sparse": True, "sparsity": float("nan")}, ValueError, r"within \[0, 1\]"),
        ({"sparse": True, "everywhere": True}, ValueError, "goes with a sparsity"),
        ({"sparse": True, "sparsity": "0.9"}, TypeError, "sparsity must be a number"),
        ({"sparse": True, "sparsity": 0.9, "everywhere": "yes"}, TypeError, "everywhere must be True or False"),
        ({"sparse": "yes"}, TypeError, "sparse must be True or False"),
        ({"sparse": True, "where": "nothing"}, ValueError, "matches no layer"),
        ({"sparse": True, "kernel_size": 5}, ValueError, "no convolution has kernel_size 5x5"),
    ],
)
def test_options_that_are_wrong_or_do_not_go_together_are_refused(options, error, match):
    model = nn.Sequential(with_zeros(nn.Conv2d(2, 2, 3, padding=1)))
    with pytest.raises(error, match=match):
        daukit.substitute(model, **options)
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_and_nothing_is_changed(value):
    model = with_zeros(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)))
    with torch.no_grad():
        model[1].weight[0, 0, 0, 1] = value
    with pytest.raises(ValueError, match="1: its weights hold NaN or infinite values"):
        daukit.substitute(model, sparse=True, sparsity=0.5)
    assert not dau_layers(model)


def test_a_convolution_without_any_weight_left_gives_its_bias():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1))
    before = copy.deepcopy(model)
    nn.init.zeros_(before[0].weight)
    (layer,) = daukit.substitute(model, sparse=True, sparsity=1).layers
    assert (layer.units, layer.max_displacement) == (0, 0)
    assert_same(model, before, noise(2, 2, 8, 7))


def test_modes_names_and_what_learns_stay():
    shared = with_zeros(nn.Conv2d(3, 3, 3, padding=1))
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}).eval()
    shared.weight.requires_grad_(False)
    daukit.substitute(model, sparse=True, where="b.0")
    assert model["a"] is model["b"][0] and not model["a"].training
    learned = {name: parameter.requires_grad for name, parameter in model["a"].named_parameters()}
    assert learned == {"weight": False, "mu": False, "bias": True}


def test_weights_that_are_left_go_on_learning_as_the_convolutions_did():
    torch.manual_seed(0)
    model = with_zeros(nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 2, (2, 3))))
    reference, x = copy.deepcopy(model), noise(2, 2, 9, 11)
    daukit.substitute(model, sparse=True)
    for network in (model, reference):
        network(x).square().sum().backward()
    for i in (0, 2):
        kept = reference[i].weight != 0
        torch.testing.assert_close(model[i].weight.grad, reference[i].weight.grad[kept])
        torch.testing.assert_close(model[i].bias.grad, reference[i].bias.grad)
        assert model[i].mu.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_become_float32_units_of_the_same_values(dtype):
    model = with_zeros(nn.Sequential(nn.Conv2d(2, 3, 3))).to(dtype)
    weight = model[0].weight.detach()
    daukit.substitute(model, sparse=True)
    assert torch.equal(model[0].weight, weight[weight != 0].float())
    assert model(noise(1, 2, 6, 6).to(dtype)).dtype == dtype


def test_the_report_counts_and_is_json():
    model = with_zeros(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1, bias=False)))
    zeros = [int((conv.weight == 0).sum()) for conv in model]
    report = daukit.substitute(model, sparse=True)
    assert [(layer.weights, layer.zeros, layer.units) for layer in report.layers] == [
        (216, zeros[0], 216 - zeros[0]),
        (32, zeros[1], 32 - zeros[1]),
    ]
    assert [layer.bytes_before for layer in report.layers] == [4 * (216 + 8), 4 * 32]
    # A float32 weight and two signed bytes a unit, a count a pair, and the bias.
    units = [layer.units for layer in report.layers]
    assert [layer.bytes_after for layer in report.layers] == [6 * units[0] + 24 + 4 * 8, 6 * units[1] + 32]
    assert json.loads(json.dumps(asdict(report)))["layers"][0]["kernel_size"] == [3, 3]


@pytest.mark.slow
def test_a_bottleneck_network_keeps_its_outputs_through_a_file(tmp_path):
    torch.manual_seed(0)
    model = daukit.create_model("resnet50", num_classes=5).eval()
    nn.init.normal_(model.fc.weight)  # which starts at zero
    reference = copy.deepcopy(model)
    report = daukit.substitute(model, sparse=True, sparsity=0.9)
    assert len(report.layers) == 54 and not report.skipped  # 53 convolutions and the classifier
    with torch.no_grad():
        for layer in report.layers:
            weight = reference.get_submodule(layer.name).weight
            weight.view(-1)[weight.flatten().abs().argsort(stable=True)[: round(0.9 * weight.numel())]] = 0
    x = noise(1, 3, 64, 72)
    assert_same(model, reference, x)
    size = daukit.save(model, tmp_path / "sparse.safetensors")
    assert size < 0.3 * daukit.save(reference, tmp_path / "dense.safetensors")
    loaded = daukit.load(tmp_path / "sparse.safetensors")
    assert torch.equal(loaded(x), model(x))
    entry = daukit.read(tmp_path / "sparse.safetensors").header.history[-1]
    assert entry["operation"] == "substitute" and entry["arguments"]["sparsity"] == 0.9
