"""What was read from a mutated file is compared with the file, by code that daukit does not share."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import own_mutators
import torch

import daukit
from daukit.checkpoint import build_model, from_model, read_any
from daukit.datasets import read_idx
from daukit.importers import import_checkpoint
from daukit.offsets import displacement_distributions
from daukit.pruning import prune
from daukit.rescale import rescale_factors
from daukit.tasks import Classification
from daukit.training import read_state
from daukit.training.moves import MoveTracker
from daukit.training.state import restore_state

CONFIG = {"channels": [2, 3, 4], "units": 2, "input_size": [8, 8]}
RUN = {"options": {"lr": 0.1, "seed": 0}, "architecture": {"name": "shallow_dau", "config": CONFIG}}


def members(data):
    """What an archive holds; members that no importer needs stay shut there, and may be damaged."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError):
                found[name] = archive.read(name)
    return found


def exercise(checkpoint):
    """What commands do with a file; and what was accepted can be written again."""
    for name in checkpoint.layer_names:
        checkpoint.layer(name)
    prune(checkpoint, 0.1)
    if checkpoint.layer_names:
        displacement_distributions(checkpoint)
        try:
            rescale_factors(checkpoint, {checkpoint.layer_names[0]: 0.5})
        except ValueError as error:  # a displacement of 1e38 needs a window that no file can hold
            assert "choose" in str(error), error


def exercise_network(checkpoint):
    model = build_model(checkpoint)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    from_model(model)


def stored_bytes(data):
    """Every tensor's bytes in a safetensors file, and its metadata."""
    header, body = own_mutators.parts(data)
    metadata = header.pop("__metadata__")
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}, metadata


def check_daukit_file(path, data):
    checkpoint = read_any(path)
    exercise(checkpoint)
    exercise_network(checkpoint)
    stored, metadata = stored_bytes(data)
    tied = json.loads(metadata["daukit"]).get("tied", {})
    assert set(checkpoint.tensors) == set(stored) | set(tied)
    for name, tensor in checkpoint.tensors.items():
        assert tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == stored[tied.get(name, name)], name


def check_state_dict(path, data):
    """Floats of the network are floats of the file's members, wherever they lie."""
    checkpoint = read_any(path, model="shallow_dau", config=CONFIG)
    exercise(checkpoint)
    exercise_network(checkpoint)
    sources = [data]
    if data[:2] == b"PK":
        sources = [content for name, content in members(data).items() if not name.endswith(".pkl")]
    assert_values_of(sources, {n: t for n, t in checkpoint.tensors.items() if t.is_floating_point()})


def check_state(path, data):
    """The log, and the network with its momenta, are those of the file."""
    state = read_state(path)
    network = daukit.create_model("shallow_dau", **CONFIG)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    moves = MoveTracker(network)
    restore_state(network, optimizer, path, RUN, Classification.headline, moves=moves)
    stored, metadata = stored_bytes(data)
    said = json.loads(metadata["daukit_resume"])["results"]
    assert [result.to_json() for result in state.results] == said
    for name, tensor in network.state_dict().items():
        assert tensor.numpy().tobytes() == stored[f"model.{name}"], name
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in stored:
            momentum = optimizer.state[parameter]["momentum_buffer"]
            assert momentum.numpy().tobytes() == stored[f"momentum.{name}"], name
    for name, start in moves.tensors(inside_epoch=False).items():
        assert name not in stored or start.numpy().tobytes() == stored[name], name


def check_imported(path, data):
    checkpoint = import_checkpoint(path, window=(9, 9) if path.suffix != ".caffemodel" else None)
    exercise(checkpoint)
    sources = [data]
    if path.suffix == ".npz":
        sources = list(members(data).values())
    if path.suffix == ".index":
        sources = [path.with_name("x.data-00000-of-00001").read_bytes()]
    # Importers clip displacements, so only weights are those of the file.
    assert_values_of(sources, {n: t for n, t in checkpoint.tensors.items() if n.endswith(".weight")})


def assert_values_of(sources, tensors):
    """Assert that nothing was invented: each number is in ``sources``, in some format, at some place."""
    known = np.concatenate([_numbers(source) for source in sources])
    for name, tensor in tensors.items():
        strange = ~np.isin(tensor.detach().float().numpy(), known)
        assert not strange.any(), f"{name}: {int(strange.sum())} of {strange.size} values are not in the file"


def _numbers(source):
    found = [np.zeros(1, np.float32)]
    with np.errstate(all="ignore"):
        for kind in ("<f4", "<f8", "<f2"):
            size = np.dtype(kind).itemsize
            for start in range(size):
                count = (len(source) - start) // size
                found.append(np.frombuffer(source, kind, max(count, 0), start if count > 0 else 0).astype(np.float32))
        bits = np.frombuffer(source, "<u2", len(source) // 2).astype(np.uint32) << 16  # bfloat16
        return np.concatenate([*found, bits.view(np.float32)])


def check_idx(path, data):
    values = read_idx(path)
    raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    assert tuple(values.shape) == shape
    assert values.numpy().tobytes() == raw[4 + 4 * len(shape) :]
