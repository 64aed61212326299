"""Pictures of a folder: their grey levels and colours, whatever way the file keeps them, and what is no picture."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from daukit.erf.images import load_pictures
from daukit.errors import DataError

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (6, 5), dtype=np.uint8)
COLOR = GENERATOR.integers(0, 256, (6, 5, 3), dtype=np.uint8)
TURNS = {1: lambda x: x, 3: lambda x: x.flip(1, 2), 6: lambda x: x.rot90(-1, (1, 2)), 8: lambda x: x.rot90(1, (1, 2))}


def read(folder, order="gray", size=(6, 5)):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_pictures(folder, 9, size, order, 0)


@pytest.mark.parametrize("turn", TURNS)
def test_16_bits_give_the_same_grey_levels_as_8(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    size = (6, 5) if turn in (1, 3) else (5, 6)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "16.png", exif=exif)
    assert torch.equal(read(tmp_path, size=size)[0], TURNS[turn](torch.from_numpy(GREY)[None]))


def test_levels_between_those_of_8_bits_go_to_the_nearest(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "16.png")
    expected = (torch.from_numpy(levels.astype(np.float64)) / 257).round()
    assert torch.equal(read(tmp_path, size=(256, 256))[0, 0].double(), expected)


@pytest.mark.parametrize("order", ["gray", "rgb", "bgr"])
@pytest.mark.parametrize("mode", ["P", "RGBA", "PA", "P with bytes", "P with index"])
def test_transparent_pictures_give_their_colours(tmp_path, order, mode):
    opaque = Image.fromarray(COLOR).quantize(16)
    opaque.convert("RGB").save(tmp_path / "a.png")
    expected = read(tmp_path, order)
    options = {"P with bytes": {"transparency": bytes(range(0, 160, 10))}, "P with index": {"transparency": 3}}
    image = opaque.convert("RGBA") if mode == "RGBA" else opaque
    if mode == "RGBA":
        image.putalpha(Image.fromarray(GREY))
    image.save(tmp_path / "a.png", **options.get(mode, {}))
    assert (read(tmp_path, order).float() - expected.float()).abs().max() <= 1  # luminance rounds once more


def write_png(path, depth, color, rows):
    """A PNG file by its specification: Pillow writes no wide colours."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = rows.shape[:2]
    data = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    blocks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_refused_by_name(tmp_path, color, channels):
    write_png(tmp_path / "wide.png", 8, color, np.zeros((6, 5, channels)))
    assert read(tmp_path).shape == (1, 1, 6, 5)
    write_png(tmp_path / "wide.png", 16, color, np.zeros((6, 5, channels)))
    with pytest.raises(DataError, match=r"wide\.png: has 16 bits a channel .*; convert it"):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_other_wide_pixels_are_refused_by_name(tmp_path, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "x.png", format="TIFF")
    with pytest.raises(DataError, match=rf"x\.png: has pixels of mode {mode}"):
        read(tmp_path)


def test_hidden_files_and_companions_of_macos_are_passed_over(tmp_path):
    for name in (".hidden.png", "._a.png", "sub/._b.png", ".cache/c.png", "__MACOSX/._a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="neither IDX files nor pictures"):
        read(tmp_path)
    Image.fromarray(GREY).save(tmp_path / "sub" / "a.PNG", format="PNG")
    assert len(read(tmp_path)) == 1


def test_a_hidden_folder_may_be_asked_for(tmp_path):
    (tmp_path / ".data").mkdir()
    Image.fromarray(GREY).save(tmp_path / ".data" / "a.png")
    assert len(read(tmp_path / ".data")) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_picture_is_one_line_that_names_it(tmp_path, suffix, keep):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(GENERATOR.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}: cannot be read as a picture (") and "\n" not in str(caught.value)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((6, 5), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.png") as image:
        assert image.n_frames == 2
    assert torch.equal(read(tmp_path), torch.full((1, 1, 6, 5), 10, dtype=torch.uint8))
