"""Gather what the site of documents is made of: ``python docs/site.py FOLDER``; ``make docs`` calls it.

FOLDER mirrors the repository, so that links lead where they do there, and has an API reference: a page for each room
that a user may import, with the names that it exports.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
import sys
from pathlib import Path

import daukit

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/*.md", "docs/images/*", "examples/*/*.md")
PICTURES = "examples/*/*.png"
ROOMS = (
    "nn", "ops", "models", "preprocessing", "checkpoint", "pruning", "channels", "snapping", "offsets", "erf",
    "receptive_field", "rescale", "preparation", "baking", "export", "substitution", "fitting", "importers", "datasets",
    "tasks", "evaluation", "training", "distributed", "errors",
)  # fmt: skip
COMMANDS_WORK = ("prune", "sweep", "evaluate", "erf", "offsets", "rescale", "report", "export", "predict", "train")
"""Files of ``daukit.workflows`` whose functions do the work of commands."""


def main() -> None:
    """Write the folder anew."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    for pattern in (*COPIED, PICTURES):
        for path in sorted(ROOT.glob(pattern)):
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    pages = [*(f"daukit.{room}" for room in ROOMS), *(f"daukit.workflows.{name}" for name in COMMANDS_WORK)]
    (folder / "api").mkdir()
    places: dict[str, str] = {}
    for page in pages:
        (folder / "api" / f"{page}.md").write_text(reference(page, places), encoding="utf-8")
    (folder / "api" / "index.md").write_text(overview(pages, places), encoding="utf-8")


def overview(pages: list[str], places: dict[str, str]) -> str:
    """The first page of the reference: the names that ``import daukit`` gives, and the rooms."""
    names = [f"{value.__module__}.{value.__qualname__}" for value in map(daukit.__getattr__, sorted(daukit._HOME))]
    given = "\n".join(f"- [`daukit.{name.rpartition('.')[2]}`]({places[name]}.md#{name})" for name in names)
    listed = "\n".join(f"- [`{page}`]({page}.md): {summary(page)}" for page in pages)
    return f"# API reference\n\n`import daukit` gives\n\n{given}\n\nand these modules have more:\n\n{listed}\n"


def reference(page: str, places: dict[str, str]) -> str:
    """The page of a module: what it is, and every name that it exports and no page before it has.

    Args:
        page: the module.
        places: the page of each name that is documented already; those of this page are added.
    """
    module = importlib.import_module(page)
    parts = [f"# {page}", inspect.cleandoc(module.__doc__ or "")]
    for name in exported(module):
        value = getattr(module, name)
        if not (inspect.isfunction(value) or inspect.isclass(value)) or not value.__module__.startswith("daukit"):
            continue
        home = f"{value.__module__}.{value.__qualname__}"
        if places.setdefault(home, page) == page:
            parts.append(f"::: {home}\n    options:\n      heading_level: 2")
    return "\n\n".join(parts) + "\n"


def exported(module: object) -> list[str]:
    """The names of ``__all__``; else those that a package imports, or a file defines, and that have no underscore."""
    names = getattr(module, "__all__", None)
    own = getattr(module, "__name__", "")
    if names is not None:
        return sorted(names)
    is_package = hasattr(module, "__path__")
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (is_package or getattr(value, "__module__", None) == own)
    )


def summary(page: str) -> str:
    """The first sentence of a module."""
    return inspect.cleandoc(importlib.import_module(page).__doc__ or "").split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
