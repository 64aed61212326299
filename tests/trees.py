"""Makes folders of pictures with targets, as people have them."""

import numpy as np
from PIL import Image


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
