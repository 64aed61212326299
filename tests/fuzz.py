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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mutators
import numpy as np
import own_mutators
import torch
from idx import toy_images, write_idx
from imported import Net, add_layer, units
from soundness import CONFIG, RUN, check_daukit_file, check_idx, check_imported, check_state, check_state_dict

import daukit
from daukit.checkpoint import save
from daukit.errors import DaukitError
from daukit.training import EpochResult
from daukit.training.moves import MoveTracker
from daukit.training.state import state_bytes

DATA = Path(__file__).parent / "data"
SECONDS, MEMORY = 10, 2 * 2**30


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
    results = [EpochResult(epoch, 0.1, 0.7, 0.6, 0.5, 1.5, "accuracy") for epoch in (1, 2)]
    yield state_bytes(network, optimizer, results, RUN, moves=MoveTracker(network))


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
