"""The rooms of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daukit

PACKAGE = Path(__file__).parent.parent / "daukit"

# A room may import the rooms of its own line's set (and itself), nothing else of daukit.
LOWER = {"errors", "_version", "texts", "limits", "results"}
MODEL = LOWER | {"ops", "nn", "models", "preprocessing"}
FILES = MODEL | {"files", "checkpoint"}
ROOMS = {
    "errors": set(),
    "_version": set(),
    "texts": {"errors"},
    "limits": set(),
    "results": set(),
    "ops": LOWER | {"files"},
    "nn": LOWER | {"ops"},
    "preprocessing": LOWER,
    "augmentation": set(),
    "models": MODEL,
    "files": LOWER,
    "checkpoint": FILES,
    "baking": MODEL,
    "pruning": LOWER | {"ops", "nn", "files", "checkpoint"},
    "channels": FILES,
    "offsets": FILES,
    "fitting": LOWER | {"ops"},
    "substitution": FILES | {"fitting"},
    "rescale": FILES,
    "receptive_field": {"errors", "texts", "nn", "models"},
    "erf": {"errors", "limits", "nn", "models", "receptive_field"},
    "importers": FILES,
    "data": LOWER | {"preprocessing"},
    "evaluation": FILES | {"data"},
    "training": FILES | {"augmentation", "data", "evaluation"},
    "plots": {"offsets"},
    "benchmark": MODEL,
    "gpu_benchmark": MODEL | {"benchmark"},
}
ROOMS["workflows"] = set(ROOMS)  # the work of the commands joins all of them
TORCH_FREE = {"errors", "_version", "texts", "limits", "results", "files", "plots"}
TERMINAL = {"typer", "rich"}


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files_of(room):
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_every_module_has_a_room():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names == set(ROOMS) | {"__init__", "cli"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room):
    for path in files_of(room):
        for name in imports(path):
            first, _, rest = name.partition(".")
            assert first not in TERMINAL, f"{path.name} imports {name}: only cli speaks to the terminal"
            assert first != "torch" or room not in TORCH_FREE, f"{path.name} imports torch"
            if first == "daukit" and rest:
                assert rest.split(".")[0] in ROOMS[room] | {room}, f"{path.name} imports {name}"


def test_commands_import_nothing_heavy_at_the_top():
    for path in files_of("cli"):
        for name in imports(path, top_level_only=True):
            assert name.split(".")[0] not in {"torch", "numpy", "matplotlib", "safetensors"}, (
                f"{path.name} imports {name}"
            )


def test_every_public_name_is_there():
    assert dir(daukit) == sorted(daukit.__all__)
    assert all(getattr(daukit, name) is not None for name in daukit.__all__)


def test_importing_daukit_and_its_command_line_does_not_import_torch():
    code = "import sys, daukit, daukit.cli.main; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
