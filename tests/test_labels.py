"""What figures and pages call files: names that tell them apart, as short as they can be."""

from pathlib import Path

import pytest

from daukit.workflows.labels import check_labels, labels_of


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["a.safetensors", "b/c.safetensors"], ["a", "c"]),
        (["runs/srn/2.safetensors", "runs/dau/2.safetensors"], ["srn/2", "dau/2"]),
        (["x/runs/2.pth", "y/runs/2.pth", "x/runs/3.pth"], ["x/runs/2", "y/runs/2", "x/runs/3"]),
        (["r/srn/0.safetensors", "r/srn/1.safetensors", "r/dau/0.safetensors"], ["srn/0", "srn/1", "dau/0"]),
        (["a.safetensors", "a.pth"], ["a.safetensors", "a.pth"]),
        (["b/a.safetensors", "a.safetensors", "b/a.safetensors"], ["b/a (1)", "{folder}/a", "b/a (3)"]),
        (["a.safetensors", "./a.safetensors"], ["a (1)", "a (2)"]),
        (["r\x1b.safetensors"], ["r\\x1b"]),
    ],
)
def test_files_have_as_many_of_their_folders_as_tell_them_apart(tmp_path, files, labels):
    expected = [label.format(folder=tmp_path.name) for label in labels]
    assert labels_of([tmp_path / file for file in files], endings=False) == expected


def test_a_folder_of_the_hub_is_a_file_and_networks_in_memory_have_numbers(tmp_path, monkeypatch):
    for name in ("one", "v1.5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").touch()
    files = [tmp_path / name / "model.safetensors" for name in ("one", "v1.5")]
    assert labels_of([*files, tmp_path / "model.safetensors"]) == ["one", "v1.5", "model.safetensors"]
    assert labels_of(["Net", files[0], "Net"]) == ["Net (1)", "one", "Net (3)"]
    monkeypatch.chdir(tmp_path / "v1.5")
    assert labels_of([Path("model.safetensors")], endings=False) == ["v1.5"]


def test_links_are_called_as_they_are_and_not_as_what_they_lead_to(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.safetensors").symlink_to(tmp_path / f"store-{name}")
    links = [tmp_path / name / "best.safetensors" for name in ("x", "y")]
    assert labels_of(links, endings=False) == ["x/best", "y/best"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["ours"], "1 label for 2 files; give one for each, in their order, or none"),
        (["ours", "theirs", "third"], "3 labels for 2 files"),
        (["ours", "ours"], "'ours' is given twice"),
        (["ours", " "], "a label has no letters"),
    ],
)
def test_labels_that_do_not_tell_files_apart_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 2)
    check_labels(["ours", "Ours"], 2)
    check_labels([], 2)
