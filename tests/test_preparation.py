"""Prepared networks answer as their networks do, fuse only what nobody else reads, and refuse to be trained."""

import copy
import io
import pickle
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.models.structure import dau_layers
from daukit.preparation import PreparedDAUConv2d, PreparedNetwork, prepare
from daukit.preparation.layer import SIZES_KEPT

NETWORKS = {
    "shallow_dau": ({"channels": (4, 5, 6)}, (2, 1, 28, 28)),
    "shallow": ({"channels": (4, 5, 6)}, (2, 1, 28, 28)),
    "resnet50_dau": ({"width": 8, "depths": [1, 2, 1, 1]}, (2, 3, 32, 32)),
    "alexnet_dau": ({"channels": (4, 6, 8, 8, 6), "hidden": 16, "input_size": (67, 67)}, (2, 3, 67, 67)),
}


def with_statistics(network):
    """The network with batch norms that have seen something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return network


def a_network(**options):
    torch.manual_seed(0)
    layers = daukit.DAUConv2d(3, 6, units=2, **options), nn.BatchNorm2d(6), nn.ReLU(), daukit.DAUConv2d(6, 4, units=2)
    return with_statistics(nn.Sequential(*layers))


def differ(twin, network, x, share):
    """Compare with the network in float64, relative to its largest output."""
    expected = copy.deepcopy(network).double().eval()(x.double())
    with torch.no_grad():
        return (twin(x) - expected).abs().max() > share * expected.abs().max()


def names_of(twin, kind=PreparedDAUConv2d):
    return [name.removeprefix("network.") for name, module in twin.named_modules() if type(module) is kind]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_network_answers_as_its_network(name):
    torch.manual_seed(0)
    options, shape = NETWORKS[name]
    network = with_statistics(daukit.create_model(name, **options))
    list(network.parameters())[-2].data.normal_()  # a score layer may start at zero
    before = copy.deepcopy(network.state_dict())
    twin = daukit.prepare(network)
    assert not differ(twin, network, torch.randn(shape), 1e-5)
    assert twin.report.unfused is None and not twin.report.kept
    assert set(dau_layers(network)) <= {layer.name for layer in twin.report.layers}
    assert network.training and all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_batch_norm_and_relu_go_into_the_layer_before_them():
    network = daukit.create_model("shallow_dau", channels=(4, 5, 6))
    twin = prepare(network)
    assert [(one.name, one.kind, one.norm, one.relu) for one in twin.report.layers] == [
        (f"conv{i}", "DAUConv2d", f"bn{i}", True) for i in (1, 2, 3)
    ]
    assert not [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d | nn.ReLU)]


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": (2, 1)},
        {"groups": 3},
        {"bias": False},
        {"learn_sigma": True},
        {"form": "gaussian"},
        {"whole_pixels": True, "sigma": 0.0},
        {"max_displacement": None},
    ],
)
@pytest.mark.parametrize("ragged", [False, True])
def test_layers_of_every_kind_are_prepared(options, ragged):
    network = a_network(**options)
    network[0].mu.data.normal_(0, 2)
    if ragged:
        network[0].keep_units(torch.rand(network[0].weight.shape) < 0.5)
    twin = prepare(network)
    assert len(twin.report.layers) == 2
    for size in ((7, 9), (1, 5), (12, 3)):
        assert not differ(twin, network, torch.randn(2, 3, *size), 1e-5)


@pytest.mark.parametrize("trim", [(2, 1), (0, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_outputs_that_a_layer_leaves_out_are_left_out(trim, stride):
    network = a_network(trim=trim, stride=stride)
    network[0].mu.data.normal_(0, 2)
    assert not differ(prepare(network), network, torch.randn(2, 3, 13, 14), 1e-5)


@pytest.mark.parametrize("affine", [False, True])
def test_a_convolution_takes_its_batch_norm_in(affine):
    convolution = nn.Conv2d(3, 4, 3, padding=1, bias=False, padding_mode="reflect")
    network = with_statistics(nn.Sequential(convolution, nn.BatchNorm2d(4, affine=affine), nn.ReLU()))
    twin = prepare(network)
    assert not differ(twin, network, torch.randn(2, 3, 6, 7), 1e-5)
    assert [(one.kind, one.norm, one.relu) for one in twin.report.layers] == [("Conv2d", "1", False)]


class Branched(nn.Module):
    """Layers in a row, each with what may follow it, and sums with whichever value is read a second time."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.rows = steps, nn.ModuleList()
        for dau, normed, *_ in steps:
            layer = daukit.DAUConv2d(2, 2, units=1) if dau else nn.Conv2d(2, 2, 3, padding=1)
            self.rows.append(nn.ModuleList([layer, nn.BatchNorm2d(2) if normed else nn.Identity()]))
        self.relu = nn.ReLU()

    def forward(self, x):
        for (_, normed, relu, again), row in zip(self.steps, self.rows, strict=True):
            summed = y = row[0](x)
            if normed:
                y = row[1](y)
                summed = y if again == "norm" else summed
            y = {"module": self.relu, "function": F.relu, "in place": lambda y: y.relu_(), "none": lambda y: y}[relu](y)
            x = y if again == "nothing" else y + summed
        return x


STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.booleans(),
        st.sampled_from(["module", "function", "in place", "none"]),
        st.sampled_from(["nothing", "layer", "norm"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.integers(0, 2**16))
def test_only_what_nobody_else_reads_is_fused(steps, seed):
    torch.manual_seed(seed)
    network = with_statistics(Branched(steps)).double()
    twin = prepare(network)
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    expected = network.eval()(x)
    assert (twin(x) - expected).abs().max() <= 1e-11 * expected.abs().max()
    fused = {one.name: (one.norm is not None, one.relu) for one in twin.report.layers}
    for i, (dau, normed, relu, again) in enumerate(steps):
        # A second reader of the layer keeps everything behind it; one of the norm keeps the ReLU.
        layer_is_free = again == "nothing" or (again == "norm" and normed)
        norm = normed and layer_is_free
        wanted = norm, dau and relu != "none" and again == "nothing"
        assert fused.get(f"rows.{i}.0", (False, False)) == wanted


class Twice(nn.Module):
    """One layer that is called twice, behind which different things happen."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = daukit.DAUConv2d(3, 3, units=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.layer(x)) + self.layer(x).relu()


class Borrowing(nn.Module):
    """Its own function reads the weights of a convolution that is called, too."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return F.conv2d(self.norm(self.layer(x)), self.layer.weight)


class Deciding(nn.Module):
    """Looks at its input's values."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = daukit.DAUConv2d(3, 3, units=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.layer(x if x.sum() > 0 else -x))


class Counting(nn.Module):
    """Counts its calls, and keeps the last map."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.calls = daukit.DAUConv2d(3, 3, units=1), nn.BatchNorm2d(3), 0
        self.register_buffer("images", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.images.add_(1)
        self.last = self.layer(x)
        return self.norm(self.last)


class Drawing(nn.Module):
    """Makes a tensor of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = daukit.DAUConv2d(3, 3, units=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.layer(x)) + torch.rand(3, 1, 1)


class Choosing(nn.Module):
    """Has an argument that may be left out."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = daukit.DAUConv2d(3, 3, units=1), nn.BatchNorm2d(3)

    def forward(self, x, scale=None):
        return self.norm(self.layer(x)) * (1 if scale is None else scale)


@pytest.mark.parametrize("kind", [Twice, Borrowing])
def test_a_layer_with_other_readers_takes_nothing_in(kind):
    network = with_statistics(kind())
    twin = prepare(network)
    assert not [one for one in twin.report.layers if one.norm or one.relu]
    assert not differ(twin, network, torch.randn(2, 3, 5, 5), 1e-5)


@pytest.mark.parametrize(
    "kind, why",
    [
        (Deciding, "cannot trace"),
        (Counting, "values of its own"),
        (Drawing, "makes tensors"),
        (Choosing, "optional arguments"),
    ],
)
def test_a_network_that_no_graph_describes_has_its_layers_prepared(kind, why):
    network = with_statistics(kind())
    twin = prepare(network)
    assert why in twin.report.unfused
    assert [(one.name, one.norm) for one in twin.report.layers] == [("layer", None)]
    x = torch.randn(2, 3, 5, 5)
    for network_of_both in (network.eval(), twin):
        torch.manual_seed(0)
        network_of_both.answer = network_of_both(x).detach()
    assert torch.allclose(twin.answer, network.answer, rtol=0, atol=1e-5 * float(network.answer.abs().max()))


def test_what_a_network_keeps_is_kept_by_its_twin():
    twin = prepare(Counting())
    twin(torch.ones(1, 3, 5, 5))
    assert (twin.network.calls, int(twin.network.images)) == (1, 1)
    assert twin.network.last.shape == (1, 3, 5, 5)


def test_an_argument_may_still_be_left_out():
    twin, x = prepare(Choosing()), torch.randn(1, 3, 5, 5)
    assert torch.equal(2 * twin(x), twin(x, scale=2))


def test_hooks_still_run_and_see_what_they_saw():
    network, seen = a_network(), []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    outer = nn.Sequential(network)
    network.register_forward_hook(lambda module, inputs, output: output + 1)
    x = torch.randn(1, 3, 6, 6)
    twin = prepare(outer)
    assert not differ(twin, outer, x, 1e-5)
    assert [one.norm for one in twin.report.layers] == [None, None]
    seen.clear()
    outer.eval()(x), twin(x)
    assert (seen[0] - seen[1]).abs().max() <= 1e-5 * seen[0].abs().max()


def test_a_batch_norm_that_looks_at_its_batch_stays():
    network = a_network()
    network[1] = nn.BatchNorm2d(6, track_running_stats=False)
    twin = prepare(network)
    assert twin.report.layers[0].norm is None
    assert not differ(twin, network, torch.randn(3, 3, 6, 6), 1e-5)


def test_a_layer_that_is_more_than_its_class_stays_as_it_is():
    network = a_network()
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    twin = prepare(network)
    assert list(twin.report.kept) == ["0"] and "hooks" in twin.report.kept["0"]
    assert not differ(twin, network, torch.randn(2, 3, 5, 5), 1e-5)


def test_a_layer_alone_is_prepared():
    layer = daukit.DAUConv2d(3, 4, units=2)
    x = torch.randn(2, 3, 5, 6)
    twin = prepare(layer)
    assert isinstance(twin, PreparedNetwork) and names_of(twin) == ["0"]
    assert not differ(twin, layer, x, 1e-5)


def test_a_wrapped_model_is_unwrapped_and_a_prepared_one_is_copied():
    network, x = a_network(), torch.randn(1, 3, 5, 5)
    twin = prepare(nn.DataParallel(network))
    again = prepare(twin)
    assert again is not twin and torch.equal(again(x), twin(x))
    with pytest.raises(TypeError, match="prepare takes a model"):
        prepare("model.safetensors")


def test_a_prepared_network_refuses_to_be_trained():
    twin = prepare(a_network())
    assert not any(module.training for module in twin.modules()) and not list(twin.parameters())
    assert twin.eval() is twin
    for part in (twin, nn.Sequential(twin), twin.network.get_submodule("0")):
        with pytest.raises(RuntimeError, match="for inference alone; train the network that it was made of"):
            part.train()
    with pytest.raises(RuntimeError, match=r"under torch\.no_grad"):
        twin(torch.randn(1, 3, 5, 5, requires_grad=True))
    with torch.no_grad():
        assert twin(torch.randn(1, 3, 5, 5, requires_grad=True)).shape == (1, 4, 5, 5)


@pytest.mark.parametrize("name", ["weight", "mu", "bias", "sigma"])
@pytest.mark.parametrize("called", [False, True])
def test_a_tensor_that_was_changed_is_noticed(name, called):
    twin, x = prepare(a_network()), torch.randn(1, 3, 5, 5)
    if called:
        twin(x)
    twin.get_buffer(f"network.0.{name}").mul_(2)
    with pytest.raises(RuntimeError, match="a tensor of a prepared layer was changed"):
        twin(x)


def test_another_tensor_in_the_place_of_one_is_noticed():
    twin, x = prepare(a_network()), torch.randn(1, 3, 5, 5)
    layer = twin.network.get_submodule("0")
    layer.weight = layer.weight.clone()
    with pytest.raises(RuntimeError, match="change the network that it was made of"):
        twin(x)


def test_a_state_dict_is_refused():
    twin = prepare(a_network())
    with pytest.raises(RuntimeError, match="loads no state dict"):
        twin.load_state_dict(twin.state_dict())
    with pytest.raises(RuntimeError, match=r"a prepared layer .* loads no state dict"):
        nn.Sequential(twin).load_state_dict(nn.Sequential(twin).state_dict())


def test_training_the_network_leaves_its_twin_alone():
    network, x = a_network(), torch.randn(2, 3, 5, 5)
    twin = prepare(network)
    before = twin(x)
    network(x).square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= parameter.grad
    assert torch.equal(twin(x), before)


def saved(twin):
    data = io.BytesIO()
    torch.save(twin, data)
    data.seek(0)
    return torch.load(data, weights_only=False)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda twin: pickle.loads(pickle.dumps(twin)), saved])
def test_copies_and_pickles_answer_alike_and_own_their_tensors(again):
    twin, x = prepare(a_network()), torch.randn(2, 3, 5, 5)
    before = twin(x)
    other = again(twin)
    assert torch.equal(other(x), before) and other.report == twin.report
    with pytest.raises(RuntimeError, match="for inference alone"):
        other.train()
    other.get_buffer("network.0.weight").zero_()
    assert torch.equal(twin(x), before)
    with pytest.raises(RuntimeError, match="was changed"):
        other(x)


def test_many_sizes_of_input_leave_a_bounded_number_of_lists():
    network = a_network()
    twin = prepare(network)
    for size in range(1, SIZES_KEPT + 5):
        assert not differ(twin, network, torch.randn(size % 3 + 1, 3, size, 7), 1e-5)
    layer = twin.network.get_submodule("0")
    assert len(layer._plans) == SIZES_KEPT and layer.list_bytes >= 0


def test_inputs_of_every_kind_are_taken():
    network = a_network()
    twin = prepare(network)
    strided = torch.randn(4, 3, 8, 10)[::2, :, ::2, 1::3]
    for x in (strided, torch.randn(2, 3, 6, 5).to(memory_format=torch.channels_last), torch.randn(2, 3, 6, 5).mT):
        assert not x.is_contiguous() and not differ(twin, network, x, 1e-5)
    assert twin(torch.randn(0, 3, 5, 5)).shape == (0, 4, 5, 5)
    assert twin(torch.randn(2, 3, 0, 5)).shape == (2, 4, 0, 5)
    with pytest.raises(ValueError, match="takes 3 channels, got 5"):
        twin(torch.randn(1, 5, 4, 4))
    with pytest.raises(ValueError, match="input must be"):
        twin(torch.randn(3, 4, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_the_network(dtype):
    network = daukit.DAUConv2d(3, 4, units=2)
    twin, x = prepare(network), torch.randn(2, 3, 5, 5)
    with torch.autocast("cpu", dtype):
        expected, actual = network(x).detach(), twin(x)
    assert actual.dtype == expected.dtype == dtype and torch.equal(actual, expected)
    assert torch.equal(twin(x.to(dtype)), expected)


def test_a_twin_can_be_moved_to_another_precision():
    network, x = a_network().double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    twin = prepare(network)
    assert torch.allclose(twin(x), network.eval()(x), rtol=0, atol=1e-12)
    assert not differ(twin.float(), network, x.float(), 1e-5)
    assert prepare(daukit.DAUConv2d(3, 4, units=2)).half().get_buffer("network.0.mu").dtype == torch.float32


def test_inference_mode_is_no_hindrance():
    network, x = a_network(), torch.randn(2, 3, 5, 5)
    with torch.inference_mode():
        twin = prepare(network)
        inside = twin(x)
        copied = copy.deepcopy(twin)
        assert torch.equal(copied(x), inside)
    assert torch.equal(twin(x), inside)


def test_threads_share_a_twin():
    twin = prepare(a_network())
    inputs = [torch.randn(1, 3, 4 + i % 6, 5) for i in range(24)]
    expected, answers = [twin(x) for x in inputs], [None] * len(inputs)

    def work(start):
        for i in range(start, len(inputs), 4):
            answers[i] = twin(inputs[i])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(answer, right) for answer, right in zip(answers, expected, strict=True))


def test_lazy_parameters_are_refused():
    with pytest.raises(ValueError, match="run it once before preparing"):
        prepare(nn.Sequential(nn.LazyConv2d(3, 3)))


def test_modules_that_hold_their_parameters_elsewhere_too_ask_for_no_gradient():
    network = nn.Sequential(nn.Flatten(2), nn.LSTM(30, 4))
    assert not prepare(network)(torch.randn(2, 3, 5, 6))[0].requires_grad


@pytest.mark.parametrize("options", [{}, {"stride": (1, 2)}])
@pytest.mark.parametrize("displacement", [0, 1])
def test_images_of_one_pixel_do_not_see_each_other(options, displacement):
    layer = daukit.DAUConv2d(3, 4, 2, sigma=0.0, whole_pixels=True, max_displacement=2, **options)
    with torch.no_grad():
        layer.mu.zero_()[1, 0] = displacement
    for size in ((7, 3, 1, 1), (1, 3, 1, 1), (0, 3, 1, 1), (2, 3, 1, 2)):
        x = torch.randn(size)
        assert prepare(layer)(x).shape == layer(x).shape
        assert size[0] == 0 or not differ(prepare(layer), layer, x, 1e-6)
