"""IDX folders and preprocessing."""

import pytest
import torch
from idx import toy_folder, toy_images, write_idx

from daukit.data import load_folder, read_idx
from daukit.errors import DataError
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
    assert data.class_names == ("north", "upper", "lower", "south") and data.num_classes == 4
    assert len(load_folder(folder, "test").images) == 48


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
        (broken("classes.txt", lambda b: b"only\none"), "but only 2 classes are named"),
    ]
    for folder, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            load_folder(folder, "test")
        assert str(folder) in str(caught.value)
