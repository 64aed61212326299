"""A file pruned layer by layer: the same bytes as the network in memory, and little memory."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import daukit
import daukit.checkpoint.rewriting
import daukit.pruning.file
from daukit.checkpoint import CheckpointFile, Header, from_model, is_daukit_file, stored_bytes
from daukit.checkpoint.layout import DTYPES, entry_of, layout
from daukit.errors import CheckpointError, OutputError
from daukit.pruning import Rule, prune, prune_file


def checkpoint_of(**config):
    torch.manual_seed(1)
    return from_model(daukit.create_model("shallow_dau", **{"channels": [4, 6, 6], "units": 3, **config}))


def whole(path):
    """What safetensors itself makes of a file's tensors and metadata."""
    with safe_open(path, framework="pt") as file:
        return safetensors.torch.save({name: file.get_tensor(name) for name in file.keys()}, file.metadata())


def undated(header):
    data = json.loads(header.to_json())
    for entry in data["history"]:
        entry.pop("date")
    return data


@pytest.mark.parametrize("config", [{}, {"learn_sigma": "layer"}, {"learn_sigma": "unit"}])
@pytest.mark.parametrize(
    "rule",
    [
        {"threshold": 0.0},
        {"threshold": 0.4, "relative_to": "filter"},
        {"threshold": 1.0, "relative_to": "network"},
        {"layer_thresholds": {"conv2": 0.5}},
        {"units": 71},
        {"units": 0},
        {"remove": 0.3, "seed": 5},
    ],
)
def test_the_file_is_what_pruning_in_memory_and_safetensors_make(tmp_path, config, rule):
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    daukit.write(checkpoint_of(**config), source)
    expected, report = prune(daukit.read(source), **rule)
    done = prune_file(source, Rule(**rule), output)
    assert done.report == report and sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    actual = daukit.read(output)
    assert set(actual.tensors) == set(expected.tensors)
    assert all(torch.equal(actual.tensors[name], expected.tensors[name]) for name in expected.tensors)
    assert undated(actual.header) == undated(expected.header)
    assert output.read_bytes() == whole(output)
    assert (done.bytes_before, done.bytes_after) == (source.stat().st_size, output.stat().st_size)
    assert stored_bytes(expected) == output.stat().st_size


def test_without_an_output_the_report_is_the_same_and_nothing_is_written(tmp_path):
    source = tmp_path / "a.safetensors"
    daukit.write(checkpoint_of(), source)
    dry = prune_file(source, Rule(0.4))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert dry == prune_file(source, Rule(0.4), tmp_path / "b.safetensors")


@pytest.mark.parametrize("layers", [("conv2",), ("conv3",), ("conv2", "conv3"), ()])
def test_tensors_that_layers_share_are_stored_once_unless_one_of_the_layers_is_pruned(tmp_path, layers):
    shared = checkpoint_of(channels=[6, 6, 6])
    shared.tensors["conv3.mu"] = shared.tensors["conv2.mu"]
    source, output, again = (tmp_path / f"{name}.safetensors" for name in "abc")
    daukit.write(shared, source)
    rule = {"layer_thresholds": dict.fromkeys(layers or ("conv1",), 0.5)}
    expected, _ = prune(daukit.read(source), **rule)
    assert prune_file(source, Rule(**rule), output).bytes_after == stored_bytes(expected)
    daukit.write(expected, again)
    actual, wanted = daukit.read(output), daukit.read(again)
    assert actual.header.tied == wanted.header.tied == ({} if layers else {"conv3.mu": "conv2.mu"})
    assert set(actual.tensors) == set(wanted.tensors)
    assert all(torch.equal(actual.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_every_type_lies_where_safetensors_puts_it():
    header = Header({"name": 'x "é"\n\x01\x7f', "config": {}})
    tensors = {"empty": torch.zeros(0, 4)}
    for i, dtype in enumerate(DTYPES):
        for name in ("b", "a", "é"):
            tensors[f"{name}.{dtype}"] = torch.zeros((3, 2) if i % 2 else (), dtype=dtype)
    expected = safetensors.torch.save(tensors, {"daukit": header.to_json()})
    plan = layout(header, {name: entry_of(tensor) for name, tensor in tensors.items()})
    assert expected[: len(plan.start)] == plan.start and len(expected) == plan.size


def test_a_type_that_no_file_can_hold_is_named():
    with pytest.raises(OutputError, match=r"odd is torch\.complex128"):
        layout(Header({}), {"odd": entry_of(torch.zeros(2, dtype=torch.complex128))})


def test_a_file_may_take_its_sources_place_and_no_other(tmp_path):
    source = tmp_path / "a.safetensors"
    size = daukit.write(checkpoint_of(), source)
    with pytest.raises(OutputError, match="exists already"):
        prune_file(source, Rule(0.4), source)
    assert source.stat().st_size == size
    done = prune_file(source, Rule(0.4), source, overwrite=True)
    assert (done.bytes_before, done.bytes_after) == (size, source.stat().st_size)
    assert daukit.read(source).header.history[-1]["operation"] == "prune"
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_is_no_daukit_file_is_told_apart_and_refused(tmp_path):
    model = daukit.create_model("shallow_dau", channels=[2, 2, 2])
    plain, pickled, cut = (tmp_path / name for name in ("plain.safetensors", "p.pt", "cut.safetensors"))
    safetensors.torch.save_file(model.state_dict(), plain)
    torch.save(model.state_dict(), pickled)
    cut.write_bytes(plain.read_bytes()[:300])
    assert not any(map(is_daukit_file, (plain, pickled, tmp_path, tmp_path / "nothing")))
    with pytest.raises(CheckpointError, match="no daukit header"):
        prune_file(plain, Rule(0.4))
    for wrong in (is_daukit_file, lambda path: prune_file(path, Rule(0.4))):
        with pytest.raises(CheckpointError, match=r"cut\.safetensors: not a complete safetensors file"):
            wrong(cut)


def test_nan_in_a_layer_is_found_before_anything_is_written(tmp_path):
    spoiled = checkpoint_of()
    spoiled.tensors["conv3.mu"][0, 0, 0, 0] = float("nan")
    safetensors.torch.save_file(spoiled.tensors, tmp_path / "a.safetensors", {"daukit": spoiled.header.to_json()})
    with pytest.raises(CheckpointError, match=r"conv3.*NaN"):
        prune_file(tmp_path / "a.safetensors", Rule(0.4), tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (torch.zeros(6, dtype=torch.float8_e4m3fn), "is float8_e4m3fn"),
        (torch.zeros(6, dtype=torch.float8_e5m2), "is float8_e5m2"),
        (torch.zeros(6, dtype=torch.uint64), "is uint64"),
        (torch.zeros([1] * 8 + [6]), "is of 9 dimensions"),
    ],
    ids=["float8_e4m3fn", "float8_e5m2", "uint64", "9 dimensions"],
)
def test_what_no_reader_takes_is_never_written_though_no_layer_has_it(tmp_path, odd, said):
    spoiled = checkpoint_of()
    spoiled.tensors["bn1.bias"] = odd
    safetensors.torch.save_file(spoiled.tensors, tmp_path / "a.safetensors", {"daukit": spoiled.header.to_json()})
    output = tmp_path / "b.safetensors"
    for operation in (
        lambda: prune_file(tmp_path / "a.safetensors", Rule(0.4)),
        lambda: prune_file(tmp_path / "a.safetensors", Rule(0.4), output),
        lambda: daukit.write(spoiled, output),
    ):
        with pytest.raises(CheckpointError, match=rf"bn1\.bias {said}"):
            operation()
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


MEASURE = """
import resource, sys
from daukit.pruning import Rule, prune_file

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

prune_file(sys.argv[1], Rule(0.1))
before = peak()
prune_file(sys.argv[2], Rule(0.1), sys.argv[3])
print(peak() - before)
"""


@pytest.mark.slow
def test_a_file_is_pruned_in_a_small_part_of_the_memory_that_it_would_fill(tmp_path):
    small, large = tmp_path / "small.safetensors", tmp_path / "large.safetensors"
    daukit.write(checkpoint_of(), small)
    size = daukit.write(checkpoint_of(num_classes=600_000), large)
    run = [sys.executable, "-c", MEASURE, small, large, tmp_path / "pruned.safetensors"]
    grown = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    # Its units are a few kilobytes, and what is left of the file is copied in blocks.
    assert size > 120e6 and grown < 16e6


def replaced_at(monkeypatch, moment, replace):
    """Let ``replace`` run in front of one step of pruning a file."""
    owner, name = moment
    old = getattr(owner, name)

    def wrapped(*args, **kwargs):
        monkeypatch.setattr(owner, name, old)
        replace()
        return old(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


MOMENTS = [
    (daukit.pruning.file, "select"), (CheckpointFile, "layer"), (CheckpointFile, "entry"), (CheckpointFile, "digest"),
    (CheckpointFile, "blocks"), (daukit.checkpoint.rewriting, "layout"), (CheckpointFile, "tensor"),
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
def test_a_source_that_is_replaced_meanwhile_is_pruned_as_it_was(tmp_path, monkeypatch, moment):
    source, other, expected, output = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "c", "d"))
    daukit.write(checkpoint_of(), source)
    daukit.write(checkpoint_of(units=2), other)
    prune_file(source, Rule(0.4), expected)
    replaced_at(monkeypatch, moment, lambda: other.replace(source))
    prune_file(source, Rule(0.4), output)
    assert not other.exists()
    actual, wanted = daukit.read(output), daukit.read(expected)
    assert undated(actual.header) == undated(wanted.header)  # the source's digest among it
    assert all(torch.equal(actual.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
@pytest.mark.parametrize("keep", [-1, 3000, None])
def test_a_source_that_is_written_into_meanwhile_makes_no_output(tmp_path, monkeypatch, moment, keep):
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    daukit.write(checkpoint_of(), source)
    os.utime(source, (0, 0))
    data = source.read_bytes()
    replaced_at(monkeypatch, moment, lambda: source.write_bytes(data[:keep]))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: was changed while it was read"):
        prune_file(source, Rule(0.4), output)
    assert not output.exists()


@pytest.mark.parametrize("moment", [(CheckpointFile, "tensor"), (CheckpointFile, "digest"), (Header, "from_json")])
def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(tmp_path, monkeypatch, moment):
    source, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    daukit.write(checkpoint_of(), source)
    daukit.write(checkpoint_of(units=2), other)
    wanted = daukit.read(source)
    replaced_at(monkeypatch, moment, lambda: other.replace(source))
    actual = daukit.read(source)
    assert actual.digest == wanted.digest and actual.header == wanted.header
    assert all(torch.equal(actual.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    source = tmp_path / "a.safetensors"
    daukit.write(checkpoint_of(), source)
    with CheckpointFile(source) as file:
        assert file.digest() == hashlib.sha256(source.read_bytes()).hexdigest()
