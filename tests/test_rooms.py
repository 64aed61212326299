"""The rooms of the house: who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import TEXTS, table

import daukit

PACKAGE = Path(__file__).parent.parent / "daukit"

# A room may import the rooms of its own line's set (and itself), nothing else of daukit.
LOWER = {"errors", "_version", "texts", "limits", "results"}
MODEL = LOWER | {"ops", "nn", "models", "preprocessing"}
FILES = MODEL | {"files", "checkpoint"}
ROOMS = {
    "errors": set(),
    "_version": set(),
    "distributed": {"errors"},
    "texts": {"errors"},
    "limits": set(),
    "results": set(),
    "ops": LOWER | {"files"},
    "nn": LOWER | {"ops"},
    "preprocessing": LOWER,
    "pictures": {"errors"},
    "models": MODEL,
    "files": LOWER,
    "checkpoint": FILES,
    "baking": MODEL,
    "preparation": MODEL | {"baking"},
    "pruning": FILES,
    "channels": FILES,
    "snapping": LOWER | {"ops", "nn", "models", "checkpoint"},
    "offsets": FILES,
    "fitting": LOWER | {"ops"},
    "substitution": FILES | {"fitting"},
    "rescale": FILES,
    "receptive_field": {"errors", "texts", "nn", "models"},
    "erf": {"errors", "limits", "distributed", "nn", "models", "receptive_field", "pictures"},
    "importers": FILES,
    "datasets": LOWER | {"preprocessing", "pictures"},
    "transforms": {"errors", "preprocessing", "datasets"},
    "tasks": LOWER | {"models", "preprocessing", "datasets"},
    "evaluation": {"errors", "distributed", "models", "receptive_field", "datasets", "tasks"},
    "training": FILES | {"distributed", "datasets", "transforms", "tasks", "evaluation"},
    "plots": {"offsets"},
    "page": {"texts"},
    "export": {"errors", "models", "preprocessing"},
    "benchmark": FILES | {"fitting", "preparation", "substitution"},
    "gpu_benchmark": MODEL | {"benchmark"},
}
ROOMS["workflows"] = set(ROOMS)  # the work of the commands joins all of them
TORCH_FREE = {"errors", "_version", "texts", "limits", "results", "files", "plots", "page"}
TERMINAL = {"typer", "rich"}

HEAVY = {"torch", "numpy", "matplotlib", "safetensors", "PIL"}
COMPUTING = {"devices.py": {"torch"}, "bench.py": {"torch"}}
"""Files of cli that import a heavy package: to try a device, and to set the number of threads."""

SPOKEN = {"_version", "errors", "distributed", "texts", "limits", "results", "files", "workflows", "cli"}
"""Rooms that every command may import."""

LIBRARY = {
    "bench_tables.py": {"benchmark"},  # names of its cases
    "erf_networks.py": {"models"},  # is a word of --compare a file or a network?
    "info.py": {"models"},  # is --model a name?
    "options.py": {"checkpoint", "models"},  # reads FILE
    "prune.py": {"checkpoint", "pruning"},  # makes a rule of the options; is FILE daukit's?
    "rescale_tables.py": {"rescale"},  # names of the modes
    "stopping.py": {"training"},  # how far is a run that was stopped?
    "train.py": {"training"},  # gathers the options
    "train_recipe.py": {"training"},  # reads the recipe and changes it
    "train_tables.py": {"training"},  # which epoch is the best?
}
"""Other rooms that a file of cli imports when it runs."""


def imports(path, top_level_only=False, typing=True):
    tree = ast.parse(path.read_text())
    if not typing:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"daukit.{alias.name}" for alias in node.names) if node.module == "daukit" else [node.module]


def files_of(room):
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_every_module_has_a_room():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names == set(ROOMS) | {"__init__", "__main__", "cli"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room):
    for path in files_of(room):
        for name in imports(path):
            first, _, rest = name.partition(".")
            assert first not in TERMINAL, f"{path.name} imports {name}: only cli speaks to the terminal"
            assert first != "torch" or room not in TORCH_FREE, f"{path.name} imports torch"
            if first == "daukit" and rest:
                assert rest.split(".")[0] in ROOMS[room] | {room}, f"{path.name} imports {name}"


def test_the_rooms_stand_in_architecture_md_in_their_order():
    """A room imports what stands before it, so that there is no circle."""
    rooms = [
        name for cell, _ in table(TEXTS["architecture.md"], "Architecture") for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(rooms) == sorted([*ROOMS, "cli"])
    for i, room in enumerate(rooms):
        for path in files_of(room):
            assert rooms_imported(path) <= set(rooms[: i + 1]), f"{path.name} imports upwards"


def rooms_imported(path):
    return {name.split(".")[1] for name in imports(path) if name.startswith("daukit.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_leaves_its_file(path):
    tree, modules, private = ast.parse(path.read_text()), set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "daukit":
            names = {alias.name: alias.asname or alias.name for alias in node.names}
            private += [name for name in names if is_private(name)]
            modules |= set(names.values())
    private += [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules and is_private(node.attr)
    ]
    assert private == []


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_commands_import_nothing_heavy_at_the_top():
    for path in files_of("cli"):
        for name in imports(path, top_level_only=True):
            assert name.split(".")[0] not in HEAVY, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", files_of("cli"), ids=lambda path: path.stem)
def test_commands_leave_the_work_to_the_library(path):
    """What a command imports when it runs: workflows, and otherwise no more than is listed here, each for a reason."""
    used = set(imports(path, typing=False))
    heavy = {name for name in used if name.split(".")[0] in HEAVY}
    assert heavy <= COMPUTING.get(path.name, set())
    rooms = {name.split(".")[1] for name in used if name.startswith("daukit.")}
    assert rooms - SPOKEN == set(LIBRARY.get(path.name, ()))


def test_every_public_name_is_there():
    assert dir(daukit) == sorted(daukit.__all__)
    assert all(getattr(daukit, name) is not None for name in daukit.__all__)


def test_importing_daukit_and_its_command_line_does_not_import_torch():
    code = "import sys, daukit, daukit.cli.main; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
