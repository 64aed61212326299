"""State dicts of pruned networks: masks of torch's pruning are applied to the weights that they are of."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import daukit
from daukit.checkpoint.model import read_any
from daukit.errors import CheckpointError


def build():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Conv2d(3, 2, 3, stride=2)))


def build_pruned():
    return pruned(build())


def pruned(model):
    for conv in (model[0], model[2][0]):
        prune.l1_unstructured(conv, "weight", 0.5)
    prune.l1_unstructured(model[0], "bias", 1)
    return model


X = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return pruned(build()).eval()


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_masks_are_applied_to_the_weights_of_the_plain_network(network, tmp_path, prefix):
    path = tmp_path / "pruned.pth"
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in network.state_dict().items()}}, path)
    checkpoint = read_any(path, model=build)
    assert torch.equal(daukit.load(path, model=build)(X), network(X))
    assert any("3 masks of torch.nn.utils.prune" in note for note in checkpoint.notes)
    assert checkpoint.header.history[0]["arguments"]["masks"] == 3
    assert sorted(checkpoint.tensors) == sorted(build().state_dict())


def test_a_network_that_has_masks_itself_keeps_them(network, tmp_path):
    path = tmp_path / "pruned.pth"
    torch.save(network.state_dict(), path)
    checkpoint = read_any(path, model=build_pruned)
    assert "0.weight_mask" in checkpoint.tensors and not checkpoint.notes
    loaded = daukit.load(path, model=build_pruned)
    assert torch.equal(loaded(X), network(X))


def test_masks_of_true_and_false_are_masks(network, tmp_path):
    state = {name: t.bool() if name.endswith("_mask") else t for name, t in network.state_dict().items()}
    torch.save(state, tmp_path / "pruned.pth")
    assert torch.equal(daukit.load(tmp_path / "pruned.pth", model=build)(X), network(X))


def broken(state, how):
    state = copy.deepcopy(state)
    if how == "alone":
        del state["0.weight_orig"]
        state["0.weight"] = torch.zeros(3, 1, 3, 3)
    elif how == "without weights":
        del state["0.weight_orig"]
    elif how == "shape":
        state["0.weight_mask"] = torch.ones(3, 1, 3)
    elif how == "nan":
        state["0.weight_orig"].view(-1)[4] = torch.nan
    elif how == "without masks":
        del state["0.weight_mask"]
    return state


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("alone", r"holds 0\.weight_mask, a mask of torch\.nn\.utils\.prune, without 0\.weight_orig"),
        ("without weights", r"holds 0\.weight_mask, a mask of torch\.nn\.utils\.prune, without 0\.weight_orig"),
        ("shape", r"0\.weight_mask is \(3, 1, 3\) and 0\.weight_orig \(3, 1, 3, 3\)"),
        ("nan", r"1 of 27 values of 0\.weight are NaN or infinite"),
        ("without masks", r"missing \['0\.weight'\], unexpected \['0\.weight_orig'\]"),
    ],
)
def test_broken_masks_are_one_clear_error(network, tmp_path, how, match):
    path = tmp_path / "broken.pth"
    torch.save(broken(network.state_dict(), how), path)
    with pytest.raises(CheckpointError, match=match):
        daukit.load(path, model=build)
