"""The journeys in docs/architecture.md: each file of one is joined to a file before it, as the section says."""

import ast
import re
from functools import cache

import pytest
from pages import ROOT, TEXTS

PACKAGE = ROOT / "daukit"
LONGEST = 6

CALLERS = {"daukit/cli/main.py", "tests/schemas.py"}
"""Files that nothing on their journey imports: an error goes up to the one, the other describes results from outside.
They import what stands before them."""


def journeys():
    """{title: its files, in order} of the section."""
    _, _, section = TEXTS["architecture.md"].partition("\n## Journeys\n")
    items = re.split(r"\n\d+\. ", section.partition("\n## ")[0])[1:]
    return {re.search(r"\*\*(.+?)\*\*", item, re.DOTALL).group(1): files_in(item) for item in items}


def files_in(text):
    """Paths of the files that a text names."""
    return [path_of(name) for name in re.findall(r"`([\w/]+\.\w+)`", text)]


def path_of(name):
    """The path from the repository's top; most files of the section are the package's."""
    return f"daukit/{name}" if (PACKAGE / name).is_file() else name


@cache
def imports(path):
    """Files that a Python file imports, and those from which a package that it imports takes its names."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("daukit"):
            for module in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                found |= files_of(module)
    inside = {file for file in found if file.endswith("/__init__.py") and file not in (path, "daukit/__init__.py")}
    return frozenset(found.union(*(imports(file) for file in inside)))


def files_of(module):
    """The file of a dotted name; none where it names something in a module."""
    stem = module.replace(".", "/")
    return {path for path in (f"{stem}.py", f"{stem}/__init__.py") if (ROOT / path).is_file()}


@cache
def words(path):
    """Text and attributes that a Python file has in its code."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text("utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(texts | {node.attr for node in nodes if isinstance(node, ast.Attribute)})


def is_joined(path, before):
    """True if an earlier file of the journey leads to ``path``."""
    python = [file for file in before if file.endswith(".py")]
    if path in CALLERS:
        return any(file in imports(path) for file in python)
    if path.endswith(".cu"):  # compiled by its name
        return any(path.rpartition("/")[2] in words(file) for file in python)
    if path.endswith(".cpp"):  # called by the names of its functions, or through a header that both include
        text = (ROOT / path).read_text("utf-8")
        functions = set(re.findall(r"\b(daukit_\w+)\(const daukit_sizes", text))
        headers = {f'#include "{path.rpartition("/")[2].removesuffix(".cpp")}.h"'}
        sources = [(ROOT / file).read_text("utf-8") for file in before if file.endswith(".cpp")]
        return any(functions & words(file) for file in python) or any(
            h in source for source in sources for h in headers
        )
    if path.endswith(".json"):  # written by its folder and its name
        _, folder, name = path.rsplit("/", 2)
        return any({folder, name.removesuffix(".json")} <= words(file) for file in python)
    data = {file.rsplit("/", 2)[1] for file in before if file.endswith(".json")}
    return any(path in imports(file) for file in python) or bool(data & words(path))


def test_there_are_ten_journeys():
    assert len(journeys()) == 10


@pytest.mark.parametrize("title", journeys())
def test_a_journey_is_short_and_never_turns_back(title):
    files = journeys()[title]
    assert 2 <= len(files) <= LONGEST
    assert len(set(files)) == len(files)
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("title", journeys())
def test_each_file_of_a_journey_follows_from_one_before_it(title):
    files = journeys()[title]
    for i, path in enumerate(files[1:], 1):
        assert is_joined(path, files[:i]), f"nothing in {', '.join(files[:i])} leads to {path}"


@pytest.mark.parametrize(
    ("path", "before"),
    [
        ("daukit/fitting/fit.py", "daukit/cli/prune.py"),
        ("daukit/csrc/kernels.cpp", "daukit/ops/native.py"),
        ("cuda/forward.cu", "daukit/ops/dispatch.py"),
        ("daukit/cli/schemas/prune.json", "daukit/workflows/prune.py"),
        ("daukit/cli/main.py", "daukit/pruning/file.py"),
    ],
)
def test_a_file_that_is_no_neighbour_does_not_follow(path, before):
    assert not is_joined(path, [before])
