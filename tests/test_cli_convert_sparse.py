"""``daukit convert --sparse`` on files of pruned networks."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import daukit
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.substitution import Magnitude, sparse_candidates
from daukit.workflows import sparse as workflow
from daukit.workflows.convert import Destination
from daukit.workflows.sparse import FormTimes, convert_sparse

COMMAND = "convert"
X = torch.randn(2, 3, 12, 13, generator=torch.Generator().manual_seed(0))

NETWORK = """
from torch import nn
from torch.nn.utils import prune

def make(channels=4):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2), nn.ReLU(), nn.Conv2d(channels, 8, 1), nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 2), nn.Conv2d(6, 5, (2, 4), padding="same", groups=1), nn.Conv2d(5, 2, 3, padding=2),
    )

def make_pruned():
    model = make()
    for i in (0, 2, 5):
        prune.identity(model[i], "weight")
    return model
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    return f"{tmp_path / 'network.py'}:make"


@pytest.fixture
def network():
    namespace = {}
    exec(NETWORK, namespace)
    torch.manual_seed(0)
    model = namespace["make"]().eval()
    for i in (0, 2, 5):
        prune.l1_unstructured(model[i], "weight", 0.75)
    return model


pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@pytest.mark.parametrize("masks", ["attached", "permanent"])
def test_a_pruned_network_is_converted_exactly_by_one_command(run, network, factory, tmp_path, masks):
    if masks == "permanent":
        for i in (0, 2, 5):
            prune.remove(network[i], "weight")
    source, output = tmp_path / "pruned.pth", tmp_path / "sparse.safetensors"
    torch.save(network.state_dict(), source)
    code, out, err = run(source, "--model", factory, "--sparse", "-o", output, "--json")
    assert code == 0
    result = json.loads(out)
    assert [(layer["name"], layer["weights"], layer["zeros"], layer["units"]) for layer in result["layers"]] == [
        ("0", 108, 81, 27),
        ("2", 32, 24, 8),
        ("5", 240, 180, 60),
    ]
    assert all(layer["converted"] and "time" not in layer for layer in result["layers"])
    assert {layer["name"]: layer["reason"] for layer in result["skipped"]} == {
        "4": "ConvTranspose2d is a transposed convolution",
        "6": "its padding (2, 2) is more than half of what its window reaches, so it has more outputs than the image "
        "has pixels",
    }
    assert (result["weights"], result["zeros"]) == (380, 285)
    assert result["bytes_before"] == source.stat().st_size and result["bytes_after"] == output.stat().st_size
    assert ("masks of torch.nn.utils.prune" in err) == (masks == "attached")
    loaded = daukit.load(output, model=factory)
    assert list(dau_layers(loaded)) == ["0", "2", "5"]
    expected = network(X)
    assert (loaded(X) - expected).abs().max() <= 1e-6 * expected.abs().max()
    history = daukit.read(output).header.history[-1]
    assert history["operation"] == "substitute" and history["arguments"]["sparse"] and history["source"]


def test_a_factory_that_has_the_masks_itself_is_converted_too(run, network, factory, tmp_path):
    source, output = tmp_path / "pruned.pth", tmp_path / "sparse.safetensors"
    torch.save(network.state_dict(), source)
    assert run(source, "--model", f"{factory}_pruned", "--sparse", "-o", output)[0] == 0
    loaded, expected = daukit.load(output, model=f"{factory}_pruned"), network(X)
    assert (loaded(X) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.fixture
def plain(tmp_path):
    torch.manual_seed(0)
    daukit.save(daukit.create_model("shallow", channels=[3, 4, 5]), tmp_path / "plain.safetensors")
    return tmp_path / "plain.safetensors"


def test_zeros_are_made_where_they_are_asked_for(run, plain, tmp_path):
    output = tmp_path / "sparse.safetensors"
    code, out, _ = run(plain, "--sparse", "--sparsity", 0.5, "--where", "conv[23]", "-o", output)
    assert code == 0 and "144 of 288 weights of converted layers are zero (50.0 %)" in out
    assert [layer.weight.numel() for layer in dau_layers(daukit.load(output)).values()] == [54, 90]
    code, out, _ = run(plain, "--sparse", "--sparsity", 0.9, "--global", "--dry-run", "--json")
    everywhere = json.loads(out)
    assert everywhere["everywhere"] and everywhere["zeros"] == round(0.9 * everywhere["weights"]) == 688
    code, out, _ = run(plain, "--sparse", "--threshold", 0.1, "--dry-run", "--json")
    names = ("conv1", "conv2", "conv3", "classifier")
    small = [int((daukit.load(plain).get_submodule(name).weight.abs() < 0.1).sum()) for name in names]
    assert [layer["zeros"] for layer in json.loads(out)["layers"]] == small


def test_the_output_is_an_ordinary_file_for_the_other_commands(daukit_command, plain, tmp_path):
    output, pruned = tmp_path / "sparse.safetensors", tmp_path / "pruned.safetensors"
    daukit_command("convert", plain, "--sparse", "--sparsity", 0.6, "-o", output)
    told = json.loads(daukit_command("info", output, "--json").stdout)
    assert [(layer["name"], layer["ragged"]) for layer in told["layers"]] == [
        (name, True) for name in ("conv1", "conv2", "conv3", "classifier.dau")
    ]
    assert daukit_command("prune", output, "--remove", 0.5, "-o", pruned).returncode == 0
    assert daukit_command("rescale", output, "--factor", "conv2=2", "--dry-run").returncode == 0
    assert daukit_command("plot-offsets", output, "--dry-run").returncode == 0
    assert daukit_command("bake", output, "--dry-run").returncode == 0
    assert daukit.load(pruned)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_both_forms_of_every_layer_are_timed(run, plain, tmp_path):
    code, out, _ = run(plain, "--sparse", "--sparsity", 0.9, "--time", "--dry-run", "--json")
    assert code == 0
    result = json.loads(out)
    sizes = [layer["time"]["input"] for layer in result["layers"]]
    assert sizes == [[8, 1, 28, 28], [8, 3, 14, 14], [8, 4, 7, 7], [8, 45, 1, 1]]
    for layer in result["layers"]:
        medians = {form: layer["time"][form]["median"] for form in ("dense", "sparse")}
        assert layer["time"]["faster"] == min(medians, key=medians.get) and layer["converted"]
    assert result["time"]["input"] == [8, 1, 28, 28]
    code, out, _ = run(plain, "--sparse", "--sparsity", 0.9, "--time", "--dry-run")
    assert code == 0 and "forward pass of 8 x 1 x 28 x 28" in out and "dense (ms)" in out


def test_timing_leaves_a_network_of_half_precision_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).half().eval()
    (candidate,) = sparse_candidates(model, Magnitude(sparsity=0.5)).layers.values()
    workflow._time_forms(candidate, [torch.Size((1, 3, 5, 5))])
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float16}


def fake_times(monkeypatch, **faster):
    times = {"input": (8, 1, 4, 4), "dense": workflow.Quartiles(1, 1, 1), "sparse": workflow.Quartiles(1, 1, 1)}
    result = {name: FormTimes(**times, faster=form) for name, form in faster.items()}
    monkeypatch.setattr(workflow, "_time_layers", lambda *_: result)


def test_only_faster_layers_are_converted(run, plain, tmp_path, monkeypatch):
    fake_times(monkeypatch, conv1="dense", conv3="sparse")  # the network never calls conv2
    output = tmp_path / "sparse.safetensors"
    code, _, err = run(plain, "--sparse", "--sparsity", 0.9, "--only-faster", "-o", output)
    assert code == 0 and "left as they are: conv1, conv2" in err
    model = daukit.load(output)
    assert isinstance(model.conv3, DAUConv2d) and list(dau_layers(model)) == ["conv3"]
    assert torch.equal(model.conv1.weight, daukit.load(plain).conv1.weight)  # with all its weights


def test_where_none_is_faster_nothing_is_written(run, plain, tmp_path, monkeypatch):
    fake_times(monkeypatch, conv1="dense")
    output = tmp_path / "sparse.safetensors"
    code, _, err = run(plain, "--sparse", "--sparsity", 0.9, "--only-faster", "-o", output)
    assert code == 1 and "no layer would be faster" in err and "--only-faster" in err and not output.exists()
    code, out, _ = run(plain, "--sparse", "--sparsity", 0.9, "--only-faster", "--dry-run", "--json")
    assert code == 0 and not any(layer["converted"] for layer in json.loads(out)["layers"])


def test_a_network_without_zeros_is_told_how_to_get_some(run, plain, tmp_path):
    code, _, err = run(plain, "--sparse", "-o", tmp_path / "sparse.safetensors")
    assert code == 1 and "conv1: none of its 27 weights is zero" in err and "--sparsity 0.9 makes zeros" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sparse", "--substitute"], "give one of the two"),
        (["--sparse", "--units", 2], "--sparse makes units of the weights that are there"),
        (["--sparse", "--seed", 2], "only --substitute and --units-table need it"),
        (["--sparse", "--threshold", 0.1, "--sparsity", 0.5], "give one of the two"),
        (["--sparse", "--global"], "this needs --sparsity"),
        (["--sparse", "--size", 28], "only --time and --only-faster need it"),
        (["--sparse", "--sparsity", 1.5], "less than or equal to 1"),
        (["--substitute", "--sparsity", 0.5], "this needs --sparse"),
        (["--substitute", "--global"], "this needs --sparsity"),
        (["--substitute", "--time"], "this needs --sparse"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(run, plain, options, message):
    code, _, err = run(plain, *options, "--dry-run")
    assert code == 2 and message in " ".join(err.split())


def test_an_output_that_exists_is_kept_unless_told(run, plain, tmp_path):
    output = tmp_path / "sparse.safetensors"
    output.write_bytes(b"mine")
    code, _, err = run(plain, "--sparse", "--sparsity", 0.5, "-o", output)
    assert code == 1 and "--overwrite" in err and output.read_bytes() == b"mine"
    assert run(plain, "--sparse", "--sparsity", 0.5, "-o", output, "--overwrite")[0] == 0
    assert len(dau_layers(daukit.load(output))) == 4


def test_the_workflow_takes_a_checkpoint_and_leaves_it(plain, tmp_path):
    checkpoint = daukit.read(plain)
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    result = convert_sparse(checkpoint, Destination(path=tmp_path / "out.safetensors"), sparsity=0.5)
    assert result.bytes == result.bytes_after == (tmp_path / "out.safetensors").stat().st_size
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.tensors.items())
    assert convert_sparse(checkpoint, sparsity=0.5).bytes_after == result.bytes
