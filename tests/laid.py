"""One small tree of each layout, and where its first training picture and that one's target lie."""

from collections.abc import Callable
from dataclasses import dataclass

from cifar import cifar10_folder, cifar100_folder
from idx import toy_folder
from pictures import class_folders
from trees import cityscapes_tree, deblurring_tree, gopro_tree, sbd_tree, segmentation_tree, voc_tree

from daukit.datasets import open_dataset

YEAR = "VOCdevkit/VOC2012"
CITY = "aachen/aachen_000000_000000"


@dataclass(frozen=True)
class Laid:
    """A tree: its task and layout, how it is made, and files of its training part."""

    task: str
    layout: str
    make: Callable
    picture: str
    target: str | None = None

    def open(self, folder, split="train"):
        return open_dataset(folder, split, self.layout, task=self.task)


def with_sbd(folder):
    voc_tree(folder)
    sbd_tree(folder / "SBD")
    (folder / YEAR / "ImageSets/Segmentation/train.txt").write_text("a\n")
    return folder


LAID = {
    "idx": Laid("classification", "idx", toy_folder, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "cifar10": Laid("classification", "cifar10", cifar10_folder, "data_batch_1.bin"),
    "cifar100": Laid("classification", "cifar100", cifar100_folder, "train.bin"),
    "imagenet": Laid("classification", "imagenet", class_folders, "train/apple/train_0.JPEG"),
    "masks": Laid("segmentation", "masks", segmentation_tree, "train/images/a.png", "train/masks/a.png"),
    "voc": Laid(
        "segmentation", "voc", voc_tree, f"{YEAR}/JPEGImages/a.jpg", f"{YEAR}/SegmentationClass/a.png"
    ),
    "sbd": Laid("segmentation", "voc", with_sbd, "SBD/img/b.jpg", "SBD/cls/b.mat"),
    "cityscapes": Laid(
        "segmentation", "cityscapes", cityscapes_tree,
        f"leftImg8bit/train/{CITY}_leftImg8bit.png", f"gtFine/train/{CITY}_gtFine_labelIds.png",
    ),
    "blurred": Laid("deblurring", "blurred", deblurring_tree, "train/blurred/a.png", "train/sharp/a.png"),
    "gopro": Laid(
        "deblurring", "gopro", gopro_tree, "train/GOPR01/blur/000000.png", "train/GOPR01/sharp/000000.png"
    ),
    "gopro-gamma": Laid(
        "deblurring", "gopro-gamma", gopro_tree,
        "train/GOPR01/blur_gamma/000000.png", "train/GOPR01/sharp/000000.png",
    ),
}  # fmt: skip
PAIRS = tuple(name for name in LAID if LAID[name].task != "classification")
MASKS = tuple(name for name in LAID if LAID[name].task == "segmentation")
PICTURES = ("imagenet", *PAIRS)
