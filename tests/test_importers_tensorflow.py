"""TensorFlow checkpoints, made by TensorFlow itself (data/make_tensorflow.py), and dumps of their variables."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import chunk, full, layer_of, response, units, varint
from torch.nn import functional as F

from daukit.errors import CheckpointError
from daukit.importers import import_checkpoint, recognize

DATA = Path(__file__).parent / "data"
NAMES = ("DAUConv", "dau_conv1.dau_conv1_1")


def read(name):
    with np.load(DATA / "dau.npz") as file:
        return torch.tensor(file[name])


def outputs_first(array):
    return torch.tensor(np.asarray(array))[0].permute(2, 0, 1)


@pytest.mark.parametrize("file", ["dau.ckpt", "dau.ckpt.index", "dau.ckpt.data-00000-of-00001", "dau.npz"])
def test_units_are_those_that_tensorflow_reads(file):
    assert recognize(DATA / file) == "tensorflow"
    checkpoint = import_checkpoint(DATA / file)
    assert tuple(checkpoint.layer_names) == NAMES
    for name, count, sigma in zip(NAMES, (2, 3), (0.5, 0.35), strict=True):
        layer, scope = layer_of(checkpoint, name), name.replace(".", "/")
        assert torch.equal(layer.weight, outputs_first(read(f"{scope}/weights"))[..., :count])
        assert torch.equal(layer.mu[0], outputs_first(read(f"{scope}/mu2"))[..., :count])
        assert torch.equal(layer.mu[1], outputs_first(read(f"{scope}/mu1"))[..., :count])
        assert (layer.sigma, layer.max_displacement, layer.units) == (sigma, None, count)
    assert torch.equal(checkpoint.tensors["DAUConv.bias"], read("DAUConv/biases"))
    assert "max_kernel_size is not in the file" in checkpoint.header.history[-1]["arguments"]["notes"][0]


def test_plain_variables_are_kept_and_the_optimisers_are_not():
    tensors = import_checkpoint(DATA / "dau.ckpt").tensors
    norm = "dau_conv1.dau_conv1_1.batch_normalization."
    others = {"conv.weights", "fc.weights", *(norm + n for n in ("gamma", "beta", "moving_mean", "moving_variance"))}
    assert {name for name in tensors if name.rpartition(".")[0] not in NAMES} == others
    assert tensors["conv.weights"].shape == (2, 4, 3, 1)
    for h, i, o in np.ndindex(3, 4, 2):
        assert tensors["conv.weights"][o, i, h, 0] == read("conv/weights")[h, 0, i, o]


def test_moving_averages_are_taken_on_request():
    for average in (False, True):
        checkpoint = import_checkpoint(DATA / "dau.ckpt", moving_averages=average)
        suffix = "/ExponentialMovingAverage" if average else ""
        assert torch.equal(checkpoint.tensors["DAUConv.bias"], read(f"DAUConv/biases{suffix}"))
        assert torch.equal(checkpoint.tensors["fc.weights"], read(f"fc/weights{suffix}"))
    assert not torch.equal(read("DAUConv/biases"), read("DAUConv/biases/ExponentialMovingAverage"))


def test_displacements_are_clipped_as_the_plugin_clips_them():
    checkpoint = import_checkpoint(DATA / "dau.ckpt", window={"*": (9, 9), NAMES[1]: (25, 25)}, stride={"DAUConv": 2})
    one, two = (layer_of(checkpoint, name) for name in NAMES)
    stored = outputs_first(read("DAUConv/mu1"))
    assert torch.equal(one.mu[1], stored.clamp(-3.99, 3.99)) and stored.abs().max() > 4
    assert (one.max_displacement, two.max_displacement) == (3.99, 11.99)
    assert (one.stride, two.stride) == ((2, 2), (1, 1)) and one.initialization["extent"] == 3


def npz(folder, **variables):
    np.savez(folder / "dump.npz", **variables)
    return folder / "dump.npz"


def test_a_planted_unit_answers_where_the_plugins_does(tmp_path):
    one = np.ones((1, 1, 1, 1), np.float32)
    path = npz(tmp_path, **{"a/weights": one, "a/mu1": 2 * one, "a/mu2": 0 * one, "a/sigma": full(one[0, 0, 0], 0.3)})
    assert list(response(layer_of(import_checkpoint(path), "a"))) == [(4, 2)]  # mu1 = +2 is two columns to the right


@pytest.mark.parametrize("name", ["basic", "odd_channels", "one_unit", "integer", "far", "interior"])
def test_outputs_are_those_of_the_authors_oracle(tmp_path, name):
    with np.load(DATA / "dau_oracle_public.npz") as data:
        case = {key.split("/")[1]: data[key] for key in data if key.startswith(f"{name}/")}
    sigma = full(case["weights"], case["sigma"])
    path = npz(tmp_path, **{"weights:0": case["weights"], "mu1:0": case["mu1"], "mu2:0": case["mu2"], "sigma:0": sigma})
    expected = torch.tensor(case["y"])
    found = layer_of(import_checkpoint(path), "layer")(torch.tensor(case["x"]))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_sigma_per_unit_is_the_general_form(tmp_path):
    w, mu1, mu2, bias = units(reach=2)
    sigma = np.random.default_rng(1).uniform(0.4, 0.9, w.shape).astype(np.float32)
    path = npz(tmp_path, **{"a/weights": w, "a/mu1": mu1, "a/mu2": mu2, "a/sigma": sigma, "a/bias": bias})
    with pytest.raises(CheckpointError, match="sigma differs between units; pass the filters' window"):
        import_checkpoint(path)
    y, x = np.mgrid[-3:4, -3:4]
    kernel = np.zeros((5, 3, 7, 7))
    for s, k, f in np.ndindex(3, 2, 5):
        g = np.exp(-((x - mu1[0, s, k, f]) ** 2 + (y - mu2[0, s, k, f]) ** 2) / (2 * sigma[0, s, k, f] ** 2.0))
        kernel[f, s] += w[0, s, k, f] * g / g.sum()
    image = torch.rand(2, 3, 9, 10, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(image.double(), torch.tensor(kernel), torch.tensor(bias).double(), padding=3)
    found = layer_of(import_checkpoint(path, window=(7, 7)), "a")
    torch.testing.assert_close(found(image).double(), expected, rtol=1e-5, atol=1e-5)


def test_names_of_the_second_version_lose_what_its_objects_add(tmp_path):
    w, mu1, mu2, _ = units()
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    named = {"net/weights": w, "net/mu1": mu1, "net/mu2": mu2, "net/sigma": full(w, 0.5)}
    slots = {f"net/weights/.OPTIMIZER_SLOT/optimizer/m{suffix}": w, f"save_counter{suffix}": np.int64(3)}
    path = npz(tmp_path, **{name + suffix: array for name, array in named.items()}, **slots)
    assert set(import_checkpoint(path).tensors) == {"net.weight", "net.mu"}


def broken_dumps(folder):
    w, mu1, mu2, bias = units()
    good = {"a/weights": w, "a/mu1": mu1, "a/mu2": mu2, "a/sigma": full(w[0, 0, 0], 0.5)[:1], "a/biases": bias}
    for name in ("weights", "mu1", "mu2", "sigma"):
        yield {k: v for k, v in good.items() if k != f"a/{name}"}, f"layer 'a': there is no {name}"
    yield {**good, "a/mu1": mu1[0]}, "must all have one shape"
    yield {**good, "a/mu2": mu2[..., :2]}, "must all have one shape"
    yield {**good, "a/sigma": np.ones(5, np.float32)}, "sigma must hold one number or be like weights"
    yield {**good, "a/sigma": np.zeros(1, np.float32)}, "sigma is 0"
    yield {**good, "a/biases": bias[:2]}, "2 biases for 5 outputs"
    yield {**good, "a/weights": w / 0}, "NaN or infinite"
    yield {"b": np.ones(3)}, "holds no layer of displaced units"
    yield {"b": np.array([{}])}, "not a whole .npz file of numbers"


def test_every_broken_dump_gets_one_line_that_names_it(tmp_path):
    with np.errstate(divide="ignore", invalid="ignore"):
        cases = list(broken_dumps(tmp_path))
    for variables, message in cases:
        path = npz(tmp_path, **variables)
        with pytest.raises(CheckpointError, match=message) as caught:
            import_checkpoint(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def masked_crc(data):
    """The remainder of the Castagnoli polynomial, bit by bit, turned by 15 bits and moved, as LevelDB keeps it."""
    crc = 2**32 - 1
    for bit in (byte >> i & 1 for byte in data for i in range(8)):
        crc = crc >> 1 ^ 0x82F63B78 * (crc & 1 ^ bit)
    crc ^= 2**32 - 1
    return struct.pack("<I", ((crc >> 15) + (crc << 17) + 0xA282EAD8) % 2**32)


def test_a_damaged_archive_is_named(tmp_path):
    path, good = tmp_path / "dau.npz", (DATA / "dau.npz").read_bytes()
    for content in (good[: len(good) // 2], good[:200] + b"\xff" * 60 + good[260:], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"dau\.npz: not a whole \.npz file of numbers: [^\n]+$"):
            import_checkpoint(path)


def table(*blocks, kind=0):
    """An index of uncompressed blocks of (key, value), written after LevelDB's description of its format."""

    def block(items):
        entries = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in items)
        return entries + struct.pack("<II", 0, 1)  # one restart point, at 0

    data, handles = b"", []
    for items in [*blocks, []]:
        content = block(items)
        handles.append((items[-1][0] if items else b"", varint(len(data)) + varint(len(content))))
        data += content + bytes([kind]) + masked_crc(content + bytes([kind]))
    statistics = handles.pop()[1]
    content = block(handles)
    place = varint(len(data)) + varint(len(content))
    data += content + bytes([kind]) + masked_crc(content + bytes([kind]))
    return data + (statistics + place).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def entry(shape, size=None, dtype=1, offset=0, shard=0, extra=b""):
    dims = b"".join(chunk(2, varint(1 << 3) + varint(n)) for n in shape)
    size = 4 * int(np.prod(shape)) if size is None else size
    numbers = {1: dtype, 3: shard, 4: offset, 5: size}
    return chunk(2, dims) + b"".join(varint(k << 3) + varint(v) for k, v in numbers.items()) + extra


HEADER = (b"", varint(1 << 3) + varint(1))


def bundle(folder, index, data=b"\0" * 400):
    (folder / "model.index").write_bytes(index)
    (folder / "model.data-00000-of-00001").write_bytes(data)
    return folder / "model"


def test_an_index_of_several_blocks_is_read_whole(tmp_path):
    shape = (1, 1, 1, 2)
    values = {b"a/mu1": [1, 2], b"a/mu2": [3, 4], b"a/sigma": [0.5], b"a/weights": [5, 6]}
    data, items = b"", []
    for name, numbers in values.items():
        items.append((name, entry(shape if len(numbers) == 2 else (1,), offset=len(data))))
        data += struct.pack(f"<{len(numbers)}f", *numbers)
    path = bundle(tmp_path, table([HEADER, items[0]], items[1:3], items[3:]), data)
    layer = layer_of(import_checkpoint(path), "a")
    assert layer.weight.flatten().tolist() == [5, 6] and layer.sigma == 0.5
    assert layer.mu.flatten(1).tolist() == [[3, 4], [1, 2]]


def broken_indices():
    good = (DATA / "dau.ckpt.index").read_bytes()
    yield good[100:], "not a whole index"
    yield good[:100] + good[200:], "not a whole index|not a complete"
    yield b"\0" * 40 + good[-8:], "not a whole index"
    yield b"\xff" * 40 + good[-8:], "more than 64 bits"
    yield (varint(0) * 2 + varint(2**40) + varint(2**40)).ljust(40, b"\0") + good[-8:], "a block of"
    yield table([HEADER], kind=1), "compressed"
    yield table([(b"a", entry((1,)))]), "0 data files"
    yield table([(b"", varint(1 << 3) + varint(1) + varint(2 << 3) + varint(1))]), "byte order 1"
    yield table([HEADER, (b"a", entry((1,), shard=3))]), "no model.data-00003-of-00001"
    yield table([HEADER, (b"a", entry((1000,)))]), "takes 4000 bytes"
    yield table([HEADER, (b"a", entry((1,), size=2**50))]), "takes 4 bytes"
    yield table([HEADER, (b"a", entry((1,), offset=2**63 - 1))]), "takes 4 bytes"
    yield table([HEADER, (b"a", entry((2**40, 2**40), size=2**62))]), "takes"
    yield table([HEADER, (b"a", entry((1,), extra=chunk(7, b"")))]), "is cut into parts"
    yield table([HEADER, (b"a", b"\x12\x7f")]), "not a complete BundleEntryProto"
    yield table([HEADER, (b"a", entry((1,), dtype=7))]), "holds no layer of displaced units"


def test_every_broken_index_gets_one_line_that_names_it(tmp_path):
    for content, message in broken_indices():
        path = bundle(tmp_path, content)
        with pytest.raises(CheckpointError, match=message) as caught:
            import_checkpoint(path, source="tensorflow")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_flipped_byte_of_the_index_is_noticed(tmp_path):
    shutil.copy(DATA / "dau.ckpt.data-00000-of-00001", tmp_path)
    good = (DATA / "dau.ckpt.index").read_bytes()
    for place in range(0, len(good) - 48, 37):  # a table ends in 48 bytes of places and padding
        (tmp_path / "dau.ckpt.index").write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        with pytest.raises(CheckpointError, match=r"dau\.ckpt\.index: [^\n]+$"):
            import_checkpoint(tmp_path / "dau.ckpt", source="tensorflow")


def test_missing_files_are_named(tmp_path):
    shutil.copy(DATA / "dau.ckpt.index", tmp_path)
    with pytest.raises(CheckpointError, match=r"no dau\.ckpt\.data-00000-of-00001 beside it"):
        import_checkpoint(tmp_path / "dau.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.index: there is no such file"):
        import_checkpoint(tmp_path / "other", source="tensorflow")
    with pytest.raises(CheckpointError, match="did you mean 'DAUConv'"):
        import_checkpoint(DATA / "dau.ckpt", window={"DAUConf": (9, 9)})


def test_what_tensorflow_writes_now_is_read_as_the_bundled_file_is(tmp_path):
    pytest.importorskip("tensorflow")
    subprocess.run([sys.executable, DATA / "make_tensorflow.py", tmp_path], check=True)
    old, new = (import_checkpoint(folder / "dau.ckpt").tensors for folder in (DATA, tmp_path))
    assert set(old) == set(new)
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, rtol=1e-5, atol=1e-6)
