"""Every network of daukit can learn, at each of its tasks: two images by heart, in steps as a training does them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import daukit
from daukit.datasets import Batch
from daukit.models import MODELS
from daukit.preprocessing import Preprocessing
from daukit.tasks import Classification, Deblurring, Segmentation
from daukit.training import TrainingOptions, make_optimizer
from daukit.training.stepping import learn

SMALL = {
    "alexnet": {"channels": [8] * 5, "hidden": 16},
    "resnet": {"width": 4, "depths": [1, 1, 1, 1]},
    "shallow": {"channels": [4, 4, 8]},
    "cifar10": {},
    "deeplabv3plus": {"width": 4, "depths": [1, 1, 1, 1], "features": 8},
    "srn_deblur": {"width": 4, "blocks": 1, "scales": 2},
}
SIZES = {"alexnet": 67, "shallow": 16, "cifar10": 24, "srn_deblur": 16}
ONE_TASK = {"deeplabv3plus": "segmentation", "srn_deblur": "deblurring"}


def family(name):
    return next(key for key in SMALL if name.startswith(key))


def tasks(name):
    more = ["segmentation"] if family(name) in ("alexnet", "resnet") else []
    return [ONE_TASK[family(name)]] if family(name) in ONE_TASK else ["classification", *more]


def two_images(task, size, channels):
    """Two images that differ much, and what a network should make of each."""
    generator = torch.Generator().manual_seed(0)
    bands = (torch.arange(size) * 3 // size).expand(2, size, size).clone()
    bands[1] = bands[1].T.clone()
    images = (100 * bands + torch.randint(50, bands.shape, generator=generator)).to(torch.uint8)[:, None]
    images = images.repeat(1, channels, 1, 1)
    if task == "classification":
        return Batch(images, torch.tensor([0, 1]))
    if task == "segmentation":
        return Batch(images, bands.to(torch.uint8))
    sharp = (255 * (torch.arange(size) // 4 % 2)).repeat(2, 1, size, 1)
    sharp[1] = sharp[1].mT.clone()
    blurred = F.avg_pool2d(F.pad(sharp.float(), (2, 2, 2, 2), mode="replicate"), 5, 1)
    return Batch(blurred.to(torch.uint8), sharp.to(torch.uint8))


def new(name, task, size):
    config = dict(SMALL[family(name)])
    if family(name) != "cifar10":
        config["in_channels"] = 1
    if task != "deblurring":
        config["num_classes"] = 3
    if task == "segmentation" and family(name) not in ONE_TASK:
        config["task"] = task
    if family(name) in ("shallow", "alexnet") and task == "classification":
        config["input_size"] = [size, size]
    torch.manual_seed(0)
    model = daukit.create_model(name, **config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # whoever forgets half cannot know by heart
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [(name, task) for name in sorted(MODELS) for task in tasks(name)])
def test_two_images_are_learnt_by_heart(name, task):
    size = SIZES.get(family(name), 33)
    channels = 3 if family(name) == "cifar10" else 1
    seen = Preprocessing((0.4,) * channels, (0.3,) * channels, "rgb" if channels == 3 else "gray", (size, size))
    kind = {"classification": Classification, "segmentation": Segmentation, "deblurring": Deblurring}[task]
    model, batch, task_of_it = new(name, task, size), two_images(task, size, channels), kind(seen)
    options = TrainingOptions(optimizer="adam", lr=0.01, mu_lr=0.02)
    optimizer = make_optimizer(model, options)
    before = task_of_it.loss(model, batch).item()
    for _ in range(150):
        loss = learn(model, task_of_it, optimizer, batch, options).item()
    assert loss < 0.05 * before
