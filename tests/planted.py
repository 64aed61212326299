"""Files whose units are where the test put them."""

import torch

from daukit.checkpoint import Checkpoint, Header


def a_layer(name="conv", units=1, **description):
    """What a header says of one channel pair's layer."""
    return {
        "name": name, "type": "DAUConv2d", "form": "bilinear", "in_channels": 1, "out_channels": 1, "groups": 1,
        "units": units, "stride": [1, 1], "dilation": [1, 1], "max_displacement": 4.0, "sigma": 0.5,
        "learn_sigma": False, "window": None, "bias": False, "mu_gradient": "gaussian", "ragged": False,
        "initialization": {"name": "uniform", "low": -1.5, "high": 1.5}, **description,
    }  # fmt: skip


def a_file(layers):
    """A file's content: {layer: {"weight": (units,), "mu": (2, units) as (y, x), and its words}}."""
    described, tensors = [], {}
    for name, given in layers.items():
        words = dict(given)
        weight = torch.as_tensor(words.pop("weight")).float()
        tensors[f"{name}.weight"] = weight.reshape(1, 1, -1)
        tensors[f"{name}.mu"] = torch.as_tensor(words.pop("mu")).float().reshape(2, 1, 1, -1)
        if "sigmas" in words:
            tensors[f"{name}.sigma"] = torch.as_tensor(words.pop("sigmas")).float()
            words.setdefault("sigma", None)
        described.append(a_layer(name, weight.numel(), **words))
    return Checkpoint(Header({"name": "shallow_dau", "config": {}}, layers=described), tensors)


def one_layer(weight, mu, **words):
    """A file with one layer, called ``conv``."""
    return a_file({"conv": {"weight": weight, "mu": mu, **words}})
