"""The files that the documents' examples begin with, small enough to run every example."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import safetensors.torch
import torch
from cifar import cifar10_folder
from idx import write_idx
from imported import Net, add_layer
from logs import write_log
from pictures import class_folders
from torch import nn
from torch.nn.utils import prune
from trees import cityscapes_tree, deblurring_tree, gopro_tree, sbd_tree, segmentation_tree, voc_tree

import daukit
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.factory import build_architecture
from daukit.models.structure import dau_layers
from daukit.preprocessing import Preprocessing

SAMPLE = Path(__file__).parent.parent / "examples" / "fashion-mnist"
SEGMENTED = SAMPLE.with_name("segmentation")
NETWORK = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1, 2))

    def forward(self, x):
        return torch.relu(self.conv2(self.conv1(x)) + self.downsample(x))

def make():
    network = nn.Sequential()
    network.layer4, network.avgpool = nn.Sequential(Block()), nn.AdaptiveAvgPool2d(1)
    return network
"""


def write_example_files(folder: Path, text: str) -> None:
    """Write into ``folder`` whatever ``text`` mentions and does not make itself."""
    makers = {
        "examples/fashion-mnist": _sample, "examples/segmentation": _segmented, "data/canvases": _canvases,
        "DATA": _images, "DIR": _images, "pictures/": _pictures,
        "net.py": _network, "file.py": _network, "net.pt": _state, "pruned.pth": _masked, "resnet.safetensors": _resnet,
        "model.safetensors": _trained, "trained.safetensors": _trained, "untrained.safetensors": _untrained,
        "pruned.safetensors": _trained, "rescaled.safetensors": _rescaled,
        "alexnet.safetensors": _alexnet, "alexnet_dau.safetensors": _alexnet,
        "alexnet_dau.caffemodel": _caffe, "model.ckpt-20000": _tensorflow, "convnext_dcls.pth": _dcls,
        "data/voc": _voc, "data/cityscapes": cityscapes_tree, "data/masks": segmentation_tree,
        "data/street": _street, "street.safetensors": _segmenting, "voc.safetensors": _segmenting,
        "data/gopro": gopro_tree, "data/pairs": deblurring_tree,
        "srn.safetensors": _deblurring, "data/cifar10": cifar10_folder, "data/imagenet": class_folders,
        "trained.jsonl": write_log, "other.jsonl": write_log,
    }  # fmt: skip
    for name, make in makers.items():
        if name in text:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)


def _images(folder: Path) -> None:
    """32 of the bundled images, to learn from and to measure on."""
    images = load_folder(SAMPLE, "test")
    folder.mkdir()
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images.images[:32, 0])
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", images.labels[:32].to(torch.uint8))
    shutil.copy(SAMPLE / "classes.txt", folder)


def _pictures(folder: Path) -> None:
    """Two of the bundled images, as pictures."""
    folder.mkdir()
    for i, image in enumerate(load_folder(SAMPLE, "test").images[:2, 0]):
        PIL.Image.fromarray(image.numpy()).save(folder / f"{i}.png")


def _sample(folder: Path) -> None:
    """The bundled folder, of few images."""
    _images(folder)
    _trained(folder / "shallow_dau.safetensors")
    _untrained(folder / "start.safetensors")


def _segmented(folder: Path) -> None:
    """The bundled networks that segment, and a few of the bundled canvases."""
    _canvases(folder / "canvases-sample")
    for path in SEGMENTED.glob("*.safetensors"):
        shutil.copy(path, folder)


def _canvases(folder: Path) -> None:
    """Four of the bundled canvases, to learn from and to measure on."""
    for split in ("train", "test"):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
            for path in sorted((SEGMENTED / "canvases-sample" / "test" / kind).iterdir())[:4]:
                shutil.copy(path, folder / split / kind)
    shutil.copy(SEGMENTED / "canvases-sample" / "classes.txt", folder)


def _network(path: Path) -> None:
    path.write_text(NETWORK)


def _trained(path: Path) -> None:
    """The bundled network with fewer channels, its displacements not where training starts."""
    model = _shallow()
    for layer in dau_layers(model).values():
        layer.mu.data.normal_(0, 1.5).clamp_(-4, 4)
    record_of(model).preprocessing = load_folder(SAMPLE, "test").preprocessing()
    daukit.save(model, path)


def _rescaled(path: Path) -> None:
    rescaled, _ = daukit.rescale_factors(_shallow(), {"conv2": 2})
    daukit.save(rescaled, path)


def _untrained(path: Path) -> None:
    daukit.save(_shallow(), path)


def _shallow() -> nn.Module:
    torch.manual_seed(0)
    return daukit.create_model("shallow_dau", channels=[8, 8, 16], units=4)


def _alexnet(path: Path) -> None:
    torch.manual_seed(0)
    model = daukit.create_model("alexnet_dau", channels=[4, 6, 6, 6, 6], hidden=8, num_classes=3)
    daukit.save(model, path)


def _voc(folder: Path) -> None:
    sbd_tree(voc_tree(folder) / "benchmark_RELEASE/dataset")


def _street(folder: Path) -> None:
    segmentation_tree(folder, size=(52, 60))


def _segmenting(path: Path) -> None:
    torch.manual_seed(0)
    model = daukit.create_model("alexnet_dau", task="segmentation", channels=[4, 6, 6, 6, 6], hidden=8, num_classes=21)
    daukit.save(model, path, preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, "rgb", (33, 33)))


def _deblurring(path: Path) -> None:
    torch.manual_seed(0)
    model = daukit.create_model("srn_deblur_dau", width=2, blocks=1)
    daukit.save(model, path, preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3, "rgb", (256, 256)))


def _masked(path: Path) -> None:
    """The state dict of a pruned ResNet-50, with its masks."""
    network = daukit.create_model("resnet50")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.9)
    torch.save(network.state_dict(), path)


def _resnet(path: Path) -> None:
    _network(path.with_name("file.py"))
    network = build_architecture({"factory": f"{path.with_name('file.py')}:make", "config": {}})
    safetensors.torch.save_file(network.state_dict(), path)


def _state(path: Path) -> None:
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    torch.save(conv.state_dict(), path)


def _caffe(path: Path) -> None:
    net, draws = Net(name="net"), np.random.default_rng(0)
    w, mu1, mu2 = (
        draws.normal(size=(1, 3, 2, 4)),
        draws.uniform(-3, 3, (1, 3, 2, 4)),
        draws.uniform(-3, 3, (1, 3, 2, 4)),
    )
    add_layer(net, "conv2", "DAUConvolution", (w, mu1, mu2, np.full_like(w, 0.5), np.zeros(4)), kernel_size=[9])
    path.write_bytes(net.SerializeToString())


def _tensorflow(path: Path) -> None:
    data = Path(__file__).parent / "data"
    for suffix in ("index", "data-00000-of-00001"):
        shutil.copy(data / f"dau.ckpt.{suffix}", f"{path}.{suffix}")


def _dcls(path: Path) -> None:
    state = {
        "dw.weight": torch.randn(4, 1, 3),
        "dw.P": torch.empty(2, 4, 1, 3).uniform_(-3, 3),
        "dw.bias": torch.zeros(4),
    }
    torch.save(state, path)
