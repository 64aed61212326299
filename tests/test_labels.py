"""What figures and pages call files: names that tell them apart, as short as they can be."""

import pytest

from daukit.workflows.labels import labels_of


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["a.safetensors", "b/c.safetensors"], ["a", "c"]),
        (["runs/srn/2.safetensors", "runs/dau/2.safetensors"], ["srn/2", "dau/2"]),
        (["x/runs/2.safetensors", "y/runs/2.safetensors", "3.safetensors"], ["x/runs/2", "y/runs/2", "3"]),
        (["a.safetensors", "a.pth"], ["a (1)", "a (2)"]),
        (["a.safetensors", "./a.safetensors"], ["a (1)", "a (2)"]),
        (["r\x1b.safetensors"], ["r\\x1b"]),
    ],
)
def test_files_have_as_many_of_their_folders_as_tell_them_apart(tmp_path, files, labels):
    assert labels_of([tmp_path / file for file in files], endings=False) == labels


def test_a_folder_of_the_hub_is_a_file_and_networks_in_memory_have_numbers(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert labels_of([*files, tmp_path / "model.safetensors"]) == ["one", "two", "model.safetensors"]
    assert labels_of(["Net", files[0], "Net"]) == ["Net (1)", "one", "Net (3)"]
