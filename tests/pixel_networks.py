"""Small networks that segment and deblur, in files, with the folders that go with them."""

import torch
from trees import deblurring_tree, segmentation_tree

import daukit
from daukit.pictures import pixels_of, read_picture
from daukit.preprocessing import Preprocessing

COLOURS = Preprocessing((0.5, 0.4, 0.3), (0.25, 0.3, 0.35), "rgb", (33, 33))


def saved(path, name, *, double=False, **options):
    """A network that says something else where a unit goes."""
    torch.manual_seed(1)
    network = daukit.create_model(name, **options)
    torch.manual_seed(1)  # whatever the network drew
    for each, parameter in network.named_parameters():
        if each.endswith("weight") and parameter.dim() > 1:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        elif each.endswith("bias"):
            parameter.data.normal_(0, 0.1)
    daukit.save(network.double() if double else network, path / f"{name}.safetensors", preprocessing=COLOURS)
    return path / f"{name}.safetensors"


def segmenting(path, **how):
    return saved(path, "alexnet_dau", task="segmentation", channels=[4, 6, 6, 6, 6], hidden=8, num_classes=3, **how)


def deblurring(path):
    return saved(path, "srn_deblur_dau", width=2, blocks=1, scales=1)


KINDS = {"mean_iou": (segmenting, segmentation_tree, (35, 41)), "psnr": (deblurring, deblurring_tree, (20, 26))}
"""By the figure that networks are compared by: a network, a tree, and a size of pictures."""


def normalized(path):
    """A picture as the networks take it."""
    return COLOURS.normalize(pixels_of(read_picture(path, "rgb"), "rgb")[None])
