"""TensorFlow checkpoints and dumps that are damaged, hostile or of another kind: each gets one line that names it."""

import io
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import chunk, full, layer_of, units, varint
from mutators import npz as npz_mutant
from mutators import tensorflow_index as index_mutant
from tensorflow_files import HEADER, bundle, entry, index, table, variables

import daukit
from daukit.errors import CheckpointError
from daukit.importers import import_checkpoint, recognize

DATA = Path(__file__).parent / "data"


def npz(folder, **arrays):
    np.savez(folder / "dump.npz", **arrays)
    return folder / "dump.npz"


def refused(path, **options):
    """The one line that an import of ``path`` ends with."""
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def dump():
    w, mu1, mu2, bias = units()
    return {"a/weights": w, "a/mu1": mu1, "a/mu2": mu2, "a/sigma": full(w[0, 0, 0], 0.5)[:1], "a/biases": bias}


def broken_dumps():
    good = dump()
    w, mu1, mu2, bias = (good[f"a/{name}"] for name in ("weights", "mu1", "mu2", "biases"))
    for name in ("weights", "mu1", "mu2", "sigma"):
        yield {k: v for k, v in good.items() if k != f"a/{name}"}, f"layer 'a': there is no {name}"
    yield {**good, "a/mu1": mu1[0]}, "must all have one shape"
    yield {**good, "a/mu2": mu2[..., :2]}, "must all have one shape"
    yield {**good, "a/sigma": np.ones(5, np.float32)}, "sigma must hold one number or be like weights"
    yield {**good, "a/sigma": np.zeros(1, np.float32)}, "sigma is 0"
    yield {**good, "a/sigma": full(w, 0.5) * np.where(w > 0, 1, 1e9)}, "sigma is 5e+08"
    yield {**good, "a/biases": bias[:2]}, "2 biases for 5 outputs"
    yield {**good, "a/bias": bias}, "both biases and bias"
    yield {**good, "a/weights": w / 0}, "NaN or infinite"
    yield {**good, "a/weights": np.full(w.shape, 1e300)}, "beyond float32's largest"
    yield {**good, "a/weights": np.ones(w.shape, np.int32)}, "weights is of int32, not of float numbers"
    yield {**good, "a/mu1": mu1.astype(np.complex64)}, "there is no mu1"
    yield {**good, "a/weights:0": w}, "two tensors or layers are called a/weights"
    yield {**good, "b/c": w, "b.c": w}, "two tensors or layers are called b.c"
    long = np.ones((1, 1, 100_001, 1), np.float32)
    many = {f"a/{name}": long for name in ("weights", "mu1", "mu2")}
    yield {**many, "a/sigma": good["a/sigma"]}, "100,001 units for each of 1 x 1 channels"
    yield {**good, "b": np.ones((1,) * 9)}, "9 dimensions"
    yield {"b": np.ones(3)}, "holds no layer of displaced units"
    yield {"b": np.array([{}])}, "holds no layer of displaced units"


def test_every_broken_dump_gets_one_line_that_names_it(tmp_path):
    with np.errstate(divide="ignore", invalid="ignore"):
        cases = list(broken_dumps())
    for arrays, message in cases:
        assert message in refused(npz(tmp_path, **arrays))


def test_what_is_left_out_of_a_dump_is_said(tmp_path):
    path = npz(tmp_path, **dump(), words=np.array(["text"]), z=np.ones(2, np.complex64), things=np.array([{}]))
    checkpoint = import_checkpoint(path, window=(9, 9))
    assert set(checkpoint.tensors) == {"a.weight", "a.mu", "a.bias"}
    notes = checkpoint.header.history[-1]["arguments"]["notes"]
    assert notes == ["left out, as their type is none that daukit keeps: words, z, things"]


def test_changed_values_are_said(tmp_path):
    good = dump()
    rounded, far = good["a/weights"].astype(np.float64) + 1e-12, good["a/mu1"] * 9
    path = npz(tmp_path, **{**good, "a/weights": rounded, "a/mu1": far})
    beyond = int((np.abs(far) > 3.99).sum())
    notes = import_checkpoint(path, window=(9, 9)).header.history[-1]["arguments"]["notes"]
    assert notes == [
        "a: stored in double precision, rounded to single",
        f"a: {beyond} of 30 units lay beyond the limit and were clipped to it, as the source does",
    ]


@pytest.mark.parametrize("kind", [">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_in_any_order_of_bytes_and_axes(tmp_path, kind, order):
    arrays = {name: np.asarray(array.round(1), kind, order=order) for name, array in dump().items()}
    tensors = import_checkpoint(npz(tmp_path, **arrays, b=arrays["a/weights"])).tensors
    assert np.array_equal(tensors["b"].numpy(), arrays["a/weights"])
    assert np.array_equal(tensors["a.weight"].permute(1, 2, 0).numpy(), arrays["a/weights"][0].astype(np.float32))


def test_a_damaged_archive_is_named(tmp_path):
    path, good = tmp_path / "dau.npz", (DATA / "dau.npz").read_bytes()
    for content in (good[: len(good) // 2], good[:200] + b"\xff" * 60 + good[260:], b"", b"hello"):
        path.write_bytes(content)
        assert "dau.npz: not a whole .npz file of numbers: " in refused(path)


def test_a_flipped_byte_of_a_dumps_values_is_noticed(tmp_path):
    path = npz(tmp_path, **dump())
    with zipfile.ZipFile(path) as archive:
        places = [m.header_offset + m.compress_size for m in archive.infolist()]
    good = path.read_bytes()
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert "Bad CRC-32" in refused(path)


def bomb(path, size, members=("a/weights.npy",), states=None):
    header = io.BytesIO()
    shape = (size,) if states is None else states
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in members:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(header.getvalue())
                for _ in range(size >> 20):
                    file.write(bytes(1 << 20))


def test_archives_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("daukit.importers.npz._FREE", 1 << 20)
    path, size = tmp_path / "bomb.npz", 8 << 20
    bomb(path, size)
    assert "weights do not compress so well" in refused(path)
    monkeypatch.setattr("daukit.importers.npz._FREE", 1 << 30)
    bomb(path, size, states=(4,))
    assert "is not what its header states" in refused(path)
    bomb(path, size, states=(2**60, 2**60))
    assert "no tensor has the sizes" in refused(path)


def test_members_that_share_bytes_are_refused(tmp_path):
    path = npz(tmp_path, **dump())
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"]
    data[entries[1] + 42 : entries[1] + 46] = data[entries[0] + 42 : entries[0] + 46]  # where the member begins
    path.write_bytes(data)
    assert "its members overlap at" in refused(path)


def broken_indices():
    good, item = (DATA / "dau.ckpt.index").read_bytes(), entry((1, 1, 1, 2), variables()[1])
    yield good[100:], "not a whole index"
    yield b"\0" * 40 + good[-8:], "not a whole index"
    yield b"\xff" * 40 + good[-8:], "more than 64 bits"
    yield (varint(0) * 2 + varint(2**40) + varint(2**40)).ljust(40, b"\0") + good[-8:], "a block of"
    yield table([HEADER], kind=1), "compressed"
    yield table([(b"a", item)]), "0 data files"
    yield table([(b"", varint(1 << 3) + varint(1) + varint(2 << 3) + varint(1))]), "byte order 1"
    yield table([HEADER, (b"b", item), (b"a", item)]), "key b'a' does not come after b'b'"
    yield table([HEADER, (b"a", item), (b"a", item)]), "key b'a' does not come after b'a'"
    yield table([HEADER, (b"a", item)], handles_of=lambda handles: handles * 9), "begins before"
    yield table([HEADER, (b"a" * 1025, item)]), "a key of 1025 bytes"
    yield table([HEADER, (b"\xff", item)]), "no name in UTF-8"
    yield index(mu1=entry((1,), shard=3)), "no model.data-00003-of-00001"
    yield index(mu1=entry((1,), shard=2**31 - 1)), "no model.data-2147483647-of-00001"
    yield index(mu1=entry((1000,))), "within another tensor"
    yield index(weights=entry((1000,), offset=20)), "takes 4000 bytes"
    yield index(mu1=entry((1,), size=8)), "takes 4 bytes"
    yield index(weights=entry((1,), offset=2**63 - 1)), "takes 4 bytes"
    yield index(mu2=entry((2**40, 2**40), size=8, offset=8)), "no tensor has the sizes"
    yield index(mu2=entry((0, 2**62), size=0, offset=8)), "no tensor has the sizes"
    yield index(mu2=entry((1,) * 9, size=8, offset=8)), "9 dimensions"
    yield index(mu2=entry((1, 2**64 - 1), size=8, offset=8)), "no tensor has the sizes"
    yield index(mu2=entry((1, 1, 1, 2), offset=8)), "a/mu2: its checksum is wrong: bytes 8 to 16"
    yield index(mu2=entry((1, 1, 1, 2), variables()[1], offset=0)), "within another tensor"
    yield index(mu1=entry((1,), extra=chunk(7, b""))), "is cut into parts"
    yield index(mu1=b"\x12\x7f"), "not a complete BundleEntryProto"
    yield index(mu1=entry((1,), dtype=7)), "there is no mu1"
    yield table([HEADER, (b"a", entry((1,), dtype=7))]), "holds no layer of displaced units"


def test_every_broken_index_gets_one_line_that_names_it(tmp_path):
    for content, message in broken_indices():
        path = bundle(tmp_path, content)
        assert message in refused(path, source="tensorflow")


def test_a_flipped_byte_of_the_index_is_noticed(tmp_path):
    shutil.copy(DATA / "dau.ckpt.data-00000-of-00001", tmp_path)
    good = (DATA / "dau.ckpt.index").read_bytes()
    for place in range(0, len(good) - 48, 37):  # a table ends in 48 bytes of places and padding
        (tmp_path / "dau.ckpt.index").write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        assert "dau.ckpt.index: " in refused(tmp_path / "dau.ckpt", source="tensorflow")


def test_a_flipped_bit_of_the_data_is_noticed_where_it_is_read(tmp_path):
    shutil.copy(DATA / "dau.ckpt.index", tmp_path)
    good, name = (DATA / "dau.ckpt.data-00000-of-00001").read_bytes(), "dau.ckpt.data-00000-of-00001"
    expected, noticed = import_checkpoint(DATA / "dau.ckpt").tensors, 0
    for place in range(0, len(good), 331):
        (tmp_path / name).write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            tensors = import_checkpoint(tmp_path / "dau.ckpt").tensors
        except CheckpointError as error:
            assert "its checksum is wrong" in str(error) and "\n" not in str(error)
            noticed += 1
            continue
        assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())  # it was an optimiser's
    assert noticed > 5


def test_missing_files_are_named(tmp_path):
    shutil.copy(DATA / "dau.ckpt.index", tmp_path)
    with pytest.raises(CheckpointError, match=r"no dau\.ckpt\.data-00000-of-00001 beside it"):
        import_checkpoint(tmp_path / "dau.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.index: there is no such file"):
        import_checkpoint(tmp_path / "other", source="tensorflow")
    with pytest.raises(CheckpointError, match="did you mean 'DAUConv'"):
        import_checkpoint(DATA / "dau.ckpt", window={"DAUConf": (9, 9)})


def folder_of(tmp_path, named):
    """A folder as TensorFlow leaves it, whose ``checkpoint`` file names a path."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(DATA / f"dau.ckpt.{part}", folder / f"model.ckpt-7.{part}")
        shutil.copy(DATA / f"dau.ckpt.{part}", tmp_path / f"model.ckpt-8.{part}")
    (folder / "checkpoint").write_bytes(named)
    return folder


@pytest.mark.parametrize(
    "named",
    ["model.ckpt-7", "/home/another/run/model.ckpt-7", "../elsewhere/model.ckpt-7", "C:\\\\run\\\\model.ckpt-7"],
)
def test_a_folder_is_its_newest_checkpoint(tmp_path, named):
    rest = 'all_model_checkpoint_paths: "model.ckpt-3"\nlast_preserved_timestamp: 1.5\n'
    folder = folder_of(tmp_path, f'model_checkpoint_path: "{named}"\n{rest}'.encode())
    assert recognize(folder) == "tensorflow"
    checkpoint = import_checkpoint(folder)
    assert checkpoint.path == folder / "model.ckpt-7.index"
    assert torch.equal(checkpoint.tensors["DAUConv.mu"], import_checkpoint(DATA / "dau.ckpt").tensors["DAUConv.mu"])


@pytest.mark.parametrize(
    "named",
    [
        b'model_checkpoint_path: "../model.ckpt-8"',
        b'model_checkpoint_path: ".."',
        b"",
        b"\xff",
        b"import os",
        b"a {" * 9999,
    ],
)
def test_a_folder_whose_checkpoint_file_names_nothing_beside_it_is_refused(tmp_path, named):
    folder = folder_of(tmp_path, named)
    assert str(folder / "checkpoint") in refused(folder)


def accepts(path, **options):
    """Import ``path`` and write what came of it; True if it was accepted, an error if it is none of daukit's."""
    try:
        checkpoint = import_checkpoint(path, **options)
    except CheckpointError as error:
        assert str(path.parent) in str(error) and "\n" not in str(error), error
        return False
    output = path.parent / "out.safetensors"
    daukit.write(checkpoint, output, overwrite=True)
    again = daukit.read(output)
    for name in again.layer_names:
        assert layer_of(again, name).mu.isfinite().all()
    return True


def test_mutants_of_dumps_are_refused_in_one_line_or_read(tmp_path):
    good, accepted = npz(tmp_path, **dump(), b=np.arange(6).reshape(2, 3)).read_bytes(), 0
    for number in range(120):
        (tmp_path / "mutant.npz").write_bytes(npz_mutant(good, random.Random(number)))
        if accepts(tmp_path / "mutant.npz"):
            accepted += 1
            with np.load(tmp_path / "mutant.npz") as arrays:  # another reader of the same format
                expected = arrays["a/weights"][0].transpose(2, 0, 1).astype(np.float32)
            found = daukit.read(tmp_path / "out.safetensors").tensors["a.weight"].numpy()
            assert np.array_equal(found, expected[..., : found.shape[2]])
    assert 5 < accepted < 80


def test_mutants_of_indices_are_refused_in_one_line_or_read(tmp_path):
    items, data = variables()
    good, accepted = table([HEADER, *items.items()]), 0
    for number in range(120):
        path = bundle(tmp_path, index_mutant(good, random.Random(number)), data)
        accepted += accepts(path, source="tensorflow")
    assert 5 < accepted < 80
