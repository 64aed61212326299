"""Makes IDX files for tests: the format's definition, written down a second time."""

import gzip
from pathlib import Path

import torch
from torch import Tensor


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor; gzipped where the name ends in .gz."""
    data = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    data += values.numpy().tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def toy_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright bar whose row tells the class (of four): learnable in seconds."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randint(0, 100, (count, 16, 16), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[2 + 3 * label : 4 + 3 * label] += 120
    return images.to(torch.uint8), labels.to(torch.uint8)


def toy_folder(folder: Path, train: int = 96, test: int = 48) -> Path:
    """A folder of IDX files as ``daukit train`` reads it: one set gzipped, one not, and class names."""
    folder.mkdir(exist_ok=True)
    for prefix, suffix, count, seed in (("train", ".gz", train, 0), ("t10k", "", test, 1)):
        images, labels = toy_images(count, seed)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    (folder / "classes.txt").write_text("north\nupper\nlower\nsouth\n")
    return folder
