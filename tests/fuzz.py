"""Broken files without end: ``python tests/fuzz.py [SEED]`` (``make fuzz``) feeds them to the readers until stopped.

A mutant may be refused, by one ``DaukitError`` of one line that names the file; or it may be accepted, and then what
was read is compared with the file by code that daukit does not share. Anything else is a failure: another exception, a
dead process, more than ten seconds, more than 2 GiB beyond what torch itself takes. Every mutant has its format, seed
and number for a name, and ``python tests/fuzz.py SEED FORMAT NUMBER`` makes it again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mutators
import numpy as np
import own_mutators
import torch
from idx import toy_images, write_idx
from imported import Net, add_layer, units

import daukit
from daukit.checkpoint import build_model, from_model, read_any, save
from daukit.data import read_idx
from daukit.errors import DaukitError
from daukit.importers import import_checkpoint
from daukit.offsets import displacement_distributions
from daukit.pruning import prune
from daukit.rescale import rescale_factors
from daukit.training import EpochResult, read_state
from daukit.training.state import restore_state, state_bytes

DATA = Path(__file__).parent / "data"
SECONDS, MEMORY = 10, 2 * 2**30
CONFIG = {"channels": [2, 3, 4], "units": 2, "input_size": [8, 8]}
RUN = {"options": {"lr": 0.1, "seed": 0}, "architecture": {"name": "shallow_dau", "config": CONFIG}}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: what the file is called; the suffix counts for some readers.
        seeds: makes sound files.
        mutate: breaks one.
        check: reads a mutant (its path and bytes) in every way there is, and asserts that what came is what it holds.
    """

    name: str
    seeds: Callable[[], Iterator[bytes]]
    mutate: Callable[[bytes, random.Random], bytes]
    check: Callable[[Path, bytes], None]


# Sound files.


def networks():
    """Dense, ragged with a learned sigma, general form."""
    torch.manual_seed(0)
    ragged = daukit.create_model("shallow_dau", **CONFIG, learn_sigma="layer")
    ragged.conv2.keep_units(ragged.conv2.weight > 0)
    general = {**CONFIG, "channels": [2, 2, 2], "units": 1}
    yield daukit.create_model("shallow_dau", **CONFIG)
    yield ragged
    yield daukit.create_model("shallow_dau", **general, learn_sigma="unit")


def daukit_files():
    with tempfile.TemporaryDirectory() as folder:
        for i, model in enumerate(networks()):
            save(model, Path(folder) / f"{i}.safetensors")
            yield (Path(folder) / f"{i}.safetensors").read_bytes()


def torch_files():
    state = next(networks()).state_dict()
    for wrapped, new in ((state, True), ({"state_dict": state, "epoch": 3}, True), (state, False)):
        buffer = io.BytesIO()
        torch.save(wrapped, buffer, _use_new_zipfile_serialization=new)
        yield buffer.getvalue()


def state_files():
    """States of a training after two epochs, with momenta."""
    network = next(networks())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    results = [EpochResult(epoch, 0.1, 0.7, 0.6, 0.5, 1.5) for epoch in (1, 2)]
    yield state_bytes(network, optimizer, results, RUN)


def npz_files():
    yield (DATA / "dau.npz").read_bytes()
    arrays = dict(zip(("a/weights", "a/mu1", "a/mu2", "a/biases"), units(), strict=True))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{"a/sigma": np.full(1, 0.5, np.float32)})
    yield buffer.getvalue()


def caffe_files():
    weight, mu1, mu2, bias = units()
    options = {"num_output": 5, "number_units": [2, 1], "kernel_size": [9], "pad": [4]}
    net = Net(name="test")
    add_layer(net, "conv1", "Convolution", [np.ones((3, 1, 3, 3)), np.zeros(3)], num_output=3, kernel_size=[3], pad=[1])
    sigma = np.full_like(weight, 0.5)
    add_layer(net, "conv2", "DAUConvolution", [weight, mu1, mu2, sigma, bias], unit_normalization=True, **options)
    yield net.SerializeToString()


def index_files():
    yield (DATA / "dau.ckpt.index").read_bytes()


def idx_files():
    images, labels = toy_images(4, 0)
    with tempfile.TemporaryDirectory() as folder:
        for i, values in enumerate((images, labels)):
            write_idx(Path(folder) / f"{i}", values)
            yield (Path(folder) / f"{i}").read_bytes()
            yield gzip.compress((Path(folder) / f"{i}").read_bytes())


def members(data):
    """What an archive holds; members that no importer needs stay shut there, and may be damaged."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError):
                found[name] = archive.read(name)
    return found


# What is read, and what the file holds.


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
    restore_state(network, optimizer, path, RUN)
    stored, metadata = stored_bytes(data)
    said = json.loads(metadata["daukit_resume"])["results"]
    assert [asdict(result) for result in state.results] == said
    for name, tensor in network.state_dict().items():
        assert tensor.numpy().tobytes() == stored[f"model.{name}"], name
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in stored:
            momentum = optimizer.state[parameter]["momentum_buffer"]
            assert momentum.numpy().tobytes() == stored[f"momentum.{name}"], name


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


FORMATS = {
    "daukit": Format("m.safetensors", daukit_files, own_mutators.safetensors, check_daukit_file),
    "state": Format("m.resume.safetensors", state_files, own_mutators.safetensors, check_state),
    "pth": Format("m.pth", torch_files, own_mutators.pth, check_state_dict),
    "npz": Format("m.npz", npz_files, mutators.npz, check_imported),
    "caffe": Format("m.caffemodel", caffe_files, mutators.caffemodel, check_imported),
    "tensorflow": Format("x.index", index_files, mutators.tensorflow_index, check_imported),
    "idx": Format("m-idx3-ubyte", idx_files, own_mutators.idx, check_idx),
}


# The attack.


def mutant_of(name, seed, number, sound):
    dice = random.Random(f"{name} {seed} {number}")
    return FORMATS[name].mutate(dice.choice(sound), dice)


def verdict(kind, path, data):
    """``"refused"``, ``"accepted"``, or what went wrong."""
    try:
        kind.check(path, data)
    except DaukitError as error:
        text = str(error)
        if str(path.parent) not in text or "\n" in text:
            return f"no line that names the file: {text!r}"
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


class Bench:
    """A folder with sound files of a format, and one place for their mutants."""

    def __init__(self, name, folder):
        """Read the sound files once: that also loads whatever is loaded late."""
        self.name, self.kind, self.sound = name, FORMATS[name], list(FORMATS[name].seeds())
        self.path = Path(folder) / self.kind.name
        (Path(folder) / "x.data-00000-of-00001").write_bytes((DATA / "dau.ckpt.data-00000-of-00001").read_bytes())
        for data in self.sound:
            self.path.write_bytes(data)
            self.kind.check(self.path, data)

    def judge(self, seed, number):
        """The verdict on one mutant."""
        data = mutant_of(self.name, seed, number, self.sound)
        self.path.write_bytes(data)
        told = verdict(self.kind, self.path, data)
        return told if self.path.read_bytes() == data else "a reader wrote to its input"


def work(name, seed, start, stop):
    """Say of each mutant, a line each, its number and its verdict. Runs in a process of its own."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(name, folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        for number in range(start, stop):
            print(number, end=" ", flush=True)
            signal.alarm(SECONDS)  # ends the process, whatever it is doing
            print(json.dumps(bench.judge(seed, number)), flush=True)
            signal.alarm(0)


@dataclass
class Result:
    """How many mutants were refused and accepted, and what failed."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def attack(name, count, seed):
    """Feed ``count`` mutants of a format to its readers, in processes that may die."""
    result, start = Result(), 0
    while start < count:
        run = [sys.executable, __file__, "--work", name, str(seed), str(start), str(count)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        for line in lines:
            number, _, told = line.partition(" ")
            start = int(number) + 1
            told = json.loads(told) if told else f"the process ended with {done.returncode}"
            if told in ("refused", "accepted"):
                result.counts[told] += 1
            else:
                result.failures.append(f"{seed} {name} {number}: {told}")
        if not lines:
            raise RuntimeError(f"{run}: {done.stderr}")
    return result


def forever(seed):
    """Attack all formats in turn, a seed after the other, and print what fails."""
    for turn in range(seed, sys.maxsize):
        for name in FORMATS:
            result = attack(name, 1000, turn)
            print(f"seed {turn} {name}: {dict(result.counts)}, {len(result.failures)} failed", flush=True)
            for failure in result.failures:
                print(f"  {failure}", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--work"]:
        work(arguments[1], int(arguments[2]), int(arguments[3]), int(arguments[4]))
    elif len(arguments) == 3:
        seed, name, number = arguments
        sys.stdout.buffer.write(mutant_of(name, int(seed), int(number), list(FORMATS[name].seeds())))
    else:
        forever(int(arguments[0]) if arguments else time.time_ns())
