"""TensorFlow checkpoints, made by TensorFlow itself (data/make_tensorflow.py), and dumps of their variables."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import full, layer_of, response, units
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


def test_what_tensorflow_writes_now_is_read_as_the_bundled_file_is(tmp_path):
    pytest.importorskip("tensorflow")
    subprocess.run([sys.executable, DATA / "make_tensorflow.py", tmp_path], check=True)
    old, new = (import_checkpoint(folder / "dau.ckpt").tensors for folder in (DATA, tmp_path))
    assert set(old) == set(new)
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, rtol=1e-5, atol=1e-6)
