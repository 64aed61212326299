"""Files: what is saved is what is loaded, and what is broken is refused in one clear line."""

import json
import os
import struct

import pytest
import safetensors.torch
import torch
from torch import nn

import daukit
from daukit.checkpoint import build_model, from_model, read_any
from daukit.errors import CheckpointError, OutputError
from daukit.models import record_of
from daukit.nn import DAUConv2d
from daukit.preprocessing import Preprocessing

CONFIG = {"channels": [4, 6, 8], "units": 2}
X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def small(name="shallow_dau", **config):
    torch.manual_seed(1)
    return daukit.create_model(
        name, **({"channels": CONFIG["channels"]} if name == "shallow" else CONFIG), **config
    ).eval()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("shallow_dau", {}),
        ("shallow", {}),
        ("shallow_dau", {"learn_sigma": "layer"}),
        ("shallow_dau", {"learn_sigma": "unit"}),
    ],
)
def test_a_saved_model_loads_to_the_same_outputs(tmp_path, name, config):
    model, path = small(name, **config), tmp_path / "m.safetensors"
    record_of(model).preprocessing = Preprocessing((0.3,), (0.2,), "gray", (28, 28), class_names=("a", "b"))
    size = daukit.save(model, path)
    loaded = daukit.load(path)
    assert size == path.stat().st_size and not loaded.training
    assert torch.equal(loaded(X), model(X))
    assert record_of(loaded) == record_of(model)
    again = tmp_path / "again.safetensors"
    daukit.save(loaded, again)
    assert again.read_bytes() == path.read_bytes()


def test_replaced_modules_and_ragged_layers_are_rebuilt(tmp_path):
    model, path = small(), tmp_path / "m.safetensors"
    model.conv2.keep_units(model.conv2.weight > 0)
    model.pool3 = nn.Identity()
    model.conv3 = DAUConv2d(6, 8, 3, dilation=2, stride=2, max_displacement=None)
    model.pool1 = nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -float("inf")), nn.MaxPool2d(2))
    model.eval()
    daukit.save(model, path)
    loaded = daukit.load(path)
    assert torch.equal(loaded[:-1](X), model[:-1](X))  # the linear layer is for the sizes before
    assert set(from_model(loaded).header.modules) == {"conv2", "conv3", "pool1", "pool3"}


def build_shared():
    shared = nn.Conv2d(1, 1, 3, padding=1)
    return nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))


def test_a_module_that_is_used_twice_is_replaced_twice_and_stays_one(tmp_path):
    torch.manual_seed(0)
    model, path = build_shared(), tmp_path / "m.safetensors"
    daukit.substitute(model, units=3)
    assert model[0] is model[2][0]
    daukit.save(model, path, architecture={"factory": "test_checkpoint:build_shared", "config": {}})
    loaded = daukit.load(path, model="test_checkpoint:build_shared")
    assert loaded[0] is loaded[2][0] and isinstance(loaded[0], DAUConv2d)
    assert torch.equal(loaded(X), model(X))


def test_a_module_that_no_file_can_describe_is_refused():
    model = small()
    model.relu1 = nn.Softshrink()
    with pytest.raises(ValueError, match="'relu1' became a Softshrink"):
        from_model(model)


def test_a_change_that_no_file_can_describe_is_refused():
    model = small()
    model.relu2 = nn.ReLU(inplace=True)
    with pytest.raises(ValueError, match="'relu2' differs from the factory's"):
        from_model(model)


def test_a_float64_model_stays_float64(tmp_path):
    model, path = small().double(), tmp_path / "m.safetensors"
    daukit.save(model, path)
    assert torch.equal(daukit.load(path)(X.double()), model(X.double()))


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path, version):
    model, path = small(), tmp_path / "m.safetensors"
    entry = {"operation": "", "arguments": {}, "date": "", "version": ""}
    record_of(model).history.append(entry)

    def header_length():
        daukit.save(model, path, overwrite=True)
        return struct.unpack("<Q", path.read_bytes()[:8])[0]

    length = header_length()
    target = 0x80 + 0x100 * version
    entry["operation"] = "x" * (target + 0x10000 * (length > target) - length)
    assert header_length() % 0x10000 == target and path.read_bytes()[:2] == bytes([0x80, version])
    assert torch.equal(daukit.load(path)(X), model(X))


def test_open_reads_headers_and_single_tensors(tmp_path):
    model, path = small(), tmp_path / "m.safetensors"
    daukit.save(model, path)
    with daukit.open(path) as file:
        assert [layer["name"] for layer in file.header.layers] == ["conv1", "conv2", "conv3"]
        assert torch.equal(file.tensor("conv2.mu"), model.conv2.mu)
        with pytest.raises(CheckpointError, match="no tensor 'conv9"):
            file.tensor("conv9.mu")


def test_the_file_has_one_metadata_key_with_sorted_json(tmp_path):
    path = tmp_path / "m.safetensors"
    daukit.save(small(), path)
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        metadata = json.loads(file.read(length))["__metadata__"]
    assert list(metadata) == ["daukit"]
    assert metadata["daukit"] == json.dumps(json.loads(metadata["daukit"]), sort_keys=True)


@pytest.mark.parametrize("wrap", [dict, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": torch.tensor(3)}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_state_dicts_load_when_their_network_is_named(tmp_path, wrap, prefix):
    model, path = small(), tmp_path / "m.pt"
    torch.save(wrap({prefix + name: tensor for name, tensor in model.state_dict().items()}), path)
    assert torch.equal(daukit.load(path, model="shallow_dau", config=CONFIG)(X), model(X))
    with pytest.raises(CheckpointError, match="does not say which network"):
        daukit.load(path)


def test_a_safetensors_state_dict_loads_when_its_network_is_named(tmp_path):
    model, path = small(), tmp_path / "m.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    checkpoint = read_any(path, model="shallow_dau", config=CONFIG)
    assert checkpoint.layer_names == ["conv1", "conv2", "conv3"]
    assert checkpoint.header.history[0]["operation"] == "import"
    with pytest.raises(CheckpointError, match="no daukit header"):
        daukit.read(path)


USER_FACTORY = """
from torch import nn
from daukit import DAUConv2d
def build(width=4):
    return nn.Sequential(DAUConv2d(1, width, 2), nn.Flatten(), nn.LazyLinear(3))
"""


def test_a_users_factory_runs_only_when_named_again(tmp_path):
    source = tmp_path / "nets.py"
    source.write_text(USER_FACTORY.replace("nn.LazyLinear(3)", "nn.Linear(width * 784, 3)"))
    factory, path = f"{source}:build", tmp_path / "m.safetensors"
    from daukit.models.factory import resolve_factory

    model = resolve_factory(factory)(width=5).eval()
    daukit.save(model, path, architecture={"factory": factory, "config": {"width": 5}})
    assert daukit.read(path).layer_names == ["0"]
    with pytest.raises(CheckpointError, match="may not choose what code runs"):
        daukit.load(path)
    assert torch.equal(daukit.load(path, model=factory)(X), model(X))
    with pytest.raises(CheckpointError, match="cannot import the factory"):
        daukit.load(path, model=f"{source}:nothing")


def test_a_model_of_unknown_origin_says_how_to_save_it(tmp_path):
    with pytest.raises(ValueError, match="nothing says how to rebuild"):
        daukit.save(nn.Sequential(DAUConv2d(1, 1, 1)), tmp_path / "m.safetensors")


class Trap:
    """What a malicious pickle looks like: unpickling it would run code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    path, mark = tmp_path / "m.pt", tmp_path / "was_run"
    torch.save({"weight": torch.zeros(1), "trap": Trap(mark)}, path)
    with pytest.raises(CheckpointError, match="never runs code"):
        daukit.load(path, model="shallow_dau")
    assert not mark.exists()


def broken_files(folder):
    good = folder / "good.safetensors"
    daukit.save(small(), good)
    data = good.read_bytes()
    header = daukit.read(good).header

    def rewritten(name, text):
        path = folder / name
        safetensors.torch.save_file(small().state_dict(), path, {"daukit": text})
        return path

    def written(name, content):
        path = folder / name
        path.write_bytes(content)
        return path

    wrong = json.loads(header.to_json())
    yield folder / "missing.safetensors", "no such file"
    yield folder, r"a folder without model\.safetensors"
    yield written("truncated.safetensors", data[: len(data) // 2]), "not a complete safetensors file"
    yield written("text.safetensors", b"hello, I am not a checkpoint"), "not a complete safetensors file"
    yield written("empty.safetensors", b""), "not a complete safetensors file"
    yield written("half.pt", b"PK\x03\x04 and then nothing"), "not a complete torch file"
    yield rewritten("json.safetensors", "{"), "not JSON"
    yield rewritten("schema.safetensors", json.dumps({**wrong, "schema": 99})), "schema 99"
    yield rewritten("keys.safetensors", json.dumps({**wrong, "layers": None})), "'layers' is missing"
    layer = wrong["layers"][0]
    for key, value in (("groups", 0), ("dilation", None), ("sigma", "wide"), ("initialization", {"name": "spiral"})):
        changed = [{**layer, key: value}, *wrong["layers"][1:]]
        yield rewritten(f"{key}.safetensors", json.dumps({**wrong, "layers": changed})), f"{key} missing or wrong"
    feeding = {"mean": 0.5, "std": [1], "channel_order": "gray", "input_size": [28, 28]}
    yield rewritten("feeding.safetensors", json.dumps({**wrong, "preprocessing": feeding})), "'preprocessing' is wrong"
    head = {"classifier": {"type": "Linear", "out_features": -3}}
    yield rewritten("negative.safetensors", json.dumps({**wrong, "modules": head})), "out_features missing or wrong"
    yield rewritten("model.safetensors", json.dumps({**wrong, "architecture": {"name": "shalow_dau"}})), "did you mean"
    yield rewritten("config.safetensors", json.dumps({**wrong, "architecture": {"name": "shallow"}})), "do not fit"
    yield (
        rewritten("module.safetensors", json.dumps({**wrong, "modules": {"x": {"type": "Identity"}}})),
        "no module 'x'",
    )


def test_every_broken_file_gets_one_line_that_names_it(tmp_path):
    for path, message in broken_files(tmp_path):
        with pytest.raises(CheckpointError, match=message) as caught:
            daukit.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nan_units_are_named_with_their_layer(tmp_path):
    model = small()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="'conv2': 1 of 48 values of weight are NaN"):
        from_model(model).layer("conv2")


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        daukit.save(small(), path)
    assert path.read_text() == "precious"
    daukit.save(small(), path, overwrite=True)
    assert daukit.read(path).layer_names


def test_build_model_leaves_the_random_state_alone(tmp_path):
    checkpoint = from_model(small())
    state = torch.get_rng_state()
    build_model(checkpoint)
    assert torch.equal(torch.get_rng_state(), state)
