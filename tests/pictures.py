"""Makes folders of pictures by class for tests."""

import numpy as np
from PIL import Image

CLASSES = ("apple", "brick", "cloud")


def scene(seed, width, height):
    """A picture of smooth colours and some noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin((x + k * y + 7 * seed) / 9) + generator.normal(0, 4, x.shape) for k in range(3)]
    return Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))


def class_folders(folder, train=3, val=2):
    """``train/CLASS`` and ``val/CLASS`` with pictures of different sizes, JPEG and PNG."""
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                suffix = ("JPEG", "png", "jpg")[number % 3]
                picture = scene(10 * label + number, 30 + 9 * number, 40 - 5 * label)
                picture.save(folder / part / name / f"{part}_{number}.{suffix}")
    return folder


def flat_val(folder):
    """``class_folders`` with all of val in one folder, and the two lists that say their classes."""
    pictures = sorted((folder / "val").glob("*/*"))
    order = [3, 0, 5, 1, 4, 2]  # of names as files are numbered, and not by class
    devkit = ["cloud", "apple", "brick"]
    numbers = []
    for number, place in enumerate(order, start=1):
        path = pictures[place]
        numbers.append(devkit.index(path.parent.name) + 1)
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08}{path.suffix}")
    for name in CLASSES:
        (folder / "val" / name).rmdir()
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in numbers))
    (folder / "ILSVRC2012_synsets.txt").write_text("".join(f"{name}\n" for name in devkit))
    return [CLASSES.index(devkit[number - 1]) for number in numbers]
