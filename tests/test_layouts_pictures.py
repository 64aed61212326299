"""Pictures and masks of every kind that Pillow writes come out with their pixels and labels, in every layout."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from laid import LAID, MASKS, PAIRS
from PIL import Image
from trees import bands

from daukit.errors import DataError

SIZE = (12, 14)
CHANCE = np.random.default_rng(0)
COLOURS = CHANCE.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
GREY = CHANCE.integers(0, 256, SIZE, dtype=np.uint8)
OPACITY = CHANCE.integers(0, 256, SIZE, dtype=np.uint8)
PALETTE = CHANCE.integers(0, 256, (256, 3), dtype=np.uint8)

TURNS = {  # by the tag's definition: where the first row and the first column of what is stored are to be shown
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: shown[:, ::-1].swapaxes(0, 1),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: shown[::-1].swapaxes(0, 1),
}


def stacked(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


def with_palette(labels, colours=PALETTE):
    image = Image.fromarray(labels)
    image.putpalette(colours.flatten().tolist())
    return image


# An image, what else it is saved with, and its pixels, (H, W, 3).
KINDS = {
    "colours": (Image.fromarray(COLOURS), {}, COLOURS),
    "grey": (Image.fromarray(GREY), {}, stacked(GREY)),
    "16 bits and grey": (Image.fromarray(GREY.astype(np.uint16) * 257), {}, stacked(GREY)),
    "a palette": (with_palette(GREY), {}, PALETTE[GREY]),
    "a palette of 4 bits": (with_palette(GREY // 16, PALETTE[:16]), {"bits": 4}, PALETTE[GREY // 16]),
    "a transparent palette": (with_palette(GREY), {"transparency": bytes(range(256))}, PALETTE[GREY]),
    "alpha": (Image.fromarray(np.dstack([COLOURS, OPACITY])), {}, COLOURS),
    "grey and alpha": (Image.fromarray(np.dstack([GREY, OPACITY])), {}, stacked(GREY)),
    "two levels": (Image.fromarray(GREY > 127), {}, stacked(np.where(GREY > 127, 255, 0))),
}


def save(image, path, **more):
    """As PNG, whatever the name ends in."""
    image.save(path, format="PNG", **more)


def turned(array, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(TURNS[orientation](array))), {"exif": exif}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_picture_of_any_kind_has_its_pixels(tmp_path, name, kind):
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    image, more, pixels = KINDS[kind]
    save(image, folder / laid.picture, **more)
    data = laid.open(folder)
    index = [picture for picture, _ in data.pairs].index(folder / laid.picture)
    pixels = torch.from_numpy(np.array(pixels, dtype=np.uint8)).permute(2, 0, 1)
    assert torch.equal(data.batch(slice(index, index + 1)).images[0], pixels)
    if laid.task == "deblurring":
        save(image, folder / laid.target, **more)
        assert torch.equal(data.batch(slice(index, index + 1)).targets[0], pixels)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", PAIRS)
def test_what_exif_turns_is_upright_picture_and_target_alike(tmp_path, name, orientation):
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    image, more = turned(COLOURS, orientation)
    save(image, folder / laid.picture, **more)
    data = laid.open(folder)
    index = [picture for picture, _ in data.pairs].index(folder / laid.picture)
    target = data.batch(slice(index, index + 1)).targets[0]
    assert torch.equal(data.batch(slice(index, index + 1)).images[0], torch.from_numpy(COLOURS).permute(2, 0, 1))
    if name != "sbd":
        stored = np.array(Image.open(folder / laid.target))
        image, more = turned(stored, orientation)
        save(image, folder / laid.target, **more)
        assert torch.equal(data.batch(slice(index, index + 1)).targets[0], target)


def png(values, bits):
    """A grey PNG of bits that Pillow does not write: the format, written down once more."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = [[int(value) for value in row] for row in values]
    packed = []
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        packed.append(b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(packed))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


LABELS = bands(SIZE).astype(np.uint8)
FEW = np.clip(LABELS, 0, 2)
NO_MASKS = {
    "colours": (lambda path: save(Image.fromarray(stacked(LABELS)), path), "is a PNG of mode RGB"),
    "alpha": (lambda path: save(Image.fromarray(np.dstack([LABELS, OPACITY])), path), "is a PNG of mode LA"),
    "16 bits": (lambda path: path.write_bytes(png(LABELS, 16)), "is a PNG of mode I;16"),
    "4 bits": (lambda path: path.write_bytes(png(FEW, 4)), "is a PNG of mode L and 4 bits"),
    "2 bits": (lambda path: path.write_bytes(png(FEW, 2)), "is a PNG of mode L and 2 bits"),
    "1 bit": (lambda path: path.write_bytes(png(FEW > 0, 1)), "is a PNG of mode 1"),
    "a JPEG file": (lambda path: Image.fromarray(LABELS).save(path, format="JPEG"), "is a JPEG of mode L"),
}


@pytest.mark.parametrize("kind", NO_MASKS)
@pytest.mark.parametrize("name", [name for name in MASKS if name != "sbd"])
def test_what_does_not_hold_labels_is_no_mask(tmp_path, name, kind):
    laid, folder = LAID[name], LAID[name].make(tmp_path / "data")
    write, said = NO_MASKS[kind]
    write(folder / laid.target)
    with pytest.raises(DataError) as error:
        laid.open(folder).batch(slice(1))
    rule = "and masks are PNG files, grey with 8 bits or with a palette; convert it"
    assert str(error.value) == f"{folder / laid.target}: {said}, {rule}"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_places_in_a_palette_of_any_bits_are_labels(tmp_path, bits):
    laid, folder = LAID["masks"], LAID["masks"].make(tmp_path)
    labels = np.minimum(FEW, 2**bits - 1)
    save(with_palette(labels, PALETTE[: 2**bits]), folder / laid.target, bits=bits)
    assert torch.equal(laid.open(folder).batch(slice(1)).targets[0], torch.from_numpy(labels))


def test_png_writes_what_pillow_reads():
    values = np.arange(12).reshape(3, 4)
    for bits, scale in ((4, 17), (8, 1), (16, 1)):
        assert np.array_equal(np.array(Image.open(io.BytesIO(png(values, bits)))), values * scale)
