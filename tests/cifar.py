"""Makes CIFAR's binary files for tests: the format's definition, written down a second time."""

import torch

COARSE, FINE = 20, 100


def colours(count, seed):
    """Noise with a bright bar whose row tells the class, of ten: (N, 3, 32, 32) and (N,), uint8."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    images = torch.randint(0, 100, (count, 3, 32, 32), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 * label : 3 * label + 3] += 120
    return images.to(torch.uint8), labels.to(torch.uint8)


def record(image, *labels):
    """The bytes of one image: its labels, then red, green and blue, of each row by row."""
    planes = (value for plane in image.tolist() for row in plane for value in row)
    return bytes([*labels, *planes])


def cifar10_folder(folder, batch=8, test=20):
    """A folder of CIFAR-10, the pixels of which are ``colours``."""
    folder.mkdir()
    images, labels = colours(5 * batch, 0)
    records = [record(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    for number in range(5):
        part = records[number * batch : (number + 1) * batch]
        (folder / f"data_batch_{number + 1}.bin").write_bytes(b"".join(part))
    images, labels = colours(test, 1)
    records = [record(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    (folder / "test_batch.bin").write_bytes(b"".join(records))
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    return folder


def cifar100_folder(folder, train=30, test=10):
    """A folder of CIFAR-100 with pixels of ``colours``; an image's fine label is ten times its bar's place."""
    folder.mkdir()
    for name, count, seed in (("train", train, 0), ("test", test, 1)):
        images, labels = colours(count, seed)
        pairs = zip(images, labels.tolist(), strict=True)
        (folder / f"{name}.bin").write_bytes(b"".join(record(image, 19, 10 * label) for image, label in pairs))
    (folder / "fine_label_names.txt").write_text("".join(f"fine{number}\n" for number in range(FINE)))
    (folder / "coarse_label_names.txt").write_text("".join(f"coarse{number}\n" for number in range(COARSE)))
    return folder
