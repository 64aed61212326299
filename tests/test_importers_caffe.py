"""Caffe's files: units, displacements and outputs are Caffe's, and a broken file gets one line."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import Net, add_layer, chunk, floats, full, layer_of, one_layer, response, units, varint, written
from torch.nn import functional as F

from daukit.errors import CheckpointError, DaukitError
from daukit.importers import import_checkpoint, messages, recognize

ORACLE = Path(__file__).parent / "data" / "dau_oracle_public.npz"


def imported(folder, arrays, kind="DAUConvolution", offsets="auto", **parameters):
    checkpoint = import_checkpoint(one_layer(folder, arrays, kind, **parameters), offsets=offsets)
    return layer_of(checkpoint, "conv2"), checkpoint


def notes(checkpoint):
    return checkpoint.header.history[-1]["arguments"].get("notes", [])


def test_every_unit_is_where_caffe_has_it(tmp_path):
    w, mu1, mu2, bias = units()
    arrays = (w, mu1, mu2, full(w, 0.5), bias)
    layer, checkpoint = imported(
        tmp_path, arrays, kernel_size=[9], pad=[4], number_units=[2, 1], component_border_bound=1.0,
        use_already_centered_offsets=True,
    )  # fmt: skip
    for s in range(3):
        for k in range(2):
            for f in range(5):
                assert layer.weight[f, s, k] == w[0, s, k, f]
                assert layer.mu[0, f, s, k] == mu2[0, s, k, f] and layer.mu[1, f, s, k] == mu1[0, s, k, f]
    assert np.array_equal(layer.bias.detach(), bias)
    assert (layer.sigma, layer.max_displacement) == (0.5, 3.0)
    assert checkpoint.header.architecture == {"imported": "caffe"} and notes(checkpoint) == []
    assert layer.initialization == {"name": "grid", "rows": 1, "columns": 2, "extent": 3.0, "scale": 1.0}


def test_a_file_written_byte_by_byte_is_read_alike(tmp_path):
    values = [[0.5, -2.0], [1.0, 2.0], [-1.0, 0.25], [0.5, 0.5]]
    shape = chunk(7, chunk(1, bytes([1, 1, 1, 2])))
    blobs = b"".join(chunk(7, shape + chunk(5, floats(v))) for v in values)
    parameter = chunk(1106, varint(5 << 3) + varint(9) + varint(2 << 3) + varint(0) + varint(20 << 3) + varint(1))
    layer = chunk(1, b"conv2") + chunk(2, b"DAUConvolution") + blobs + parameter
    path = written(tmp_path, chunk(1, b"net") + chunk(100, layer))
    found = layer_of(import_checkpoint(path), "conv2")
    assert found.weight.flatten().tolist() == [0.5, -2.0] and found.bias is None
    assert found.mu[0].flatten().tolist() == [-1.0, 0.25] and found.mu[1].flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("corner", [False, True])
def test_a_planted_unit_answers_where_caffes_does(tmp_path, corner):
    one = np.ones((1, 1, 1, 1), np.float32)
    x, y = 2 + 4 * corner, 0 + 4 * corner  # mu1 = +2 is two columns to the right
    layer, _ = imported(
        tmp_path, (one, x * one, y * one, full(one, 0.3)), kernel_size=[9], number_units=[1], bias_term=False,
        use_already_centered_offsets=not corner,
    )  # fmt: skip
    assert list(response(layer)) == [(4, 2)]


@pytest.mark.parametrize("name", ["basic", "odd_channels", "one_unit", "integer", "far", "interior"])
def test_outputs_are_those_of_the_authors_oracle(tmp_path, name):
    with np.load(ORACLE) as data:
        case = {key.split("/")[1]: data[key] for key in data if key.startswith(f"{name}/")}
    arrays = (case["weights"], case["mu1"], case["mu2"], full(case["weights"], case["sigma"]))
    layer, _ = imported(tmp_path, arrays, kernel_size=[33], bias_term=False, use_already_centered_offsets=True)
    expected = torch.tensor(case["y"])
    assert (layer(torch.tensor(case["x"])) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("stored", "flag", "offsets", "is_said"),
    [
        ("corner", False, "auto", True),
        ("corner", None, "auto", False),
        ("centre", None, "auto", False),
        ("centre", True, "auto", True),
        ("corner", True, "corner", True),
        ("centre", False, "centred", True),
    ],
)
def test_displacements_from_the_corner_are_moved_to_the_centre(tmp_path, stored, flag, offsets, is_said):
    w, mu1, mu2, bias = units()
    move = 4 if stored == "corner" else 0
    flags = {} if flag is None else {"use_already_centered_offsets": flag}
    layer, checkpoint = imported(
        tmp_path, (w, mu1 + move, mu2 + move, full(w, 0.5), bias), offsets=offsets, kernel_size=[9], **flags
    )
    torch.testing.assert_close(layer.mu[1].detach(), torch.tensor(mu1[0]).permute(2, 0, 1), rtol=0, atol=1e-6)
    assert bool(notes(checkpoint)) != is_said
    assert is_said or f"{stored}, judging by their values" in notes(checkpoint)[0]


def test_the_prototxt_says_what_the_weights_file_does_not(tmp_path):
    w, mu1, mu2, bias = units(count=2)
    path = one_layer(tmp_path, (w, mu1 + 4, mu2 + 4, full(w, 0.5), bias))
    path.with_suffix(".prototxt").write_text(
        'name: "net" layer { name: "conv2" type: "DAUConvolution" mystery: 3 dau_conv_param { kernel_size: 9 '
        "number_units: 1 use_already_centered_offsets: false engine: CUDNN weight_filler { type: 'xavier' } } }"
    )
    checkpoint = import_checkpoint(path)
    layer = layer_of(checkpoint, "conv2")
    assert layer.units == 1 and layer.max_displacement == 4 and notes(checkpoint) == []
    torch.testing.assert_close(layer.mu[0, :, :, 0].detach(), torch.tensor(mu2[0, :, 0].T), rtol=0, atol=1e-6)


def test_displacements_beyond_the_border_are_clipped_as_caffe_clips_them(tmp_path):
    w, mu1, mu2, bias = units(reach=6)
    layer, _ = imported(
        tmp_path, (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9], component_border_bound=0.5,
        use_already_centered_offsets=True,
    )  # fmt: skip
    assert np.array_equal(layer.mu[1].detach().permute(1, 2, 0), np.clip(mu1[0], -3.5, 3.5))


@pytest.mark.parametrize(("number", "kept"), [({"number_units": [3, 1]}, 3), ({}, 3), ({"number_units": [2, 2]}, 4)])
def test_the_dummy_unit_of_an_odd_number_is_dropped(tmp_path, number, kept):
    w, mu1, mu2, bias = units(count=4)
    w[:, :, -1] = 0
    mu1[:, :, -1] = 100
    layer, _ = imported(
        tmp_path, (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9], use_already_centered_offsets=True, **number
    )
    assert layer.units == kept and np.array_equal(layer.weight.detach().permute(1, 2, 0), w[0, :, :kept])


def test_only_the_first_sigma_counts(tmp_path):
    w, mu1, mu2, bias = units()
    sigma = full(w, 0.9)
    sigma.flat[0] = 0.35
    assert imported(tmp_path, (w, mu1, mu2, sigma, bias))[0].sigma == 0.35


@pytest.mark.parametrize("kind", ["squares", "none"])
def test_other_normalisations_of_the_blur_are_folded_into_the_weights(tmp_path, kind):
    w, mu1, mu2, bias = units()
    flag = {"square_unit_normalization": True} if kind == "squares" else {"unit_normalization": False}
    layer, _ = imported(
        tmp_path, (w, mu1, mu2, full(w, 0.8), bias), kernel_size=[9], use_already_centered_offsets=True, **flag
    )
    y, x = np.mgrid[-4:5, -4:5]
    g = np.exp(-(x**2 + y**2) / (2 * 0.8**2))
    ratio = g.sum() / (g**2).sum() if kind == "squares" else g.sum()  # to a kernel that sums to one
    np.testing.assert_allclose(layer.weight.detach().permute(1, 2, 0), w[0] * ratio, rtol=1e-6)


@pytest.mark.parametrize("kind", ["squares", "sum", "none"])
def test_gaussian_conv_layers_are_dense_filters_of_displaced_gaussians(tmp_path, kind):
    w, mu1, mu2, bias = units(reach=2.5)
    sigma = np.random.default_rng(1).uniform(0.4, 1.1, w.shape).astype(np.float32)
    arrays = (
        w,
        mu1 + 3,
        mu2 + 3,
        sigma,
        np.zeros((1, 1, 5, 3)),
        bias,
        np.ones((2, 2)),
    )  # a dummy, and one for debugging
    flags = {
        "squares": {},
        "sum": {"gmm_square_gauss_normalization": False},
        "none": {"gmm_gauss_normalization": False},
    }
    layer, checkpoint = imported(
        tmp_path, arrays, "GaussianConv", kernel_size=[7], pad=[3], number_gauss=[2, 1], **flags[kind]
    )
    y, x = np.mgrid[0:7, 0:7]
    kernel = np.zeros((5, 3, 7, 7))
    for s, k, f in np.ndindex(3, 2, 5):
        g = np.exp(-((x - 3 - mu1[0, s, k, f]) ** 2 + (y - 3 - mu2[0, s, k, f]) ** 2) / (2 * sigma[0, s, k, f] ** 2.0))
        kernel[f, s] += w[0, s, k, f] * g / {"squares": (g**2).sum(), "sum": g.sum(), "none": 1}[kind]
    image = torch.rand(2, 3, 11, 8, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(image.double(), torch.tensor(kernel), torch.tensor(bias).double(), padding=3)
    assert layer.form == "gaussian" and notes(checkpoint) == []
    torch.testing.assert_close(layer(image).double(), expected, rtol=1e-5, atol=1e-5)


def test_fast_gaussian_conv_layers_are_blurred_and_sampled(tmp_path):
    w, mu1, mu2, bias = units()
    arrays = (w, mu1 + 4, mu2 + 4, full(w, 0.5), np.zeros((1, 1, 5, 3)), bias)
    layer, _ = imported(
        tmp_path, arrays, "GaussianConv", kernel_size=[9], gmm_use_fast_aproximation=True,
        gmm_square_gauss_normalization=False,
    )  # fmt: skip
    assert layer.form == "bilinear" and np.array_equal(layer.weight.detach().permute(1, 2, 0), w[0])
    torch.testing.assert_close(layer.mu[1].detach(), torch.tensor(mu1[0]).permute(2, 0, 1), rtol=0, atol=1e-6)


def test_plain_layers_keep_their_names(tmp_path):
    net, random = Net(), np.random.default_rng(0)
    w, mu1, mu2, bias = units()
    add_layer(net, "dau", "DAUConvolution", (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9])
    kernel, matrix = random.random((4, 3, 5, 5)), random.random((1, 1, 6, 4))
    add_layer(net, "conv1/7x7", "Convolution", (kernel, np.zeros(4)))
    add_layer(net, "fc", "InnerProduct", (matrix,))
    add_layer(net, "bn", "BatchNorm", (np.ones(4), np.zeros(4), np.ones(1)))
    tensors = import_checkpoint(written(tmp_path, net)).tensors
    assert {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith("dau.")} == {
        "conv1/7x7.weight": (4, 3, 5, 5), "conv1/7x7.bias": (4,), "fc.weight": (6, 4),
        "bn.blob0": (4,), "bn.blob1": (4,), "bn.blob2": (1,),
    }  # fmt: skip
    assert np.array_equal(tensors["conv1/7x7.weight"], kernel.astype(np.float32))


def test_blobs_of_old_files_have_four_sizes_and_doubles_are_read(tmp_path):
    net = Net()
    w, mu1, mu2, _ = units()
    layer = add_layer(net, "dau", "DAUConvolution", (w, mu1, mu2, full(w, 0.5)), kernel_size=[9], bias_term=False)
    for blob in layer.blobs:
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = 1, 3, 2, 5
    layer.blobs[0].ClearField("data")
    layer.blobs[0].double_data.extend(w.flatten().tolist())
    found = import_checkpoint(written(tmp_path, net)).tensors["dau.weight"]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), w[0])


def test_files_are_recognised_or_refused_in_one_line(tmp_path):
    w, mu1, mu2, bias = units()
    path = one_layer(tmp_path, (w, mu1, mu2, full(w, 0.5), bias))
    other = path.rename(tmp_path / "weights.bin")
    assert import_checkpoint(other, source="caffe").layer_names == ["conv2"]
    missing = tmp_path / "no"
    for wrong, message in ((other, r"say so \(source=\)"), (tmp_path, "is not a file"), (missing, "no such file")):
        with pytest.raises(CheckpointError, match=message):
            recognize(wrong)
    with pytest.raises(ValueError, match="caffe files have no version"):
        import_checkpoint(other, source="caffe", version="v0")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    w, mu1, mu2, bias = units()
    path = one_layer(tmp_path, (w, mu1, mu2, full(w, 0.5), bias))
    messages._messages.cache_clear()
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(DaukitError, match=r"daukit\[caffe\]"):
        import_checkpoint(path)
