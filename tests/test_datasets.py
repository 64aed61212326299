"""Data sets, IDX folders and preprocessing."""

import gzip
import hashlib
import random
import tracemalloc

import pytest
import torch
from idx import toy_folder, toy_images, write_idx
from mutators import flipped_or_cut

from daukit.datasets import DatasetInfo, ImageDataset, load_folder, read_idx
from daukit.errors import DataError, DaukitError
from daukit.preprocessing import Preprocessing


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3, 4)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, name, shape):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    write_idx(tmp_path / name, values)
    assert torch.equal(read_idx(tmp_path / name), values)


def test_a_folder_has_images_labels_and_class_names(tmp_path):
    folder = toy_folder(tmp_path / "toy")
    data = load_folder(folder, "train")
    images, labels = toy_images(96, 0)
    assert torch.equal(data.images[:, 0], images) and torch.equal(data.labels, labels.long())
    assert data.class_names == ("north", "upper", "lower", "south") and data.info.num_classes == 4
    assert len(load_folder(folder, "test").images) == 48


def test_a_batch_has_the_images_that_were_asked_for_and_their_labels(tmp_path):
    data = load_folder(toy_folder(tmp_path / "toy"), "train")
    assert len(data) == 96
    for indices in (torch.tensor([5, 0, 5]), slice(90, 99)):
        batch = data.batch(indices)
        assert torch.equal(batch.images, data.images[indices]) and torch.equal(batch.targets, data.labels[indices])
        assert len(batch) == len(data.labels[indices])


def test_classes_without_names_are_counted_by_their_labels():
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 4, 1])
    assert ImageDataset(images, labels).info == DatasetInfo(5)
    assert ImageDataset(images, labels, ("a",) * 7).info == DatasetInfo(7, ("a",) * 7)


def test_a_digest_is_the_one_in_states_of_older_versions():
    """Of pixels, then of labels as eight bytes each, little end first."""
    images, labels = torch.arange(24, dtype=torch.uint8).reshape(2, 1, 3, 4), torch.tensor([1, 258])
    data = bytes(range(24)) + b"\1" + bytes(7) + b"\2\1" + bytes(6)
    assert ImageDataset(images, labels).digest() == hashlib.sha256(data).hexdigest()
    assert ImageDataset(images, labels.flip(0)).digest() != ImageDataset(images, labels).digest()


def test_preprocessing_makes_zero_mean_and_unit_variance(tmp_path):
    data = load_folder(toy_folder(tmp_path / "toy"), "train")
    values = data.preprocessing().normalize(data.images).double()
    assert values.mean().abs() < 1e-4 and (values.std() - 1).abs() < 1e-4  # mean and std are kept to 6 digits
    assert Preprocessing.from_json(data.preprocessing().to_json()) == data.preprocessing()


def test_preprocessing_scales_to_its_range_first():
    p = Preprocessing((10.0, 20.0), (2.0, 4.0), "rgb", (1, 1), value_range=(0.0, 255.0))
    pixels = torch.tensor([14, 12], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert p.normalize(pixels).flatten().tolist() == [2.0, -2.0]


def spoil(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def test_broken_folders_get_one_clear_error(tmp_path):
    def broken(name, change):
        folder = toy_folder(tmp_path / str(len(list(tmp_path.iterdir()))))
        if change is None:
            (folder / name).unlink()
        else:
            spoil(folder, name, change)
        return folder

    images, labels = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
    cases = [
        (tmp_path / "nowhere", "no such folder"),
        (broken(images, None), "there is no t10k-images-idx3-ubyte"),
        (broken(images, lambda b: b[:-7]), "states .* but holds"),
        (broken(images, lambda b: b"GIF89a"), "not an IDX file"),
        (broken(images, lambda b: b"\x1f\x8b" + b[:50]), "gzip stream is damaged"),
        (broken(labels, lambda b: b"\0\0\x08\x01\0\0\0\x01\x03"), "48 images .* but 1 labels"),
        (broken("classes.txt", lambda b: b"only\none"), "and the names of classes end at label 1"),
    ]
    for folder, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            load_folder(folder, "test")
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"\xef\xbb\xbfcat\ndog\n", ("cat", "dog")),
        (b"cat\ndog\n\n \n", ("cat", "dog")),
        (b"cat\r\ndog", ("cat", "dog")),
        ("gr\u00fcn\n\u732b".encode(), ("gr\u00fcn", "\u732b")),
    ],
)
def test_class_names_are_the_lines_that_a_person_sees(tmp_path, text, names):
    folder = toy_folder(tmp_path / "toy")
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", torch.arange(96 if prefix == "train" else 48).byte() % 2)
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    (folder / "classes.txt").write_bytes(text)
    data = load_folder(folder, "test")
    assert data.class_names == names and data.info.num_classes == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "classes.txt: names no class"),
        (b"\n \n", "classes.txt: names no class"),
        (b"\xc3\xa8\xe8", "byte 2 is not UTF-8"),
        (b"cat\n\ndog\n", r"classes\.txt: line 2 is blank"),
        (b"cat\n" + b"dog" * 400, r"classes\.txt: line 2 has more than 1000 characters"),
    ],
)
def test_class_names_that_cannot_be_meant_are_refused(tmp_path, text, message):
    folder = toy_folder(tmp_path / "toy")
    (folder / "classes.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        load_folder(folder, "test")


def peak_of(function, *arguments):
    """Bytes that Python and numpy had at once while ``function`` failed, and its message."""
    tracemalloc.start()
    try:
        with pytest.raises(DaukitError) as caught:
            function(*arguments)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stated", [(4, 16, 16), (40, 1024, 1024), (2**32 - 1, 2**32 - 1, 2**32 - 1), (0, 2**32 - 1)])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, stated):
    """64 MiB of zeros in 64 KB: what the header states is read, no more, and no header may state a bomb."""
    path = tmp_path / "bomb-idx3-ubyte.gz"
    header = bytes([0, 0, 8, len(stated)]) + b"".join(size.to_bytes(4, "big") for size in stated)
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(64):
            file.write(bytes(1 << 20))
    peak, message = peak_of(read_idx, path)
    assert peak < 8 << 20 or stated[0] == 40
    assert str(path) in message and "\n" not in message


def test_mutants_of_idx_files_are_refused_in_one_line_or_hold_what_they_state(tmp_path):
    images, _ = toy_images(3, 0)
    paths = [tmp_path / "images-idx3-ubyte", tmp_path / "images-idx3-ubyte.gz"]
    for path in paths:
        write_idx(path, images)
    seeds, accepted = [path.read_bytes() for path in paths], 0
    for number in range(400):
        dice = random.Random(number)
        data = flipped_or_cut(dice.choice(seeds), dice)
        paths[0].write_bytes(data)
        try:
            values = read_idx(paths[0])
        except DataError as error:
            assert str(paths[0]) in str(error) and "\n" not in str(error)
            continue
        accepted += 1
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        assert values.numpy().tobytes() == plain[4 + 4 * plain[3] :]
    assert 0 < accepted < 300


@pytest.mark.parametrize("sides", [(0, 16), (16, 0), (1, 65537)])
def test_images_of_no_or_absurd_size_are_refused(tmp_path, sides):
    folder = toy_folder(tmp_path / "toy")
    write_idx(folder / "t10k-images-idx3-ubyte", torch.zeros(48, *sides, dtype=torch.uint8))
    with pytest.raises(DataError, match="sides must be 1 to 65536 pixels"):
        load_folder(folder, "test")
