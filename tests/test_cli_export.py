"""Networks as ONNX files: onnxruntime says what the network says, and a file that differs is not written."""

import json

import onnx
import onnxruntime
import pytest
import torch
from idx import toy_folder
from torch import nn

import daukit
from daukit import export
from daukit.datasets import load_folder
from daukit.export import FromPixels, OnnxSession, to_onnx
from daukit.models import record_of
from daukit.models.structure import dau_layers
from daukit.preprocessing import Preprocessing
from daukit.workflows.export import export_onnx

COMMAND = "export"
CLOSE = 1e-5  # of the largest output, as the command asks for itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def model(tmp_path, folder):
    return written(tmp_path / "model.safetensors", folder)


def written(path, folder, **more):
    torch.manual_seed(3)
    options = {"channels": [4, 6, 8], "units": 2, "num_classes": 4, "input_size": [16, 16]} | more
    network = stirred(daukit.create_model("shallow_dau", **options))
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    daukit.save(network, path)
    return path


def stirred(network):
    """The network with displacements here and there, statistics that are not a beginning's, and no zero layers."""
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.mu.normal_(0, 1.2)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():
                module.weight.normal_(0, 0.1)
    return network.eval()


def ok(done):
    assert done[0] == 0, done[2]
    return json.loads(done[1])


def onnx_outputs(path, images):
    """What onnxruntime says, without daukit."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


def gap(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_says_what_the_network_says(batch, run, model, tmp_path):
    result = ok(run(model, "-o", tmp_path / "m.onnx", "--json"))
    assert result["difference"] <= CLOSE and result["input"] == ["batch", 1, 16, 16] and len(result["checked"]) == 3
    assert result["bytes_after"] == (tmp_path / "m.onnx").stat().st_size
    images = torch.randn(batch, 1, 16, 16)
    (found,) = onnx_outputs(tmp_path / "m.onnx", images)
    with torch.no_grad():
        assert gap(found, daukit.load(model)(images)) <= CLOSE


def test_a_network_that_takes_any_size_does_so_as_onnx(run, folder, tmp_path):
    path = written(tmp_path / "s.safetensors", folder, task="segmentation", factors=[1, 1, 1])
    network = stirred(daukit.load(path))
    daukit.save(network, path, overwrite=True)
    result = ok(run(path, "-o", tmp_path / "s.onnx", "--json"))
    assert result["input"] == ["batch", 1, "height", "width"] and result["checked"][2] == [3, 1, 32, 32]
    images = torch.randn(2, 1, 23, 41)
    (found,) = onnx_outputs(tmp_path / "s.onnx", images)
    with torch.no_grad():
        assert gap(found, network(images)) <= CLOSE


@pytest.mark.slow
def test_pruned_and_rescaled_networks_are_what_they_are(run, daukit_command, model, tmp_path):
    pruned, dense = tmp_path / "pruned.safetensors", tmp_path / "dense.safetensors"
    assert daukit_command("prune", model, "--threshold", "0.4", "-o", pruned).returncode == 0
    assert daukit_command("rescale", model, "--remove-pool", "pool3", "--mode", "exact", "-o", dense).returncode == 0
    images = torch.randn(2, 1, 16, 16)
    for path in (pruned, dense):
        ok(run(path, "-o", path.with_suffix(".onnx"), "--json"))
        (found,) = onnx_outputs(path.with_suffix(".onnx"), images)
        with torch.no_grad():
            assert gap(found, daukit.load(path)(images)) <= CLOSE


def test_units_on_whole_pixels_become_kernels_of_their_reach(run, daukit_command, model, tmp_path):
    snapped = tmp_path / "snapped.safetensors"
    assert daukit_command("snap", model, "-o", snapped).returncode == 0
    result = ok(run(snapped, "-o", tmp_path / "s.onnx", "--json"))
    for layer in result["layers"]:
        y, x = daukit.read(snapped).layer(layer["name"]).displacements.round().int()
        assert layer["kernel_size"] == [int(axis.max() - axis.min()) + 1 for axis in (y, x)]


def test_the_file_carries_the_header(run, model, tmp_path):
    ok(run(model, "-o", tmp_path / "m.onnx", "--json"))
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto)
    (entry,) = proto.metadata_props
    assert entry.key == "daukit" and json.loads(entry.value) == json.loads(daukit.read(model).header.to_json())
    assert [each.version for each in proto.opset_import if not each.domain] == [export.OPSET]


@pytest.mark.parametrize(
    ("order", "value_range"), [("gray", (0.0, 1.0)), ("rgb", (-1.0, 1.0)), ("bgr", (0.0, 255.0)), ("bgr", (0.0, 1.0))]
)
def test_preprocessing_inside_is_that_of_the_file(order, value_range):
    channels = 1 if order == "gray" else 3
    mean, std = tuple(0.1 * (i + 1) for i in range(channels)), tuple(0.5 + 0.1 * i for i in range(channels))
    preprocessing = Preprocessing(mean, std, order, (8, 8), value_range)
    pixels = torch.randint(0, 256, (3, channels, 8, 8), dtype=torch.uint8)
    ordered = pixels.flip(1) if order == "bgr" else pixels  # pictures are read in the order of the network
    network = FromPixels(nn.Identity(), preprocessing)
    torch.testing.assert_close(network(pixels), preprocessing.normalize(ordered), rtol=1e-5, atol=1e-6)


def test_pixels_go_in_and_scores_come_out(run, model, folder, tmp_path):
    result = ok(run(model, "-o", tmp_path / "m.onnx", "--with-preprocessing", "--json"))
    assert result["pixels"] and result["difference"] <= CLOSE
    pixels = load_folder(folder, "test").images[:3]
    (found,) = onnx_outputs(tmp_path / "m.onnx", pixels)
    with torch.no_grad():
        expected = daukit.load(model)(daukit.read(model).header.preprocessing.normalize(pixels))
    assert gap(found, expected) <= CLOSE


def test_a_pt2_is_what_bake_writes(run, daukit_command, model, tmp_path):
    ok(run(model, "-o", tmp_path / "m.pt2", "--json"))
    assert daukit_command("bake", model, "-o", tmp_path / "b.pt2").returncode == 0
    images = torch.randn(2, 1, 16, 16)
    first, second = (torch.export.load(tmp_path / f"{name}.pt2").module()(images) for name in ("m", "b"))
    assert torch.equal(first, second)


def test_a_file_that_differs_is_not_written_unless_that_is_asked_for(model, tmp_path, monkeypatch):
    monkeypatch.setattr(OnnxSession, "__call__", lambda self, images: [torch.ones(len(images), 4)])
    with pytest.raises(daukit.errors.DaukitError, match=r"differ by .* nothing was written .*verify=False"):
        export_onnx(daukit.read(model), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    assert export_onnx(daukit.read(model), tmp_path / "m.onnx", verify=False).difference is None
    assert (tmp_path / "m.onnx").exists()


class Several(nn.Module):
    """Scores, and where they are positive."""

    def forward(self, x):
        scores = x.mean((2, 3))
        return {"scores": scores, "found": scores > 0}


class Narrowing(nn.Module):
    """Another network for larger images."""

    def forward(self, x):
        return x[..., ::4] if x.shape[-1] > 20 else 2 * x


def narrowing():
    return nn.Sequential(nn.Conv2d(1, 1, 1), Narrowing())


def test_outputs_that_are_no_numbers_are_compared_too():
    images = torch.randn(2, 1, 4, 4)
    session = OnnxSession(to_onnx(Several(), images).data)
    assert session.difference(images, Several()(images)) <= CLOSE
    assert session.difference(images, Several()(-images)) >= 1


def test_what_is_no_number_is_as_far_off_as_can_be():
    images = torch.randn(2, 1, 4, 4)
    session = OnnxSession(to_onnx(nn.ReLU(), images).data)
    assert not session.difference(images, images * float("nan")) <= CLOSE
    assert session.difference(images, images[:1]) == float("inf")


def test_a_network_that_does_something_else_at_another_size_has_one_size(tmp_path):
    path = tmp_path / "m.safetensors"
    daukit.save(narrowing(), path, architecture={"factory": narrowing, "config": {}})
    result = export_onnx(daukit.read(path), tmp_path / "m.onnx", size=(16, 16), model=narrowing)
    assert result.input == ("batch", 1, 16, 16) and result.difference <= CLOSE


def test_times_stand_beside_each_other(run, model, tmp_path):
    result = ok(run(model, "-o", tmp_path / "m.onnx", "--time", "--dry-run", "--json"))
    assert result["time"]["input"] == [8, 1, 16, 16] and result["output"] is None
    for name in ("network", "prepared", "baked", "onnxruntime"):
        assert result["time"][name]["median"] > 0
    assert not (tmp_path / "m.onnx").exists()


def test_a_missing_package_is_said_with_the_way_to_get_it(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run(model, "-o", tmp_path / "m.onnx")
    assert code == 1 and "pip install 'daukit[onnx]'" in err and err.count("\n") == 1


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_expressed_is_told_in_a_line():
    with pytest.raises(ValueError, match=r"torch\.onnx cannot express the network"):
        to_onnx(Deciding(), torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "m.txt"), ".onnx or .pt2"),
        (("-o", "m.pt2", "--time"), "about .onnx files"),
        (("-o", "m.pt2", "--no-verify"), "about .onnx files"),
        (("-o", "m.onnx", "--device", "cpu"), "onnxruntime runs on the CPU"),
        (("-o", "m.onnx", "--no-verify", "--seed", "2"), "nothing is run on noise"),
        (("-o", "there.onnx"), "exists already"),
    ],
)
def test_what_has_no_use_is_refused(arguments, words, run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_text("mine")
    code, _, err = run(model, *arguments)
    assert code in (1, 2) and words in err and (tmp_path / "there.onnx").read_text() == "mine"
