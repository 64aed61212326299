"""Whatever a header says, reading its file ends in one line that names it, or in the network that it is."""

import json

import pytest
import safetensors.torch
import torch
from broken import load_plain, network

import daukit
from daukit.checkpoint import read_any
from daukit.errors import CheckpointError
from daukit.models import structure


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    daukit.save(network(), path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["daukit"])


@pytest.fixture
def refused(tmp_path):
    """That a file with this header, or these tensors, is refused in one line which names it."""

    def check(message, header=None, tensors=None, load=daukit.load):
        path = tmp_path / "m.safetensors"
        text = header if isinstance(header, str) else json.dumps(header)
        metadata = None if header is None else {"daukit": text}
        safetensors.torch.save_file(tensors or network().state_dict(), path, metadata)
        with pytest.raises(CheckpointError, match=message) as caught:
            load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000

    return check


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 20_000, "nests deeper"),
        ('{"schema": 1' + "0" * 5000 + "}", "more than 64 bits"),
        ('{"schema": NaN}', "no number"),
        ('{"schema": true}', "header schema True"),
        ("[]", "header schema None"),
        ('{"schema": 1, "schema": 1}', "said twice"),
        ('{"schema": "\\ud800"}', "surrogate"),
    ],
)
def test_a_header_that_is_no_sound_json_is_refused(refused, text, message):
    refused(message, text)


HOSTILE = (
    None,
    True,
    -1,
    0,
    0.5,
    -0.5,
    10**9,
    2**62,
    1e308,
    "",
    "x",
    [],
    [0],
    [[]],
    {},
    [10**9, 10**9],
    {"name": "grid"},
)
DAU_KEYS = (
    "in_channels", "out_channels", "units", "max_displacement", "sigma", "learn_sigma", "form", "window", "stride",
    "dilation", "groups", "bias", "initialization", "mu_gradient", "ragged",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", DAU_KEYS)
def test_no_value_of_a_layer_enters_but_the_one_that_its_network_has(tmp_path, saved, key):
    """Bounds and types of ``layers``, and their agreement with the network that is built."""
    path = tmp_path / "m.safetensors"
    for value in HOSTILE:
        header = json.loads(json.dumps(saved))
        if header["layers"][0][key] == value and type(header["layers"][0][key]) is type(value):
            continue
        header["layers"][0][key] = value
        safetensors.torch.save_file(network().state_dict(), path, {"daukit": json.dumps(header)})
        with pytest.raises(CheckpointError):
            daukit.load(path)


@pytest.mark.parametrize("key", DAU_KEYS)
def test_no_value_of_a_module_makes_another_error(tmp_path, saved, key):
    path = tmp_path / "m.safetensors"
    for value in HOSTILE:
        for name in ("conv1", "pool1", ""):
            header = {**saved, "modules": {name: {"type": "DAUConv2d", key: value}}}
            safetensors.torch.save_file(network().state_dict(), path, {"daukit": json.dumps(header)})
            try:
                daukit.load(path)
            except CheckpointError as error:
                assert str(path) in str(error)
            else:
                assert name == "conv1" and saved["layers"][0][key] == value


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("key", ["channels", "units", "sigma", "learn_sigma", "init", "input_size", "nothing"])
def test_no_option_of_a_network_makes_another_error(tmp_path, saved, key, value):
    path = tmp_path / "m.safetensors"
    config = {**saved["architecture"]["config"], key: value}
    if (key, value) in (("sigma", 0.5), ("init", {"name": "grid"})):
        return  # what the network has
    header = {**saved, "architecture": {"name": "shallow_dau", "config": config}}
    safetensors.torch.save_file(network().state_dict(), path, {"daukit": json.dumps(header)})
    with pytest.raises(CheckpointError, match=str(path)):
        daukit.load(path)


@pytest.mark.parametrize("depths", [[10**6] * 4, [3] * 10**5])
def test_no_network_of_a_million_blocks_is_begun(refused, saved, depths):
    header = {**saved, "architecture": {"name": "resnet50", "config": {"depths": depths}}}
    refused("option depths of resnet50 must be a list of at most 64, each an integer from 0 to 256, got", header)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"name": 3}, "name wrong"),
        ({"name": ["a"]}, "name wrong"),
        ({"factory": {}}, "factory wrong"),
        ({"name": "shallow_dau", "config": []}, "config wrong"),
        ({}, "not a whole network"),
    ],
)
def test_an_architecture_that_is_none_is_refused(refused, saved, architecture, message):
    refused(message, {**saved, "architecture": architecture})


def test_a_layer_that_is_described_twice_is_refused(refused, saved):
    refused("describes a layer twice", {**saved, "layers": [*saved["layers"], saved["layers"][0]]}, load=daukit.read)


@pytest.mark.parametrize("key, value", [("max_displacement", 99.0), ("sigma", 3.0), ("dilation", [2, 2])])
def test_layers_that_contradict_modules_are_refused_without_a_network(refused, saved, key, value):
    layer = saved["layers"][0]
    header = {**saved, "modules": {"conv1": {"type": "DAUConv2d", key: value}}}
    refused(f"'layers' contradicts 'modules': 'conv1' has {key}", header, load=daukit.read)
    header["modules"] = {"conv1": {"type": "Sequential", "modules": [layer | {key: value}]}}
    del header["modules"]["conv1"]["modules"][0]["name"]
    refused("'conv1.0' is a DAUConv2d", header, load=daukit.read)
    refused("'conv1' is a Identity", {**saved, "modules": {"conv1": {"type": "Identity"}}}, load=daukit.read)


def test_layers_that_contradict_the_network_are_refused(refused, saved):
    refused(r"describes the DAU layers \['conv2'\]", {**saved, "layers": saved["layers"][1:]})
    changed = {**saved["layers"][0], "sigma": 3.0}
    refused("'conv1' has sigma 3.0, and 0.5 in the network", {**saved, "layers": [changed, *saved["layers"][1:]]})


@pytest.mark.parametrize(
    "arguments",
    [
        ("info",),
        ("prune", "--threshold", "0.1", "--dry-run"),
        ("prune", "--merge-within", "1", "--dry-run"),
        ("plot-offsets", "--dry-run"),
        ("snap", "--dry-run"),
        ("rescale", "--factor", "conv1=2", "--dry-run"),
        ("convert", "--folder", "--dry-run"),
        ("bake", "--dry-run"),
    ],
    ids=" ".join,
)
def test_every_command_refuses_layers_that_contradict_the_network(daukit_command, refused, saved, arguments):
    def command(path):
        done = daukit_command(arguments[0], path, *arguments[1:])
        assert (done.returncode, done.stdout) == (1, "")
        raise CheckpointError(done.stderr.removeprefix("error: ").rstrip("\n"))

    changed = {**saved["layers"][0], "max_displacement": 99.0}
    refused("'conv1' has max_displacement", {**saved, "layers": [changed, *saved["layers"][1:]]}, load=command)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [float("1e300")]),
        ("mean", ["0"]),
        ("mean", [[0.5]]),
        ("mean", []),
        ("std", [0]),
        ("std", [-1.0]),
        ("std", [True]),
        ("channel_order", "cmyk"),
        ("channel_order", ["rgb"]),
        ("input_size", [0, 8]),
        ("input_size", [8.5, 8]),
        ("input_size", [2**20, 8]),
        ("input_size", [8]),
        ("value_range", [0, "1"]),
        ("class_names", [1]),
        ("class_names", ["x" * 2000]),
        ("class_names", "ab"),
        ("other", 1),
    ],
)
def test_preprocessing_is_looked_at_to_its_elements(refused, saved, key, value):
    sound = {"mean": [0.5], "std": [1.0], "channel_order": "gray", "input_size": [8, 8], "value_range": [0.0, 1.0]}
    refused("'preprocessing' is wrong", {**saved, "preprocessing": {**sound, key: value}}, load=daukit.read)


@pytest.mark.parametrize("tied", [{"a": 1}, [], {"a": "a"}, {"a": "b", "b": "conv1.weight"}])
def test_tied_names_lead_to_stored_tensors(refused, saved, tied):
    refused("'tied' must map names", {**saved, "tied": tied}, load=daukit.read)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int32])
def test_weights_of_no_floating_point_type_are_refused_by_name(refused, saved, dtype):
    if dtype == torch.complex64:
        pytest.importorskip("safetensors", "0.7")  # older ones have no name for it
    tensors = {k: v.to(dtype) if k == "conv1.weight" else v for k, v in network().state_dict().items()}
    name = str(dtype).removeprefix("torch.")
    refused(rf"conv1.weight is.*{name}", saved, tensors)
    refused(rf"conv1.*weight is.*{name}", saved, tensors, load=lambda path: read_any(path).layer("conv1"))
    refused(rf"conv1.weight is.*{name}", None, tensors, load=load_plain)


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_limit_that_no_file_can_hold_is_no_limit_of_a_layer(limit):
    with pytest.raises(ValueError, match="None \\(no limit\\) or within"):
        daukit.DAUConv2d(1, 1, 1, max_displacement=limit)


def test_messages_stay_short_however_much_is_wrong(refused, saved):
    names = [f"layer{i}" for i in range(2000)]
    refused("'tied' must", {**saved, "tied": dict.fromkeys(names, "layer0")})
    refused("do not fit the network", {**saved, "tied": dict.fromkeys(names, "conv1.mu")})
    refused("describes the DAU layers", {**saved, "layers": [{**saved["layers"][0], "name": name} for name in names]})
    refused("missing or wrong in", {**saved, "history": [{"operation": names}]})


def test_a_deep_module_is_looked_at_once(monkeypatch):
    """Looking at the inner modules of each level anew would take time with the square of the file's size."""
    calls = []
    monkeypatch.setattr(structure, "module_faults", lambda description: calls.append(description) or [])
    module = {"type": "Identity"}
    for _ in range(40):
        module = {"type": "Sequential", "modules": [module]}
    assert sum(1 for _ in structure.build(module).modules()) == 41
    assert calls == [module]
