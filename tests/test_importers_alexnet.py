"""Caffe's DAU-AlexNet becomes the network itself, with what Caffe does to its images."""

import numpy as np
import pytest
import torch
from imported import Net, add_layer, full, units, written
from torch.nn import functional as F

import daukit
from daukit.importers import import_checkpoint
from daukit.models import record_of
from daukit.ops import dau_conv2d
from daukit.preprocessing import Preprocessing


def alexnet(folder, skew=None, **transform):
    """A narrow DAU-AlexNet for images of 67 x 67, and its arrays."""
    net, random = Net(name="AlexNet"), np.random.default_rng(0)
    if transform:
        data = net.layer.add(name="data", type="Data")
        data.transform_param.MergeFrom(type(data.transform_param)(**transform))
    channels, arrays = (4, 6, 5, 7, 3), {}

    def plain(name, kind, *shape):
        arrays[name] = [0.2 * random.standard_normal(s).astype(np.float32) for s in (shape, shape[:1])]
        add_layer(net, name, kind, arrays[name])

    plain("conv1", "Convolution", 4, 3, 11, 11)
    for i, count in enumerate((4, 2, 2, 2)):
        inputs = channels[i] + (skew == f"conv{i + 2}")
        w, mu1, mu2, bias = units(i, inputs, count, channels[i + 1])
        arrays[f"conv{i + 2}"] = [w, mu1, mu2, full(w, 0.5), bias]
        add_layer(net, f"conv{i + 2}", "DAUConvolution", arrays[f"conv{i + 2}"], kernel_size=[9], pad=[4])
    plain("fc6", "InnerProduct", 8, 3)
    plain("fc7", "InnerProduct", 8, 8)
    plain("fc8", "InnerProduct", 10, 8)
    return written(folder, net), arrays


def caffes_alexnet(arrays, x):
    """The network layer by layer, with torch's functions and Caffe's arrays."""
    tensors = {name: [torch.tensor(a) for a in values] for name, values in arrays.items()}

    def dau(name, x):
        w, mu1, mu2, _, bias = tensors[name]
        w, mu1, mu2 = (a[0].permute(2, 0, 1) for a in (w, mu1, mu2))
        return F.relu(dau_conv2d(x, w, torch.stack([mu2, mu1]), bias, sigma=0.5))

    x = F.relu(F.conv2d(x, *tensors["conv1"], stride=4))
    x = F.max_pool2d(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2)
    x = F.max_pool2d(F.local_response_norm(dau("conv2", x), 5, 1e-4, 0.75, 1.0), 3, 2)
    x = F.max_pool2d(dau("conv5", dau("conv4", dau("conv3", x))), 3, 2).flatten(1)
    x = F.relu(F.linear(F.relu(F.linear(x, *tensors["fc6"])), *tensors["fc7"]))
    return F.linear(x, *tensors["fc8"])


def test_alexnet_becomes_the_network_with_caffes_preprocessing(tmp_path):
    path, arrays = alexnet(tmp_path, crop_size=67, mean_value=[103.5, 116.5, 123.5], mirror=True)
    checkpoint = import_checkpoint(path)
    assert checkpoint.header.architecture["name"] == "alexnet_dau"
    assert checkpoint.header.architecture["config"]["size"] == "medium"
    out = tmp_path / "alexnet.safetensors"
    daukit.write(checkpoint, out)
    network = daukit.load(out)
    x = 50 * torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    expected = caffes_alexnet(arrays, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert record_of(network).preprocessing == Preprocessing(
        (103.5, 116.5, 123.5), (1.0, 1.0, 1.0), "bgr", (67, 67), (0.0, 255.0)
    )


def test_an_image_mean_in_another_file_is_replaced_by_the_usual_one_and_said(tmp_path):
    path, _ = alexnet(tmp_path, crop_size=67, mean_file="mean.binaryproto")
    checkpoint = import_checkpoint(path)
    mean, plain = (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)
    assert checkpoint.header.preprocessing == Preprocessing(mean, plain, "bgr", (67, 67), (0.0, 255.0))
    assert "mean is not in the file" in checkpoint.header.history[-1]["arguments"]["notes"][-1]


@pytest.mark.parametrize("change", [{"skew": "conv4", "crop_size": 67}, {"crop_size": 227}, {"crop_size": 20}])
def test_layers_that_do_not_make_an_alexnet_stay_layers(tmp_path, change):
    checkpoint = import_checkpoint(alexnet(tmp_path, **change)[0])
    assert checkpoint.header.architecture == {"imported": "caffe"}
    assert checkpoint.layer_names == ["conv2", "conv3", "conv4", "conv5"] and "fc6.weight" in checkpoint.tensors


def test_importing_leaves_the_random_state_alone(tmp_path):
    path, _ = alexnet(tmp_path, crop_size=67)
    state = torch.get_rng_state()
    import_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
