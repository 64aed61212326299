"""The network whose files are broken, and a reader of its state dicts."""

import torch

import daukit

CONFIG = {"channels": [2, 3], "units": 2, "num_classes": 3, "input_size": [8, 8]}


def network():
    torch.manual_seed(0)
    return daukit.create_model("shallow_dau", **CONFIG).eval()


def load_plain(path):
    return daukit.load(path, model="shallow_dau", config=CONFIG)
