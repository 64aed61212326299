"""Odd tensors and damaged files of torch: a state dict is read as data, or refused in one line."""

import io
import pickle
import struct
import zipfile

import pytest
import torch
from broken import load_plain, network

from daukit.errors import CheckpointError
from daukit.limits import MAX_UNITS


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
