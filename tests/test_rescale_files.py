"""Rescaled files load and save as they are, and what went into them is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rescaled import (
    assert_same_at_coarse_positions,
    checkpoint_of,
    noise,
    removed,
    three_pools,
)

import daukit
from daukit.checkpoint import Checkpoint, from_model
from daukit.errors import NetworkError
from daukit.models.factory import resolve_factory
from daukit.preprocessing import Preprocessing
from daukit.rescale import Mode, remove_pools, rescale_factors


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_rescaled_files_load_and_save_as_they_are(tmp_path: Path, mode: Mode) -> None:
    small = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    cases = [
        remove_pools(small, ["pool2"], mode)[0],
        rescale_factors(small, {"conv2": 2, "conv3": 3}, mode)[0],
        removed(checkpoint_of(three_pools, pool="max 3/2 ceil"), ["pool1", "pool2"], mode)[0],
        removed(checkpoint_of(three_pools, pool="average 2/2"), ["pool1", "pool3"], mode, input_size=(40, 40))[0],
    ]
    for i, checkpoint in enumerate(cases):
        path = tmp_path / f"{i}.safetensors"
        daukit.write(checkpoint, path)
        again = from_model(daukit.load(path, model=checkpoint.header.architecture.get("factory")))
        assert again.header == checkpoint.header
        assert again.tensors.keys() == checkpoint.tensors.keys()
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_networks_of_ones_own_file_are_rescaled(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(
        "from torch import nn\n\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.pool, self.conv = nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1)\n"
        "    def forward(self, x):\n"
        "        return self.conv(self.pool(x))\n\n"
        "def make():\n"
        "    return nn.Sequential(Block())\n"
    )
    factory = f"{file}:make"
    before = from_model(resolve_factory(factory)(), architecture={"factory": factory, "config": {}})
    after, _ = removed(before, ["0.pool"], "exact")
    assert_same_at_coarse_positions(before, after, noise(1, 1, 9, 12), 2)


def test_rescaling_changes_neither_the_checkpoint_it_was_given_nor_untouched_tensors() -> None:
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    copies = {name: tensor.clone() for name, tensor in before.tensors.items()}
    header = before.header.to_json()
    after, _ = remove_pools(before, ["pool2"])
    rescale_factors(before, {"conv1": 2})
    assert before.header.to_json() == header
    assert all(torch.equal(before.tensors[name], copy) for name, copy in copies.items())
    assert all(torch.equal(after.tensors[name], copies[name]) for name in ("conv1.mu", "conv2.mu", "bn3.running_mean"))
    assert after.header.history[-1]["arguments"] == {"mode": "paper", "remove_pool": ["pool2"]}


def test_tensors_keep_their_dtype_and_new_ones_take_it() -> None:
    before = checkpoint_of(three_pools, pool="average 2/2")
    exact = {k: t if k.endswith("mu") or not t.is_floating_point() else t.double() for k, t in before.tensors.items()}
    before = Checkpoint(before.header, exact)
    for mode, new in (("paper", []), ("exact", ["pool3.weight"])):
        after, _ = removed(before, ["pool2"], mode, input_size=(20, 20))  # type: ignore[arg-type]
        assert after.tensors.keys() - before.tensors.keys() == set(new)
        assert all(after.tensors[name].dtype == tensor.dtype for name, tensor in before.tensors.items())
        assert all(after.tensors[name].dtype == torch.float64 for name in new)


def test_input_size_comes_from_the_file_or_must_be_given() -> None:
    before = checkpoint_of("shallow_dau", channels=[2, 2, 2], units=2)
    default, _ = remove_pools(before, ["pool2"])  # that of the architecture, 28 x 28
    factory = "daukit.models.shallow:shallow_dau"
    of_user = {"factory": factory, "config": {"channels": [2, 2, 2], "units": 2}}
    with pytest.raises(ValueError, match=r"classifier.*input size"):
        remove_pools(Checkpoint(replace(before.header, architecture=of_user), before.tensors), ["pool2"], model=factory)
    with pytest.raises(NetworkError, match="its forward failed on"):
        remove_pools(before, ["pool2"], input_size=(40, 40))
    given, _ = remove_pools(before, ["pool2"], input_size=(28, 28))
    preprocessing = Preprocessing((0.5,), (0.5,), "gray", (28, 28))
    read, _ = remove_pools(Checkpoint(replace(before.header, preprocessing=preprocessing), before.tensors), ["pool2"])
    assert given.header.modules == read.header.modules == default.header.modules
