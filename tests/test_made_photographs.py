"""Shaken photographs against closed forms; and what is fetched and taken out of packages."""

import shutil
import stat

import numpy as np
import pytest
from example_scripts import bytes_below, resource_file, run, script, write_picture

from daukit.datasets import load_deblurring
from daukit.errors import DataError, OutputError

make_shaken = script("deblurring", "make_shaken")
photographs, fetch = (script("data", name) for name in ("photographs", "fetch"))
REACH = make_shaken.REACH


def still(place):
    """A camera that stays at one place."""
    return np.full(make_shaken.STEPS, place, np.complex128)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(make_shaken, "SIZE", 24)


def test_a_camera_that_stays_aside_moves_the_picture():
    light = np.random.default_rng(0).random((60, 70, 3))
    moved = make_shaken.shake(light, still(3 - 2j), np.zeros(make_shaken.STEPS))  # to the right and up
    assert np.abs(moved - light[REACH + 2 : 2 - REACH, REACH - 3 : -REACH - 3]).max() < 1e-12


def test_blur_is_the_sum_over_the_kernel():
    rng = np.random.default_rng(0)
    light, path = rng.random((40, 40, 3)), 9 * make_shaken.camera_path(rng)
    kernel = make_shaken.kernel_of(path)
    expected = np.zeros((8, 8, 3))
    for y in range(-REACH, REACH + 1):
        for x in range(-REACH, REACH + 1):
            expected += kernel[y + REACH, x + REACH] * light[REACH - y : REACH - y + 8, REACH - x : REACH - x + 8]
    assert np.abs(make_shaken.shake(light, path, np.zeros(make_shaken.STEPS)) - expected).max() < 1e-12


def test_a_camera_that_rolls_turns_corners_and_leaves_the_middle():
    light = np.random.default_rng(0).random((41 + 2 * REACH, 41 + 2 * REACH, 3))
    rolled = make_shaken.shake(light, still(0), np.full(make_shaken.STEPS, 2 * 2**0.5))
    assert np.abs(rolled[20, 20] - light[REACH + 20, REACH + 20]).max() < 1e-12
    # Clockwise: the lower right corner goes left and down, the upper right one right and down.
    assert np.abs(rolled[40, 40] - light[REACH + 40 - 2, REACH + 40 + 2]).max() < 1e-12
    assert np.abs(rolled[0, 40] - light[REACH - 2, REACH + 40 - 2]).max() < 1e-12


def test_a_kernel_has_the_mean_of_its_path_and_sum_one():
    path = 12 * make_shaken.camera_path(np.random.default_rng(5)) + 1.25 + 0.5j
    kernel, places = make_shaken.kernel_of(path), np.arange(-REACH, REACH + 1)
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1)
    assert (kernel * places).sum() == pytest.approx(1.25) and (kernel.T * places).sum() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="within 15 pixels"):
        make_shaken.kernel_of(still(15.1))


def test_paths_have_mean_zero_and_reach_one():
    for seed in range(5):
        path = make_shaken.camera_path(np.random.default_rng(seed))
        assert abs(path.mean()) < 1e-12 and np.abs(path).max() == pytest.approx(1)


def test_without_shake_and_noise_nothing_changes(small, monkeypatch, tmp_path):
    for name in ("EXTENT", "ROLL", "NOISE"):
        monkeypatch.setattr(make_shaken, name, (0, 0))
    write_picture(tmp_path / "a.webp", 130, 140, color=(90, 120, 150), seed=0)
    blurred, sharp = make_shaken.make_pair(make_shaken.read_photograph(tmp_path / "a.webp"), np.random.default_rng(0))
    assert (blurred == sharp).all() and sharp.std() > 1


def test_photographs_are_halved_in_linear_light(tmp_path):
    write_picture(tmp_path / "a.webp", 7, 5, color=(10, 128, 255))
    halved = make_shaken.read_photograph(tmp_path / "a.webp")
    assert halved.shape == (3, 2, 3) and np.abs(halved - np.array([10, 128, 255]) ** 2.2 / 255**2.2).max() < 1e-12
    assert np.abs(make_shaken.encode(halved) - [10, 128, 255]).max() < 1e-9


def test_no_photograph_is_in_two_splits_and_bytes_follow_from_the_seed(small, monkeypatch, tmp_path):
    monkeypatch.setattr(make_shaken, "STEPS", 50)
    for number in range(5):
        write_picture(tmp_path / f"in/{number}.webp", 120, 130, color=(90, 120, 150), seed=number)
    write_picture(tmp_path / "in/small.webp", 111, 130, color=(90, 120, 150))
    counts = ("--train", 4, "--val", 1, "--test", 2)
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(monkeypatch, make_shaken, tmp_path / "in", tmp_path / out, *counts, "--seed", seed)
    made, again, other = (bytes_below(tmp_path / out) for out in "abc")
    assert made == again and len(made) == len(other) == 14
    blurred = [{content for path, content in files.items() if "blurred" in path} for files in (made, other)]
    assert len(blurred[0]) == 7 and blurred[0].isdisjoint(blurred[1])
    of = {
        split: {p.stem.split("-")[1] for p in tmp_path.glob(f"a/{split}/sharp/*")} for split in ("train", "val", "test")
    }
    assert set().union(*of.values()) == set("01234") and sum(map(len, of.values())) == 5
    assert len(load_deblurring(tmp_path / "a", "test")) == 2
    with pytest.raises(OutputError, match="is there already"):
        run(monkeypatch, make_shaken, tmp_path / "in", tmp_path / "a")


def test_photographs_are_taken_out_of_qts_resources(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photographs, "SETS", {"zoo": 2})
    place = tmp_path / photographs.PLACE
    place.mkdir(parents=True)
    content = {"README": b"by whom " * 9, "a.webp": b"A", "b.webp": b"BB", "sign.svg": b"no photograph"}
    (place / "zoo.rcc").write_bytes(resource_file(content))
    photographs.main(tmp_path, tmp_path / "out")
    assert bytes_below(tmp_path / "out") == {f"zoo-{name}": content[name] for name in ("README", "a.webp", "b.webp")}
    monkeypatch.setattr(photographs, "SETS", {"zoo": 3})
    with pytest.raises(DataError, match=r"has 2 photographs where version 3\.1-2 of the package has 3"):
        photographs.main(tmp_path, tmp_path / "again")
    for broken in (b"", b"PNG" * 20, resource_file(content)[:60]):
        (place / "zoo.rcc").write_bytes(broken)
        with pytest.raises(DataError, match="unpack gcompris-qt-data again"):
            photographs.main(tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_package_is_taken_by_its_checksum_and_nothing_is_left_of_another(tmp_path, monkeypatch):
    programs = {"apt-get": "printf other > $2_9_all.deb", "dpkg-deb": "cp $2 content"}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    name, out = "gcompris-qt-data", tmp_path / "packages" / "gcompris-qt-data"
    with pytest.raises(DataError, match=r"gcompris-qt-data_9_all.deb: is not version 3\.1-2, .* --any-version"):
        fetch.fetch(name, out, any_version=False)
    assert not out.parent.exists()
    assert fetch.fetch(name, out, any_version=True).name == "gcompris-qt-data_9_all.deb"
    assert bytes_below(out) == {"content": b"other"}
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho E: no such package >&2\nexit 100\n")
    with pytest.raises(DataError, match="cannot be fetched; does `apt-get update` help\\? E: no such package"):
        fetch.fetch(name, out.with_name("more"), any_version=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="apt-get: there is no such program"):
        fetch.fetch(name, out.with_name("more"), any_version=False)
