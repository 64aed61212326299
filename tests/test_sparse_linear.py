"""Linear layers with zeros as units: the same outputs for every input, and files and commands that know them."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sparse import masked, reasons
from torch import fx, nn
from torch.nn.utils import prune

import daukit
from daukit.models.structure import dau_layers
from daukit.nn import DAULinear
from daukit.substitution.taps import linear_units_of


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def with_zeros(linear, share=0.6):
    with torch.no_grad():
        linear.weight[torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(5)) < share] = 0
        linear.weight.view(-1)[0] = -0.0
    return linear


LEADING = st.lists(st.integers(0, 4), max_size=3)
"""Sizes before the features: none, some, and some that leave no vector."""


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 40), st.integers(1, 40), LEADING, st.booleans(), st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_a_linear_layer_keeps_its_outputs_whatever_its_input(inputs, outputs, leading, bias, share, dtype):
    torch.manual_seed(inputs * outputs)
    linear = with_zeros(nn.Linear(inputs, outputs, bias=bias), share).to(dtype)
    layer = linear_units_of(linear, linear.weight.detach())
    assert layer.dau.weight.numel() == int((linear.weight != 0).sum())
    x = torch.randn(*leading, inputs, dtype=dtype)
    twin = daukit.prepare(nn.Sequential(layer))
    with torch.no_grad():
        expected = linear(x)
        bound = x.double().abs() @ linear.weight.double().abs().T + (linear.bias.double().abs() if bias else 0)
        for actual in (layer(x), twin(x)):
            assert actual.shape == expected.shape and actual.dtype == dtype and actual.is_contiguous()
            # The same products, summed in another order.
            assert ((actual.double() - expected).abs() <= 2 * (inputs + 1) * torch.finfo(dtype).eps * bound).all()


class Vectors(nn.Module):
    """Linear layers of every kind that stay, and two that do not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6, bias=False)
        self.whole, self.tied = nn.Linear(6, 6), nn.Linear(6, 6)
        self.tied_too = nn.Linear(6, 6)
        self.tied_too.weight = self.tied.weight
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0)

    def forward(self, x):
        return self.block(self.tied_too(self.tied(self.whole(self.second(self.first(x).relu())))))


def test_what_cannot_be_or_gains_nothing_stays_with_its_reason():
    model = Vectors().eval()
    for linear in model.modules():
        if isinstance(linear, nn.Linear) and linear is not model.whole:
            with_zeros(linear)
    before, x = copy.deepcopy(model), noise(2, 5, 6)
    report = daukit.substitute(model, sparse=True)
    assert [(layer.name, layer.kernel_size) for layer in report.layers] == [("first", None), ("second", None)]
    assert list(dau_layers(model)) == ["first.dau", "second.dau"]
    expected = {
        "whole": "none of its 36 weights is zero",
        "tied": "shared",
        "tied_too": "shared",
        "block.self_attn.out_proj": "a subclass of Linear",
        "block.linear1": "a TransformerEncoderLayer reads its weight itself",
        "block.linear2": "a TransformerEncoderLayer reads its weight itself",
    }
    found = reasons(report)
    assert set(found) == set(expected) and all(words in found[name] for name, words in expected.items())
    with torch.no_grad():
        torch.testing.assert_close(model(x), before(x))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.LazyLinear(2), "no weights before its first call"),
        (lambda: nn.Linear(2, 2, device="meta"), "on the meta device"),
        (lambda: torch.ao.nn.quantized.Linear(2, 2), "quantised"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "complex64"),
        (lambda: nn.Linear(2**20 + 1, 1, bias=False), "1,048,577 features"),
    ],
)
def test_other_linear_layers_stay_with_their_reason(make, words):
    report = daukit.substitute(nn.Sequential(make()), sparse=True)
    assert words in reasons(report)["0"] and not report.layers


@pytest.mark.parametrize("how", masked())
def test_a_pruned_linear_layer_becomes_what_its_mask_leaves(how):
    torch.manual_seed(0)
    conv = masked()[how](nn.Conv2d(2, 4, 3))  # the masks there are made for
    linear = nn.Linear(18, 4)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.flatten(1))
    prune.custom_from_mask(linear, "weight", (conv.weight != 0).flatten(1))
    model, x = nn.Sequential(linear), noise(3, 18)
    expected = model(x)
    (layer,) = daukit.substitute(model, sparse=True).layers
    assert type(model[0]) is DAULinear and layer.units == int((conv.weight != 0).sum())
    torch.testing.assert_close(model(x), expected)


def test_sparsity_prunes_linear_layers_as_torchs_pruning_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 30), nn.Linear(30, 5))
    reference, x = copy.deepcopy(model), noise(2, 3, 7, 7)
    chosen = [(reference[i], "weight") for i in (0, 3, 4)]
    prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=0.8)
    report = daukit.substitute(model, sparse=True, sparsity=0.8, everywhere=True)
    assert [layer.zeros for layer in report.layers] == [int((layer.weight == 0).sum()) for layer, _ in chosen]
    torch.testing.assert_close(model(x), reference(x))


def test_a_kernel_size_leaves_linear_layers_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), with_zeros(nn.Linear(8, 5)))
    report = daukit.substitute(model, sparse=True, sparsity=0.5, kernel_size=1)
    assert [layer.name for layer in report.layers] == ["0"] and not report.skipped
    with pytest.raises(ValueError, match="there are no convolutions to choose from"):
        daukit.substitute(nn.Sequential(with_zeros(nn.Linear(8, 5))), sparse=True, kernel_size=3)


def test_weights_that_are_left_go_on_learning_as_those_of_the_linear_layer_did():
    torch.manual_seed(0)
    model = nn.Sequential(with_zeros(nn.Linear(6, 5)), nn.ReLU(), with_zeros(nn.Linear(5, 3, bias=False)))
    model[2].weight.requires_grad_(False)
    reference, x = copy.deepcopy(model), noise(4, 2, 6)
    daukit.substitute(model, sparse=True)
    for network in (model, reference):
        network(x).square().sum().backward()
    torch.testing.assert_close(model[0].dau.weight.grad, reference[0].weight.grad[reference[0].weight != 0])
    torch.testing.assert_close(model[0].dau.bias.grad, reference[0].bias.grad)
    assert not model[2].dau.weight.requires_grad and not model[0].dau.mu.requires_grad


def test_another_number_of_features_is_refused():
    with pytest.raises(ValueError, match="takes 6 channels, got 3"):
        DAULinear(6, 4)(torch.zeros(4, 2, 3))


def test_a_new_layer_is_dense_and_a_tracer_can_see_through_it():
    layer = DAULinear(3, 4)
    weight = layer.dau.weight.detach()[:, :, 0]
    x = noise(2, 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.dau.bias))
        assert torch.equal(fx.symbolic_trace(layer)(x), layer(x))


def build(hidden=12):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, hidden),
        nn.ReLU(), nn.Sequential(nn.Linear(hidden, 5, bias=False)),
    )  # fmt: skip


def converted(model=None):
    torch.manual_seed(0)
    model = model or build()
    daukit.substitute(model, sparse=True, sparsity=0.7)
    return model.eval()


def test_a_file_builds_the_layers_again_and_so_does_the_file_of_what_it_built(tmp_path):
    model, x, factory = converted(), noise(3, 1, 6, 7), {"factory": f"{__file__}:build"}
    daukit.save(model, tmp_path / "a.safetensors", architecture=factory)
    loaded = daukit.load(tmp_path / "a.safetensors", model=build)
    assert torch.equal(loaded(x), model(x)) and type(loaded[6][0]) is DAULinear
    assert loaded[6][0].dau.bias is None and loaded[4].dau.is_ragged
    daukit.save(loaded, tmp_path / "b.safetensors")
    assert torch.equal(daukit.load(tmp_path / "b.safetensors", model=build)(x), model(x))
    header = daukit.read(tmp_path / "a.safetensors").header
    assert [layer["name"] for layer in header.layers] == ["0", "4.dau", "6.0.dau"]
    assert header.modules["4"] == {"type": "DAULinear", "in_features": 16, "out_features": 12}
    assert header.modules["6.0.dau"] == {"type": "DAUConv2d", "bias": False, "ragged": True}


def small():
    return nn.Sequential(DAULinear(4, 3), nn.Identity())


def test_layers_within_what_was_replaced_and_those_of_the_factory_are_described_too():
    model = small()
    model[0].dau.keep_units(torch.rand(3, 4, 1) < 0.5)
    model[1] = nn.Sequential(nn.Flatten(), converted(nn.Sequential(nn.Linear(3, 5, bias=False)))[0])
    checkpoint = daukit.checkpoint.from_model(model, architecture=small)
    assert list(checkpoint.header.modules) == ["0.dau", "1", "1.1.dau"]
    again, x = daukit.checkpoint.build_model(checkpoint, model=small), noise(2, 4)
    assert torch.equal(again(x), model(x))


def test_a_damaged_description_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    daukit.save(converted(), path, architecture={"factory": f"{__file__}:build"})
    content = path.read_bytes()
    for old, new, words in (
        (b'\\"in_features\\": 16', b'\\"in_features\\": -6', "in_features missing or wrong"),
        (b'\\"DAULinear\\"', b'\\"DAUConv2d\\"', "contradicts|missing or wrong"),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        with pytest.raises(daukit.CheckpointError, match=words):
            daukit.load(path, model=build)


@pytest.fixture
def sparse_file(tmp_path):
    path = tmp_path / "sparse.safetensors"
    torch.manual_seed(0)
    model = daukit.create_model("shallow", channels=[3, 4, 5])
    daukit.substitute(model, sparse=True, sparsity=0.6)
    daukit.save(model, path)
    return path


@pytest.mark.slow
def test_every_command_knows_the_layer_or_leaves_it_in_words(daukit_command, sparse_file, tmp_path):
    x = noise(4, 1, 28, 28)
    expected = daukit.load(sparse_file)(x)
    pruned = tmp_path / "pruned.safetensors"
    told = json.loads(daukit_command("info", sparse_file, "--json").stdout)
    assert told["layers"][-1]["name"] == "classifier.dau" and told["layers"][-1]["units"] == 180
    assert daukit_command("prune", sparse_file, "--threshold", 0, "-o", pruned).returncode == 0
    assert torch.equal(daukit.load(pruned)(x), expected)
    assert daukit_command("plot-offsets", sparse_file, "--dry-run").returncode == 0
    rescaled = tmp_path / "rescaled.safetensors"
    factor = ("--factor", "classifier.dau=2")
    for mode in ("exact", "paper"):
        assert daukit_command("rescale", sparse_file, *factor, "--mode", mode, "-o", rescaled).returncode == 0
        assert torch.equal(daukit.load(rescaled)(x), expected)
        rescaled.unlink()
    assert daukit_command("bake", sparse_file, "--dry-run").returncode == 0


def test_receptive_fields_are_measured_of_maps_alone(sparse_file):
    assert daukit.erf.default_layers(daukit.load(sparse_file)) == ["conv1", "conv2", "conv3"]
