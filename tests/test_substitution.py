"""Substitution: what is replaced, what is skipped and why, and that a fitted network computes the same."""

import copy
import itertools
import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

import daukit
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.substitution import substitute, units_needed

TINY = 1e-3  # the least sigma: its blur is the identity


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


class Subclass(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) + 1


class Network(nn.Module):
    """One convolution of every kind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 1),
            nn.Sequential(nn.Conv2d(6, 6, 3, padding="same", dilation=2), nn.ReLU()),
        )
        self.even = nn.Conv2d(6, 6, 2)
        self.reflect = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.valid = nn.Conv2d(6, 6, 3)
        self.wide = nn.Conv2d(6, 6, 3, padding=2)
        self.up = nn.ConvTranspose2d(6, 6, 3)
        self.own = Subclass(6, 6, 3, padding=1)
        self.hooked = nn.Conv2d(6, 6, 3, padding=1)
        self.hooked.register_forward_hook(lambda module, inputs, output: output * 2)
        self.tied = nn.Conv2d(6, 6, 3, padding=1)
        self.tied_too = nn.Conv2d(6, 6, 3, padding=1)
        self.tied_too.weight = self.tied.weight
        self.line = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.body(self.stem(x))
        x = self.own(self.up(self.wide(self.valid(self.reflect(self.even(x))))))
        return self.tied_too(self.tied(self.hooked(x)))


def names(report):
    return [layer.name for layer in report.layers]


def reasons(report):
    return {layer.name: layer.reason for layer in report.skipped}


KINDS, STEPS, DILATIONS = [((3, 3), 1), ((3, 3), 2), ((1, 5), 4)], [1, 2, (3, 1)], [1, 2, (1, 3)]
# Quick tests have all pairs of two of these choices, slow ones all combinations.
CONVOLUTIONS = [
    pytest.param(*KINDS[i], STEPS[j], DILATIONS[k], marks=pytest.mark.slow if (i + j + k) % 3 else ())
    for i, j, k in itertools.product(range(3), repeat=3)
]


@pytest.mark.parametrize(("kernel_size", "groups", "stride", "dilation"), CONVOLUTIONS)
def test_a_fitted_layer_with_a_unit_per_tap_computes_its_convolution(kernel_size, groups, stride, dilation):
    torch.manual_seed(0)
    dilations = (dilation, dilation) if isinstance(dilation, int) else dilation
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilations, strict=True))
    conv = nn.Conv2d(4, 4, kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups)
    model = nn.Sequential(copy.deepcopy(conv))
    report = substitute(model, kernel_size[0] * kernel_size[1], sigma=TINY, fit=True, starts=2)
    assert isinstance(model[0], DAUConv2d) and report.layers[0].error < 1e-6
    for size in ((8, 9), (7, 12), (1, 2)):
        x = noise(2, 4, *size)
        torch.testing.assert_close(model(x), conv(x))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nine_units_and_no_blur_reproduce_a_network(mode):
    torch.manual_seed(0)
    before = Network().requires_grad_(False)
    getattr(before, mode)()
    after = copy.deepcopy(before)
    report = substitute(after, 9, kernel_size=3, sigma=TINY, fit=True)
    assert names(report) == ["body.0", "body.3.0"]
    x = noise(2, 3, 33, 30)
    expected = before(x)
    assert (after(x) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert all(module.training == before.training for module in after.modules())


def test_every_other_convolution_is_skipped_with_its_reason():
    model = Network()
    report = substitute(model)
    assert names(report) == ["stem", "body.0", "body.3.0"] == list(dau_layers(model))
    expected = {
        "body.2": "1x1",
        "even": "even",
        "reflect": "'reflect'",
        "valid": r"padding is (0, 0), not",
        "wide": r"padding is (2, 2), not",
        "up": "transposed",
        "own": "Subclass is a subclass",
        "hooked": "hooks",
        "tied": "shared",
        "tied_too": "shared",
        "line": "not a two-dimensional",
    }
    assert list(reasons(report)) == list(expected)
    assert all(word in reasons(report)[name] for name, word in expected.items())
    assert model(noise(1, 3, 33, 30)).shape == Network()(noise(1, 3, 33, 30)).shape


def test_parametrised_and_weight_normalised_convolutions_are_skipped():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[1])
    report = substitute(model)
    assert not report.layers and list(reasons(report)) == ["0", "1"]


def test_the_model_itself_cannot_be_replaced():
    assert "whole model" in reasons(substitute(nn.Conv2d(2, 2, 3, padding=1)))[""]


@pytest.mark.parametrize(
    ("where", "kernel_size", "expected"),
    [
        ("body.*", None, ["body.0", "body.3.0"]),
        (["stem", "*.3.0"], None, ["stem", "body.3.0"]),
        ("*", 5, ["stem"]),
        (None, (3, 3), ["body.0", "body.3.0"]),
        (None, 1, ["body.2"]),
        (lambda name, module: module.groups > 1, None, ["body.0"]),
        (lambda name, module: False, None, []),
    ],
)
def test_where_and_kernel_size_choose(where, kernel_size, expected):
    model = Network()
    report = substitute(model, where=where, kernel_size=kernel_size)
    assert names(report) == expected == list(dau_layers(model))


@pytest.mark.parametrize(
    ("where", "kernel_size", "match"),
    [
        ("stme", None, "did you mean 'stem'"),
        ("body", None, r"did you mean 'body\.\*'"),
        (["stem", "nothing*"], None, r"'nothing\*' matches no convolution"),
        (None, 7, "no convolution has kernel_size 7x7; the sizes are 1x1, 2x2, 3, 3x3, 5x5"),
    ],
)
def test_what_matches_nothing_is_an_error(where, kernel_size, match):
    with pytest.raises(ValueError, match=match):
        substitute(Network(), where=where, kernel_size=kernel_size)


def test_a_module_in_several_places_stays_one_module():
    shared, block = nn.Conv2d(3, 3, 3, padding=1), nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": block, "d": block})
    report = substitute(model, where=["b.0", "d.0"])
    assert names(report) == ["a", "c.0"]
    assert isinstance(model["a"], DAUConv2d) and model["a"] is model["b"][0]
    assert isinstance(model["c"][0], DAUConv2d) and model["c"] is model["d"]


def test_bias_and_what_learns_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False))
    model[0].weight.requires_grad_(False)
    bias = model[0].bias.detach().clone()
    substitute(model)
    assert torch.equal(model[0].bias, bias) and model[1].bias is None
    assert [p.requires_grad for p in (model[0].weight, model[0].mu, model[0].bias)] == [False, False, True]
    assert model[1].weight.requires_grad and model[1].mu.requires_grad


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.float64, torch.float64), (torch.bfloat16, torch.float32), (torch.float16, torch.float32)],
)
@pytest.mark.parametrize("fit", [False, True])
def test_units_keep_float32s_digits_in_a_half_network(dtype, kept, fit):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).to(dtype)
    substitute(model, fit=fit)
    assert {parameter.dtype for parameter in model.parameters()} == {kept}
    assert model(noise(1, 3, 6, 6).to(dtype)).dtype == dtype


def test_the_limit_reaches_as_far_as_the_kernel():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, (13, 3), padding=(6, 1)))
    assert [layer.max_displacement for layer in substitute(model, max_displacement=2.5).layers] == [2.5, 6.0]
    assert [model[i].max_displacement for i in (0, 1)] == [2.5, 6.0]


def test_the_report_counts_and_is_json():
    model = Network()
    counts = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in ("stem", "body.0")}
    report = substitute(model, 3, where=["stem", "body.0"], fit=True, seed=1)
    assert [layer.parameters_before for layer in report.layers] == list(counts.values()) == [608, 72]
    assert [layer.parameters_after for layer in report.layers] == [3 * 3 * 24 + 8, 3 * 3 * 8]
    assert (report.parameters_before, report.parameters_after) == (680, 296)
    assert all(0 < layer.error < 1 for layer in report.layers)
    read = json.loads(json.dumps(asdict(report)))
    assert read["units"] == 3 and read["layers"][0]["kernel_size"] == [5, 5] and read["skipped"] == []
    assert all(layer.error is None for layer in substitute(Network()).layers)


def test_nan_weights_are_named_and_nothing_is_changed():
    model = Network()
    with torch.no_grad():
        model.body[0].weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"body\.0: kernels hold NaN"):
        substitute(model, fit=True)
    assert not dau_layers(model)


def test_a_substituted_network_of_daukits_is_saved_with_its_history(tmp_path):
    model = daukit.create_model("shallow", channels=[3, 4, 5]).eval()
    substitute(model, 2, where="conv[23]", fit=True)
    path = tmp_path / "model.safetensors"
    daukit.save(model, path)
    loaded = daukit.load(path)
    x = noise(2, 1, 28, 28)
    assert list(dau_layers(loaded)) == ["conv2", "conv3"]
    assert torch.equal(loaded(x), model(x))
    entry = daukit.read(path).header.history[-1]
    assert entry["operation"] == "substitute" and entry["arguments"]["layers"] == ["conv2", "conv3"]


FACTORY = """
from torch import nn

def build(channels):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.Conv2d(channels, 2, 1)),
    )
"""


def test_a_substituted_network_of_the_users_is_saved_and_loaded(tmp_path):
    source = tmp_path / "networks.py"
    source.write_text(FACTORY)
    namespace = {}
    exec(FACTORY, namespace)
    model = namespace["build"](4).eval()
    substitute(model, 3, fit=True)
    factory, path = f"{source}:build", tmp_path / "model.safetensors"
    daukit.save(model, path, architecture={"factory": factory, "config": {"channels": 4}})
    loaded = daukit.load(path, model=factory)
    x = noise(1, 3, 11, 12)
    assert list(dau_layers(loaded)) == ["0", "3.0"]
    assert torch.equal(loaded(x), model(x))


def few_taps():
    """Two convolutions whose filters have one tap, and two taps of opposite sign."""
    model = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(6, 2, 1))
    with torch.no_grad():
        for conv in model[:2]:
            conv.weight.zero_()
        model[0].weight[:, :, 2, 0] = 0.5
        model[1].weight[:, :, 0, 0], model[1].weight[:, :, 1, 2] = 1.0, -1.0
    return model


def test_units_needed_are_those_that_the_kernels_are_made_of():
    model = few_taps()
    table = units_needed(model, errors=(0.8, 0.5, 1e-6), sigma=TINY, max_units=3, filters=7)
    assert [layer.units for layer in table.layers] == [(1, 1, 1), (1, 2, 2)]
    assert [(layer.filters, layer.filters_fitted) for layer in table.layers] == [(20, 7), (30, 7)]
    assert table.total_units == (50, 80, 80)
    assert [layer.name for layer in table.skipped] == ["2"]
    assert not dau_layers(model)
    assert json.loads(json.dumps(asdict(table)))["layers"][1]["units"] == [1, 2, 2]


def test_more_units_than_were_tried_are_none():
    table = units_needed(few_taps(), errors=(0.5,), sigma=TINY, max_units=1)
    assert [layer.units for layer in table.layers] == [(1,), (None,)] and table.total_units == (None,)


def test_the_draw_of_filters_follows_the_seed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    first, again, other = (units_needed(model, max_units=2, filters=5, seed=seed) for seed in (0, 0, 1))
    assert first == again and first.layers[0].errors != other.layers[0].errors
    seen = []
    units_needed(model, max_units=1, filters=None, on_filters=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 64)]


@pytest.mark.parametrize(("options", "match"), [({"errors": ()}, "errors must"), ({"filters": 0}, "filters must")])
def test_a_wrong_option_of_the_table_raises(options, match):
    with pytest.raises(ValueError, match=match):
        units_needed(Network(), **options)


def test_a_torchvision_network_is_substituted():
    models = pytest.importorskip("torchvision.models")
    model = models.resnet18(weights=None).eval()
    report = substitute(model, 9, where="layer1.*", sigma=TINY, fit=True)
    assert len(report.layers) == 4 and not report.skipped


def test_a_timm_network_is_substituted():
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", pretrained=False).eval()
    assert len(substitute(model, kernel_size=3).layers) == 16
    assert model(noise(1, 3, 32, 32)).shape == (1, 1000)
