"""Files that the system refuses, or that change while they are read."""

import hashlib

import pytest
import torch
from broken import CONFIG, load_plain, network

import daukit
from daukit.checkpoint import file, plain, read_any
from daukit.errors import CheckpointError


def test_a_file_that_is_refused_is_closed_while_its_error_is_looked_at(tmp_path, monkeypatch):
    opened, open_file = [], file.open_file
    monkeypatch.setattr(file, "open_file", lambda path: opened.append(open_file(path)) or opened[-1])
    (tmp_path / "m.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError) as caught:
        daukit.open(tmp_path / "m.safetensors")
    assert caught.value.__traceback__ is not None and [one.closed for one in opened] == [True]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "no/such", "x" * 300 + "/y", "loop", "m.safetensors/x"])
@pytest.mark.parametrize("read", [daukit.load, daukit.read, daukit.open])
def test_names_that_the_system_refuses_are_one_line(tmp_path, name, read):
    daukit.save(network(), tmp_path / "m.safetensors")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match=r"no such file|cannot be read") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_disk_that_fails_is_one_line(tmp_path, monkeypatch):
    torch.save(network().state_dict(), tmp_path / "m.pth")

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("daukit.checkpoint.plain.opens_as_pickle", fail)
    with pytest.raises(CheckpointError, match=r"m\.pth: cannot be read: Input/output error"):
        load_plain(tmp_path / "m.pth")


def test_a_file_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(tmp_path, monkeypatch):
    path, other = tmp_path / "m.pth", tmp_path / "other.pth"
    torch.save(network().state_dict(), path)
    torch.save({name: tensor * 2 for name, tensor in network().state_dict().items()}, other)
    before, load = hashlib.sha256(path.read_bytes()).hexdigest(), plain.load_object

    def replacing(file, name):
        other.replace(path)
        return load(file, name)

    monkeypatch.setattr(plain, "load_object", replacing)
    checkpoint = read_any(path, model="shallow_dau", config=CONFIG)
    assert checkpoint.digest == before
    assert torch.equal(checkpoint.tensors["conv1.weight"], network().conv1.weight)


def test_a_file_that_is_written_into_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, load = tmp_path / "m.pth", plain.load_object
    torch.save(network().state_dict(), path)

    def writing(file, name):
        with path.open("ab") as same:
            same.write(b"more")
        return load(file, name)

    monkeypatch.setattr(plain, "load_object", writing)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        load_plain(path)
