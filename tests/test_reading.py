"""Reading with threads: the same batches in the same order, errors where they belong, warnings left as they were."""

import threading
import warnings

import pytest
import torch
from PIL import Image

from daukit.datasets import Batch, ImageDataset, read_ahead, read_all
from daukit.errors import DataError
from daukit.pictures import hushed, read_picture


class Slow:
    """A data set that takes note of what is read, and by which thread."""

    def __init__(self, broken=None):
        self.asked, self.threads, self.broken = [], set(), broken

    def batch(self, part):
        self.asked.append(part)
        self.threads.add(threading.get_ident())
        if isinstance(part, slice):
            part = 0
        if part == self.broken:
            raise DataError(f"picture {part}")
        return Batch(torch.tensor([part]), torch.tensor([part]))


def test_batches_come_in_their_order_and_a_few_are_read_ahead():
    dataset, seen = Slow(), []
    for batch in read_ahead(dataset, range(20)):
        seen.append(int(batch.images))
        assert len(dataset.asked) <= len(seen) + 2
    assert seen == dataset.asked == list(range(20))
    assert len(dataset.threads) == 1 and threading.get_ident() not in dataset.threads


def test_a_part_may_be_empty():
    empty = torch.arange(0)
    batches = list(read_ahead(Slow(), [1, empty, 2]))
    assert [len(batch) for batch in batches] == [1, 0, 1]


def test_a_picture_that_cannot_be_read_is_an_error_at_its_batch():
    seen, batches = [], read_ahead(Slow(broken=3), range(20))
    with pytest.raises(DataError, match="picture 3"):
        seen.extend(int(batch.images) for batch in batches)
    assert list(batches) == []


def test_whoever_stops_leaves_no_thread_behind():
    before = threading.active_count()
    batches = read_ahead(Slow(), range(20))
    next(batches)
    batches.close()
    assert threading.active_count() <= before  # others may have ended meanwhile


def test_images_in_memory_are_read_where_they_are_asked_for():
    images = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1)
    dataset = ImageDataset(images, torch.arange(12))
    before, parts = threading.active_count(), torch.arange(12).split(5)
    for part, batch in zip(parts, read_ahead(dataset, parts), strict=True):
        assert torch.equal(batch.targets, part) and threading.active_count() <= before


def test_places_are_read_in_their_order_by_several_threads():
    wait = threading.Barrier(2, timeout=10)  # two at once, or it breaks
    assert read_all(lambda place: (wait.wait(), place)[1], range(6)) == list(range(6))
    assert read_all(lambda place: threading.get_ident(), [7]) == [threading.get_ident()]


def test_warnings_of_decoders_are_silent_and_others_are_not(tmp_path):
    path = tmp_path / "odd.png"
    picture = Image.new("P", (4, 4))
    picture.putpalette([5, 6, 7] * 256)
    picture.save(path, transparency=bytes(range(256)))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_picture(path, "rgb")
        with hushed(), hushed():
            warnings.warn("mine", stacklevel=1)
            warnings.warn_explicit("theirs", UserWarning, "f", 1, module="PIL.PngImagePlugin")
        warnings.warn_explicit("theirs again", UserWarning, "f", 1, module="PIL.PngImagePlugin")
    assert [str(one.message) for one in said] == ["mine", "theirs again"]
    assert list(warnings.filters) == before


def test_filters_of_warnings_survive_threads_that_read(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (2, 2)).save(path)
    before = list(warnings.filters)
    read_all(lambda _: read_picture(path, "gray"), range(200))
    assert list(warnings.filters) == before
