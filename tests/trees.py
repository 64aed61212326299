"""Makes folders of pictures with targets, as people have them."""

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path, size=(12, 14), seed=0, mode="RGB"):
    """Noise of (height, width) ``size``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def mask(path, labels, palette=True):
    """A PNG of labels, which become places in a palette, or grey levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, dtype=np.uint8))
    if palette:
        image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)


def bands(size=(12, 14), classes=3):
    """Labels in rows, with a border that has none."""
    labels = np.repeat(np.arange(size[0])[:, None] * classes // size[0], size[1], axis=1)
    labels[0, :2] = 255
    return labels


def segmentation_tree(folder, size=(12, 14), test="val"):
    """Two pictures to learn from and one to measure on, of three classes."""
    for split, names in (("train", "ab"), (test, "c")):
        for i, name in enumerate(names):
            picture(folder / split / "images" / f"{name}.png", size, seed=i)
            mask(folder / split / "masks" / f"{name}.png", bands(size), palette=i == 0)
    (folder / "classes.txt").write_text("sky\nwall\nroad\n")
    return folder


def voc_tree(folder, size=(12, 14), year="VOCdevkit/VOC2012"):
    """Two pictures to learn from, a and b, and three to measure on, c, d and e; x is in neither list."""
    year = folder / year
    for i, name in enumerate("abcdex"):
        picture(year / f"JPEGImages/{name}.jpg", size, seed=i)
        if name != "x":
            mask(year / f"SegmentationClass/{name}.png", bands(size, classes=i + 2))
    names_in(year / "ImageSets/Segmentation/train.txt", "ab")
    names_in(year / "ImageSets/Segmentation/val.txt", "cde")
    names_in(year / "ImageSets/Segmentation/trainval.txt", "abcde")
    return folder


def sbd_tree(folder, size=(12, 14)):
    """Some of ``voc_tree``'s pictures and others: b, d and f in the list to learn from, c and g in the other one."""
    for i, name in enumerate("bdfcg"):
        picture(folder / f"img/{name}.jpg", size, seed=10 + i)
        sbd_mask(folder / f"cls/{name}.mat", bands(size, classes=i + 10))
    names_in(folder / "train.txt", "bdf")
    names_in(folder / "val.txt", "cg")
    return folder


def sbd_mask(path, labels):
    """A MATLAB file as SBD's: one struct, with the borders of each class and the labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.asarray(labels, dtype=np.uint8)
    content = {"Boundaries": np.empty((20, 1), object), "Segmentation": labels, "CategoriesPresent": np.unique(labels)}
    content["Boundaries"][:] = [[np.zeros((2, 2))]] * 20
    savemat(path, {"GTcls": content}, do_compression=True)


def names_in(path, names):
    """A list with a name a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def cityscapes_tree(folder, size=(12, 14)):
    """Two cities to learn from, with two pictures and one, and one to measure on, with one; all ids are there."""
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 1), ("val", "lindau", 1)):
        for frame in range(count):
            name = f"{split}/{city}/{city}_000000_{frame:06}"
            picture(folder / f"leftImg8bit/{name}_leftImg8bit.png", size, seed=frame + len(city))
            ids = np.arange(size[0] * size[1]).reshape(size) % 34
            mask(folder / f"gtFine/{name}_gtFine_labelIds.png", ids, palette=False)
            mask(folder / f"gtFine/{name}_gtFine_instanceIds.png", ids, palette=False)
            (folder / f"gtFine/{name}_gtFine_polygons.json").write_text("{}")
    return folder


def deblurring_tree(folder, size=(12, 14)):
    """Two pairs to learn from and one to measure on."""
    for split, names in (("train", "ab"), ("test", "c")):
        for i, name in enumerate(names):
            picture(folder / split / "blurred" / f"{name}.png", size, seed=2 * i)
            picture(folder / split / "sharp" / f"{name}.png", size, seed=2 * i + 1)
    return folder


def gopro_tree(folder, size=(12, 14)):
    """Two sequences to learn from and one to measure on, of two frames each."""
    for split, names in (("train", ("GOPR01", "GOPR02")), ("test", ("GOPR03",))):
        for name in names:
            for kind, seed in (("blur", 0), ("blur_gamma", 10), ("sharp", 20)):
                for frame in range(2):
                    picture(folder / split / name / kind / f"{frame:06}.png", size, seed=seed + frame)
    return folder
