"""Whatever a file says, reading it ends in one line that names it, or in the network that it is."""

import hashlib
import io
import json
import pickle
import struct
import zipfile

import pytest
import safetensors.torch
import torch

import daukit
from daukit.checkpoint import file, plain, read_any
from daukit.errors import CheckpointError
from daukit.limits import MAX_UNITS
from daukit.models import structure

CONFIG = {"channels": [2, 3], "units": 2, "num_classes": 3, "input_size": [8, 8]}


def network():
    torch.manual_seed(0)
    return daukit.create_model("shallow_dau", **CONFIG).eval()


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
    refused("option depths of resnet50 must be Sequence", header)


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


def load_plain(path):
    return daukit.load(path, model="shallow_dau", config=CONFIG)


def odd_tensors():
    """Tensors that are no plain arrays, in the place of conv1.weight."""
    weight = network().state_dict()["conv1.weight"]
    yield "strides of 0", torch.zeros(1).expand(10**13), "in 4 bytes"
    yield "sparse", weight.to_sparse(), "is sparse_coo"
    yield "meta", weight.to("meta"), "is without values"
    yield "quantised", torch.quantize_per_tensor(weight, 0.1, 0, torch.quint8), "is quint8"
    yield "float8", weight.to(torch.float8_e4m3fn), "is float8_e4m3fn"
    yield "complex", weight + 5j, "is complex64"
    yield "integers", (weight * 20).to(torch.int32), "stored as torch.int32"
    yield "bool", weight > 0, "stored as torch.bool"
    yield "65 dimensions", weight.reshape([1] * 62 + list(weight.shape)), "65 dimensions"
    yield "NaN", weight * float("nan"), "NaN or infinite"
    yield "3 channels", weight[:1], "do not fit"


@pytest.mark.filterwarnings("ignore")  # torch warns of what it makes here
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_are_no_plain_arrays_are_refused_by_name(tmp_path, zipped):
    for i, (kind, tensor, message) in enumerate(odd_tensors()):
        message = message if zipped or kind != "float8" else "conv1.weight|not a complete torch file"  # torch cannot
        path = tmp_path / f"{i}.pth"
        state = {**network().state_dict(), "conv1.weight": tensor}
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_plain(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), kind


@pytest.mark.parametrize("key", [3, ("a",), None])
def test_names_that_are_no_text_are_refused(tmp_path, key):
    torch.save({key: torch.zeros(1)}, tmp_path / "k.pth")
    with pytest.raises(CheckpointError, match="names are texts"):
        load_plain(tmp_path / "k.pth")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([-1, 3]), "unit_counts from -1 to 3"),
        (torch.tensor([2**62, 2**62]), "must lie within"),
        (torch.tensor([MAX_UNITS + 1, 0]), "must lie within"),
        (torch.tensor([1.0, 1.0]), "2 whole numbers"),
        (torch.tensor([[1, 1]]), "2 whole numbers"),
        (torch.tensor([1, 1, 1]), "2 whole numbers"),
        (torch.tensor([1, 2]), "2 pairs and 3 units"),
    ],
)
def test_unit_counts_are_counts(tmp_path, counts, message):
    state = network().state_dict()
    state |= {"conv1.weight": torch.ones(2), "conv1.mu": torch.zeros(2, 2), "conv1.unit_counts": counts}
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=message):
        load_plain(tmp_path / "m.pth")


def test_counters_that_were_averaged_as_floats_are_taken_if_they_are_whole(tmp_path):
    path, state = tmp_path / "m.pth", network().state_dict()
    torch.save({**state, "bn1.num_batches_tracked": torch.tensor(7.0)}, path)
    assert load_plain(path).bn1.num_batches_tracked == 7
    torch.save({**state, "bn1.num_batches_tracked": torch.tensor(7.5)}, path)
    with pytest.raises(CheckpointError, match=r"bn1.num_batches_tracked is stored as torch.float32"):
        load_plain(path)


def test_damaged_torch_files_are_refused_in_one_line(tmp_path):
    """Bits flipped in both kinds of file; what is still read is a network of finite numbers."""
    path, dice = tmp_path / "m.pth", torch.Generator().manual_seed(0)
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(network().state_dict(), buffer, _use_new_zipfile_serialization=zipped)
        sound = buffer.getvalue()
        for number in range(60):
            data = bytearray(sound)
            for place in torch.randint(len(data), (1 + number % 4,), generator=dice).tolist():
                data[place] ^= 1 << (number % 8)
            path.write_bytes(data if number % 4 else sound[: number * len(sound) // 60])
            try:
                model = load_plain(path)
            except CheckpointError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert all(torch.isfinite(p).all() for p in model.parameters())


class Print:
    def __reduce__(self):
        return print, ("x",)


def test_a_pickle_says_what_it_asks_for(tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    path.write_bytes(pickle.dumps(Print(), 2))
    with pytest.raises(CheckpointError, match="never runs code from a file"):
        load_plain(path)
    torch.save({"model": network()}, path)
    with pytest.raises(CheckpointError, match=r"asks for torch\.nn\.\S+, and daukit never runs code"):
        load_plain(path)
    assert capsys.readouterr().out == ""


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


def test_a_compressed_archive_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pth"
    archive(path, {"m/data.pkl": b"", "m/data/0": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(CheckpointError, match="members are compressed or state more than they hold"):
        load_plain(path)


def test_members_that_state_too_much_or_overlap_are_refused(tmp_path):
    path = tmp_path / "m.pth"
    archive(path, {"m/data.pkl": b"x" * 100, "m/data/0": b"y" * 100})
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    large, overlapping = bytearray(data), bytearray(data)
    large[entries[1] + 24 : entries[1] + 28] = struct.pack("<I", 2**30)
    overlapping[entries[1] + 42 : entries[1] + 46] = struct.pack("<I", 20)
    for content, message in ((large, "state more than they hold"), (overlapping, "overlap at 'm/data/0'")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_plain(path)


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "data/1", "version"])
def test_one_flipped_bit_of_a_torch_file_is_found(tmp_path, name):
    """torch.load compares no checksum, and takes such a weight."""
    path = tmp_path / "m.pth"
    torch.save({"a": torch.ones(300), "b": torch.full((3,), 0.7)}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as members:
        held = members.read(f"m/{name}")
    data[data.index(held) + len(held) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"m\.pth: .*CRC-32 for file 'm/{name}'.*copy it again"):
        load_plain(path)


def test_torch_files_without_checksums_are_taken(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(network().state_dict(), tmp_path / "m.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "m.pth") as members:
        assert not any(member.CRC for member in members.infolist())
    load_plain(tmp_path / "m.pth")


def test_members_must_be_called_what_the_directory_calls_them(tmp_path):
    path = tmp_path / "m.pth"
    torch.save(network().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"m/data/0", b"m/data/9", 1))
    with pytest.raises(CheckpointError, match=r"m\.pth: not a complete torch file .*differ"):
        load_plain(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"m/constants.pkl": b"", "m/code/a.py": b""}, "is a TorchScript program"),
        ({"m/archive_format": b"pt2"}, "is an exported program"),
        ({"weight.npy": b""}, "archive of NumPy arrays"),
        ({"document.xml": b""}, "none that torch.save wrote"),
    ],
)
def test_archives_of_other_kinds_are_named(tmp_path, members, message):
    archive(tmp_path / "m.pth", members)
    with pytest.raises(CheckpointError, match=message):
        load_plain(tmp_path / "m.pth")


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_limit_that_no_file_can_hold_is_no_limit_of_a_layer(limit):
    with pytest.raises(ValueError, match="None \\(no limit\\) or within"):
        daukit.DAUConv2d(1, 1, 1, max_displacement=limit)


def test_a_file_that_is_refused_is_closed_while_its_error_is_looked_at(tmp_path, monkeypatch):
    opened, open_file = [], file.open_file
    monkeypatch.setattr(file, "open_file", lambda path: opened.append(open_file(path)) or opened[-1])
    (tmp_path / "m.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError) as caught:
        daukit.open(tmp_path / "m.safetensors")
    assert caught.value.__traceback__ is not None and [one.closed for one in opened] == [True]


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


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "no/such", "x" * 300 + "/y", "loop", "m.safetensors/x"])
@pytest.mark.parametrize("read", [daukit.load, daukit.read, daukit.open])
def test_names_that_the_system_refuses_are_one_line(tmp_path, name, read):
    daukit.save(network(), tmp_path / "m.safetensors")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match=r"no such file|cannot be read") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_disk_that_fails_is_one_line(tmp_path, monkeypatch):
    torch.save(network().state_dict(), tmp_path / "m.pth")

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("daukit.checkpoint.plain.opens_as_pickle", fail)
    with pytest.raises(CheckpointError, match=r"m\.pth: cannot be read: Input/output error"):
        load_plain(tmp_path / "m.pth")


def test_a_file_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(tmp_path, monkeypatch):
    path, other = tmp_path / "m.pth", tmp_path / "other.pth"
    torch.save(network().state_dict(), path)
    torch.save({name: tensor * 2 for name, tensor in network().state_dict().items()}, other)
    before, load = hashlib.sha256(path.read_bytes()).hexdigest(), plain.load_object

    def replacing(file, name):
        other.replace(path)
        return load(file, name)

    monkeypatch.setattr(plain, "load_object", replacing)
    checkpoint = read_any(path, model="shallow_dau", config=CONFIG)
    assert checkpoint.digest == before
    assert torch.equal(checkpoint.tensors["conv1.weight"], network().conv1.weight)


def test_a_file_that_is_written_into_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, load = tmp_path / "m.pth", plain.load_object
    torch.save(network().state_dict(), path)

    def writing(file, name):
        with path.open("ab") as same:
            same.write(b"more")
        return load(file, name)

    monkeypatch.setattr(plain, "load_object", writing)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        load_plain(path)
