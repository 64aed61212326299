"""Caffe's files cut short, hostile or of another layout: each gets one line that names it."""

import math

import numpy as np
import pytest
from imported import Net, add_layer, chunk, full, one_layer, units, varint, written

from daukit.errors import CheckpointError
from daukit.importers import import_checkpoint


def broken_files(folder):
    w, mu1, mu2, bias = units()
    good = one_layer(folder, (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9]).read_bytes()

    def layer(*arrays, kind="DAUConvolution", **parameters):
        return one_layer(folder, arrays, kind, **parameters).read_bytes()

    sigma, nan = full(w, 0.5), np.full_like(w, math.nan)
    yield good[:-3], "not a complete NetParameter"
    yield good[: len(good) // 2], "not a complete NetParameter"
    yield chunk(100, b"\x3a" + varint(2**62)), "not a complete NetParameter"
    yield b"\x0a" + b"\xff" * 11, "not a complete NetParameter"
    yield b"", "holds no layer of displaced units"
    yield chunk(2, b"old layer"), "V1 format"
    yield layer(w, mu1, mu2, bias_term=False), "3 blobs"
    yield layer(w, mu1, mu2, sigma), "say that it has a bias"
    yield layer(w, mu1[:, :2], mu2, sigma, bias), "must all have one shape"
    yield layer(w[0], mu1[0], mu2[0], sigma[0], bias), "must all have one shape"
    yield layer(w, mu1, mu2, sigma[:, :2], bias), "sigma .* is not like weights"
    yield layer(w, mu1, mu2, sigma, bias[:3]), "3 biases for 5 outputs"
    yield layer(w, mu1, mu2, full(w, math.nan), bias), "sigma is nan"
    yield layer(w, mu1, mu2, full(w, 1e9), bias), "sigma is 1e"
    yield layer(nan, mu1, mu2, sigma, bias), "NaN or infinite"
    yield layer(w, mu1, mu2, sigma, bias, number_units=[3, 2]), "2 units are stored, where its parameters say 6"
    yield layer(w, mu1, mu2, sigma, bias, stride=[2]), "stride"
    yield layer(w, mu1, mu2, sigma, bias, kernel_size=[9, 7]), "must be one number"
    yield layer(w, mu1, mu2, sigma, bias, kernel_size=[3], component_border_bound=2.0), "leaves nothing"
    yield layer(w, mu1, mu2, sigma, bias, use_already_centered_offsets=False), "need kernel_size"
    yield layer(w, mu1, mu2, sigma, bias, bias, kind="GaussianConv", kernel_size=[8]), "odd kernel_size"
    short = Net()
    add_layer(short, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[1].data.pop()
    yield short.SerializeToString(), "must hold 30 values"
    huge = Net()
    add_layer(huge, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[0].shape.dim[:] = [2**40, 2**40]
    yield huge.SerializeToString(), "must hold"
    negative = Net()
    add_layer(negative, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[0].shape.dim[:] = [-3, -10]
    yield negative.SerializeToString(), "must hold"
    twice = Net()
    for _ in range(2):
        add_layer(twice, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias))
    yield twice.SerializeToString(), "two layers of this name"


def test_every_broken_file_gets_one_line_that_names_it(tmp_path):
    for content, message in list(broken_files(tmp_path)):
        path = written(tmp_path, content)
        with pytest.raises(CheckpointError, match=message) as caught:
            import_checkpoint(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_prototxt_is_named(tmp_path):
    w, mu1, mu2, bias = units()
    path, text = one_layer(tmp_path, (w, mu1, mu2, full(w, 0.5), bias)), tmp_path / "wrong.prototxt"
    for content in (b"layer { name: 3", b"\xff\xfe", b"layer { dau_conv_param { kernel_size: -9 } }"):
        text.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"wrong\.prototxt") as caught:
            import_checkpoint(path, prototxt=text)
        assert "\n" not in str(caught.value)
