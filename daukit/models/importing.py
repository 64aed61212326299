"""Import a factory's module as ``python`` and ``python -m`` would: it finds its neighbours and shadows nothing."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_neighbours: dict[str, dict[str, ModuleType]] = {}
"""{folder: modules imported from it}, by name: two folders may have modules of the same name."""


@contextmanager
def imports_from(source: str) -> Iterator[None]:
    """Let the imports of ``source``, a dotted module or a file, look into its project's folder, after everything else.

    That is the folder of a file, the one that holds the package of a file in a package, or the current one for a module
    that is installed nowhere. Being last, nothing in it can stand in for a module that is installed.
    """
    folder = _folder_of(source)
    if folder is None or folder in sys.path:
        yield
        return
    _bring_back(folder)
    before = set(sys.modules)
    sys.path.append(folder)
    importlib.invalidate_caches()  # files may be younger than what Python knows of the folder
    try:
        yield
    finally:
        sys.path.remove(folder)
        new = {name: module for name, module in list(sys.modules.items()) if name not in before}
        tops = {name for name, module in new.items() if "." not in name and _lies_in(folder, module)}
        _neighbours.setdefault(folder, {}).update(
            {name: module for name, module in new.items() if name.partition(".")[0] in tops}
        )


def import_source(source: str) -> ModuleType:
    """Import a dotted module, or a file by its path; inside ``imports_from``."""
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source).resolve()
    names = [path.stem, *(folder.name for folder in _packages(path))][::-1]
    if len(names) > 1 and _is_own_package(names[0], _packages(path)[-1]):
        return importlib.import_module(".".join(names if path.stem != "__init__" else names[:-1]))
    return _import_lone(path)


def _import_lone(path: Path) -> ModuleType:
    """The module of a file, the same one as long as the file is the same."""
    digest = hashlib.sha256(str(path).encode(errors="surrogateescape") + path.read_bytes()).hexdigest()
    name = f"{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItIs(name, str(path)))
    assert spec is not None and spec.loader is not None  # the one that it was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses, pickle and typing look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _AsItIs(SourceFileLoader):
    """Compiles a file as it is now. Python's bytecode counts as fresh for an edit within its second, of equal size."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _folder_of(source: str) -> str | None:
    if source.endswith(".py"):
        path = Path(source).resolve()
        return str((_packages(path) or [path])[-1].parent)
    top = source.partition(".")[0]
    # Not importlib.util.find_spec, which would also find what came from the current folder before. A finder of the
    # years before Python 3.4 has no find_spec, and is passed over by Python as well.
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return None if any(find and find(top, None) for find in finders) else str(Path.cwd())


def _packages(path: Path) -> list[Path]:
    """The folders of the packages that a file is in, the innermost first."""
    packages = []
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        packages.append(folder)
    return packages


def _is_own_package(name: str, folder: Path) -> bool:
    """Tell whether importing ``name`` gives the package in ``folder``, not an installed one of the same name."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == folder


def _lies_in(folder: str, module: ModuleType) -> bool:
    spec = module.__spec__
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return any(str(Path(place).parent) == folder for place in places)


def _bring_back(folder: str) -> None:
    """Put the folder's modules in place of other folders' modules of the same names."""
    others = (modules for other, modules in _neighbours.items() if other != folder)
    taken = {name: module for modules in others for name, module in modules.items()}
    for name, module in taken.items():
        top = name.partition(".")[0]
        clashes = (Path(folder) / f"{top}.py").is_file() or (Path(folder) / top).is_dir()
        if clashes and sys.modules.get(name) is module:
            del sys.modules[name]
    sys.modules.update(_neighbours.get(folder, {}))
