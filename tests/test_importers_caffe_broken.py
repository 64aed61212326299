"""Caffe's files cut short, hostile or of another layout: each gets one line that names it."""

import math
import random

import numpy as np
import pytest
from imported import Net, add_layer, chunk, full, layer_of, one_layer, units, varint, written
from mutators import caffemodel

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
    yield chunk(2, chunk(4, b"old")), "has 1 layers of Caffe's V1 format; upgrade it"
    yield good + chunk(2, chunk(4, b"old")) * 2, "has 2 layers of Caffe's V1 format, beside 1 newer ones"
    yield layer(w, mu1, mu2, bias_term=False), "3 blobs"
    yield layer(w, mu1, mu2, sigma), "say that it has a bias"
    yield layer(w, mu1[:, :2], mu2, sigma, bias), "must all have one shape"
    yield layer(w[0], mu1[0], mu2[0], sigma[0], bias), "must all have one shape"
    yield layer(w, mu1, mu2, sigma[:, :2], bias), "sigma .* is not like weights"
    yield layer(w, mu1, mu2, sigma, bias[:3]), "3 biases for 5 outputs"
    yield layer(w, mu1, mu2, full(w, math.nan), bias), "sigma is nan"
    yield layer(w, mu1, mu2, full(w, 1e9), bias), "sigma is 1e"
    four, legacy = full(w, 4), {"kind": "GaussianConv", "kernel_size": [9]}
    for value in (0.0, -0.5):
        yield layer(w, mu1, mu2, full(w, value), bias), f"'conv2': sigma is {value:g} .* must be above 0"
        yield layer(w, four, four, np.where(w > 0, sigma, value), bias, bias, **legacy), "must be above 0"
    yield layer(w, four, four, np.where(w > 0, sigma, 1e9), bias, bias, **legacy), "sigma is 1e"
    corner = {"kernel_size": [9], "use_already_centered_offsets": False}
    for x in (-1.0, -50.0, 9.0, 1e6):
        wrong, message = np.where(mu1 == mu1.max(), x, 4), "'conv2': displacements from .* do not count from the corner"
        yield layer(w, wrong, four, sigma, bias, **corner), message
        yield layer(w, four, wrong, sigma, bias, bias, **legacy), message
    for side in (0, 2**31, 2**32 - 1):
        yield layer(w, mu1, mu2, sigma, bias, kernel_size=[side]), "its window must be 1 to 1023 pixels"
    yield layer(w, mu1, mu2, sigma, bias, number_units=[2**32 - 1] * 2), "number of units"
    yield layer(w, mu1, mu2, sigma, bias, number_units=[2] * 1000), "number of units"
    yield layer(nan, mu1, mu2, sigma, bias), "NaN or infinite"
    yield layer(w, mu1, mu2, sigma, bias, number_units=[3, 2]), "2 units are stored, where its parameters say 6"
    yield layer(w, mu1, mu2, sigma, bias, stride=[2]), "stride"
    yield layer(w, mu1, mu2, sigma, bias, kernel_size=[9, 7]), "must be one number"
    yield layer(w, mu1, mu2, sigma, bias, kernel_size=[3], component_border_bound=2.0), "leaves nothing"
    yield layer(w, mu1, mu2, sigma, bias, use_already_centered_offsets=False), "need kernel_size"
    yield layer(w, four, four, sigma, bias, bias, kind="GaussianConv", kernel_size=[8]), "odd kernel_size"
    short = Net()
    add_layer(short, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[1].data.pop()
    yield short.SerializeToString(), "must hold 30 values"
    huge = Net()
    add_layer(huge, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[0].shape.dim[:] = [2**40, 2**40]
    yield huge.SerializeToString(), "no tensor has the sizes"
    huge.layer[0].blobs[0].shape.dim[:] = [2**40] * 100_000
    yield huge.SerializeToString(), "a blob: 100000 dimensions"
    negative = Net()
    add_layer(negative, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias)).blobs[0].shape.dim[:] = [-3, -10]
    yield negative.SerializeToString(), "no tensor has the sizes"
    yield good.replace(b"\x0a\x05conv2", b"\x0a\x05con\xff2"), "its name is not UTF-8"
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
    for content in (
        b"layer { name: 3",
        b"\xff\xfe",
        "name: 'x'".encode("utf-16"),
        "layer { name: '\u5377\u79ef' }".encode("gbk"),
        b"layer { dau_conv_param { kernel_size: -9 } }",
        b"layer {" * 5000,
        b"layer { dau_conv_param { kernel_size: " + b"9" * 5000 + b" } }",
        b"layers { name: 'conv2' }",
    ):
        text.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"wrong\.prototxt") as caught:
            import_checkpoint(path, prototxt=text)
        assert "\n" not in str(caught.value)


COMMENTS = [
    b"# \xbe\xed\xbb\xfd \xd6\xd0\x5c",  # GBK, whose last byte here is a backslash
    "# gr\u00f6\u00dfer".encode("latin-1"),
    b"# it's \"half a string",
    "# \u5377\u79ef".encode(),
    b"",
]


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_prototxt_may_have_comments_in_any_encoding(tmp_path, comment, start):
    w, mu1, mu2, bias = units()
    path = one_layer(tmp_path, (w, mu1 + 4, mu2 + 4, full(w, 0.5), bias))
    path.with_suffix(".prototxt").write_bytes(
        start + comment + b"\nname: 'a # b' " + comment + b"\n" + b"layer { name: \"conv2\" type: 'it\\'s # \\\"' "
        b"dau_conv_param { kernel_size: 9 use_already_centered_offsets: false } }" + comment
    )
    checkpoint = import_checkpoint(path)
    assert checkpoint.header.layers[0]["max_displacement"] == 4
    assert "notes" not in checkpoint.header.history[-1]["arguments"]


def notes_of(path, **options):
    return import_checkpoint(path, **options).header.history[-1]["arguments"].get("notes", [])


def test_every_changed_value_is_said(tmp_path):
    w, mu1, mu2, bias = units(reach=1)
    centred = {"kernel_size": [9], "use_already_centered_offsets": True}
    sigma = full(w, 0.5)
    assert notes_of(one_layer(tmp_path, (w, mu1, mu2, sigma, bias), **centred)) == []
    low = one_layer(tmp_path, (w, mu1, mu2, full(w, 0.05), bias), **centred)
    [note] = notes_of(low)
    assert note == "conv2: 1 of 1 sigmas lay below sigma_lower_bound 0.1 and were raised to it, as Caffe does"
    assert import_checkpoint(low).header.layers[0]["sigma"] == 0.1
    odd = sigma.copy()
    odd.flat[3] = 0.7
    [note] = notes_of(one_layer(tmp_path, (w, mu1, mu2, odd, bias), **centred))
    assert "the first counts for all" in note
    far = mu1.copy()
    far.flat[:2] = 4.5, -7
    [note] = notes_of(one_layer(tmp_path, (w, far, mu2, sigma, bias), **centred))
    assert note == "conv2: 2 of 30 units lay beyond the limit and were clipped to it, as the source does"
    edge = mu1 + 4
    edge.flat[0] = -0.25  # the last step of training, which nothing clipped any more
    path = one_layer(tmp_path, (w, edge, mu2 + 4, sigma, bias), kernel_size=[9], use_already_centered_offsets=False)
    [note] = notes_of(path)
    assert "1 of 30 units lay beyond the limit" in note
    net = Net()
    layer = add_layer(net, "conv2", "DAUConvolution", (w, mu1, mu2, sigma, bias), **centred)
    layer.blobs[0].ClearField("data")
    layer.blobs[0].double_data.extend((w.astype(float) + 1e-12).flatten().tolist())
    assert notes_of(written(tmp_path, net)) == ["conv2: stored in double precision, rounded to single"]


@pytest.mark.parametrize("transform", [{"crop_size": 2**31}, {"scale": 1e-45}, {"mean_value": [math.nan, 1, 2]}])
def test_preprocessing_that_cannot_be_meant_is_refused(tmp_path, transform):
    net, (w, mu1, mu2, bias) = Net(), units()
    add_layer(net, "conv2", "DAUConvolution", (w, mu1, mu2, full(w, 0.5), bias))
    told = net.layer[0].transform_param
    told.MergeFrom(type(told)(**{"crop_size": 8, "mean_value": [1, 2, 3]} | transform))
    with pytest.raises(CheckpointError, match="transform_param cannot be meant: "):
        import_checkpoint(written(tmp_path, net))


def test_mutants_of_caffemodels_are_refused_in_one_line_or_read(tmp_path):
    net, (w, mu1, mu2, bias) = Net(), units(reach=2)
    add_layer(net, "a", "DAUConvolution", (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9], number_units=[2, 1])
    legacy = (w, mu1 + 3, mu2 + 3, full(w, 0.5), np.zeros((1, 1, 5, 3)), bias)
    add_layer(net, "b", "GaussianConv", legacy, kernel_size=[7], number_gauss=[2, 1])
    add_layer(net, "fc", "InnerProduct", (np.ones((2, 3)), np.ones(2)))
    good, accepted = net.SerializeToString(), 0
    for number in range(100):
        path = written(tmp_path, caffemodel(good, random.Random(number)))
        try:
            checkpoint = import_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        accepted += 1
        for name in checkpoint.layer_names:
            assert layer_of(checkpoint, name).weight.isfinite().all()
    assert 20 < accepted < 90
