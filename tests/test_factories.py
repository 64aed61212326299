"""Factories of users: found as Python would find them, imported as a module should be, and only when named."""

import os
import pickle
import subprocess
import sys
import typing

import pytest
import torch
from torch import nn

import daukit
from daukit.errors import DaukitError, NetworkError
from daukit.models.factory import build_architecture, resolve_factory

PARTS = """
from torch import nn
class Part(nn.Conv2d):
    width = {width}
def part():
    return Part(1, {width}, 3)
"""
NET = """
from {dot}parts import part
from torch import nn
def build():
    return nn.Sequential(part())
def late():
    from {dot}parts import part
    return nn.Sequential(part())
"""
CONFIG = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
@dataclass
class Config:
    width: int = 2
class Net(nn.Conv2d):
    pass
def build():
    return Net(1, Config().width, 3)
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Modules that a test imports are forgotten after it."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if not name.startswith(("torch", "daukit")):
            del sys.modules[name]


def write(folder, dot="", width=2, package=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts.py").write_text(PARTS.format(width=width))
    (folder / "net.py").write_text(NET.format(dot=dot))
    if package:
        (folder / "__init__.py").touch()


@pytest.mark.parametrize("name", ["build", "late"])
@pytest.mark.parametrize(
    ("dot", "package", "spec"),
    [
        (".", True, "mine.net"),
        (".", False, "mine.net"),  # a folder without __init__.py is a package too
        (".", True, "mine/net.py"),
        ("", False, "mine/net.py"),
        ("mine.", True, "mine/net.py"),
        ("mine.", True, "mine.net"),
    ],
)
def test_a_factory_is_found_where_python_would_find_it(tmp_path, monkeypatch, dot, package, spec, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", dot, package=package)
    path = list(sys.path)
    assert build_architecture({"factory": f"{spec}:{name}", "config": {}})[0].out_channels == 2
    assert sys.path == path


@pytest.mark.parametrize("package", [False, True])
def test_modules_of_the_same_name_in_two_folders_are_two(tmp_path, package):
    dot = "." if package else ""
    for folder, width in (("a", 2), ("b", 3)):
        write(tmp_path / folder / "exp", dot, width, package)
    for folder, width in (("a", 2), ("b", 3), ("a", 2), ("b", 3)):
        for name in ("build", "late"):
            factory = f"{tmp_path / folder / 'exp' / 'net.py'}:{name}"
            assert build_architecture({"factory": factory, "config": {}})[0].out_channels == width


def test_a_file_is_a_module_like_any_other(tmp_path):
    path = tmp_path / "my-net.v2.py"
    path.write_text(CONFIG)
    build = resolve_factory(f"{path}:build")
    assert resolve_factory(f"{path}:build") is build
    module = sys.modules[build.__module__]
    assert typing.get_type_hints(module.Config) == {"width": int}
    again = pickle.loads(pickle.dumps(build()))
    assert type(again) is module.Net and module.Net is type(build())


@pytest.mark.parametrize("width", range(3, 9))
def test_an_edited_file_is_read_anew_within_the_same_second(tmp_path, width):
    path, second = tmp_path / "net.py", (1_700_000_000, 1_700_000_000)
    for now in (2, width):
        path.write_text(CONFIG.replace("= 2", f"= {now}"))
        os.utime(path, second)
        assert resolve_factory(f"{path}:build")().out_channels == now


def test_a_file_shadows_no_module_and_neither_does_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "colorsys", "numpy", "daukit", "fractions"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a stranger\\'s')")
    (tmp_path / "torch.py").write_text(CONFIG + "import colorsys, fractions, numpy, daukit.nn\n")
    for name in ("colorsys", "fractions"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert isinstance(resolve_factory("torch.py:build")(), nn.Conv2d)
    assert sys.modules["torch"] is torch
    with pytest.raises(NetworkError, match="torch has no function 'build'"):
        resolve_factory("torch:build")


def test_what_is_installed_never_looks_into_the_current_folder(tmp_path, monkeypatch):
    installed, here = tmp_path / "installed", tmp_path / "here"
    write(installed / "lib", ".", package=True)
    here.mkdir()
    (here / "accelerate_it.py").write_text("raise RuntimeError('a stranger\\'s')")
    with (installed / "lib" / "net.py").open("a") as file:
        file.write("try: import accelerate_it\nexcept ImportError: pass\n")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(here)
    assert resolve_factory("lib.net:build")()[0].out_channels == 2


def test_no_file_chooses_what_code_runs(tmp_path, monkeypatch, daukit_command):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", ".", package=True)
    network = build_architecture({"factory": "mine.net:build", "config": {}})
    daukit.save(network, tmp_path / "m.safetensors")  # the record tells the factory
    for path in (tmp_path / "mine").glob("*.py"):
        path.write_text("raise SystemExit(7)")
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]
    for command in (("erf",), ("info",), ("bake", "--dry-run"), ("prune", "--drop-channels", "--dry-run")):
        done = daukit_command(*command, "m.safetensors")
        assert done.returncode in (0, 1, 2) and not any(name.startswith("mine") for name in sys.modules)
    with pytest.raises(DaukitError, match="may not choose what code runs"):
        daukit.load("m.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.net:build", "No module named 'nowhere', neither installed nor in the current folder; write package"),
        ("mine.nothing:build", "No module named 'mine.nothing', neither installed"),
        ("mine/nothing.py:build", "there is no such file; write package.module:function or file.py:function"),
        ("mine.net:biuld", "mine.net has no function 'biuld'; did you mean 'build'"),
        ("mine/net.py:zzz", "has no function 'zzz'; write package"),
    ],
)
def test_a_factory_that_is_not_there_says_what_is_missing(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", ".", package=True)
    with pytest.raises(NetworkError, match=message) as caught:
        resolve_factory(spec)
    assert str(caught.value).startswith(f"cannot import the factory '{spec}'")


@pytest.mark.slow
def test_the_command_finds_a_package_of_the_current_folder(tmp_path):
    write(tmp_path / "mine", ".", package=True)
    arguments = ["erf", "--model", "mine.net:build", "--size", "8", "--images", "1", "-q"]
    code = f"import sys; sys.argv[1:] = {arguments!r}; from daukit.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
