"""Recipes: a network, its data and the options of its training, as a frozen dataclass and as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from daukit.datasets import Layout
from daukit.errors import RecipeError
from daukit.models.specs import architecture_of
from daukit.tasks import TaskName, task_name
from daukit.texts import did_you_mean, read_text
from daukit.training.options import TrainingOptions
from daukit.training.recipe_rules import CHANGES, TRAINING, faults
from daukit.training.toml import parse_toml, toml_text

SUFFIX = ".toml"


@dataclass(frozen=True)
class About:
    """What a recipe is of; nothing depends on it.

    Attributes:
        title: what is trained, in a line.
        data: what it learns from.
        table: table of the paper that has the result.
        section: section of the paper that describes the training.
        prints: the result as the paper prints it.
    """

    title: str = ""
    data: str = ""
    table: str = ""
    section: str = ""
    prints: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that a training depends on, but for the images and the file that it may start from.

    Attributes:
        options: how the network learns, and how images change.
        model: a name of ``daukit.models`` or a factory; None: the network of the initial checkpoint, or
            ``shallow_dau``.
        config: its options; those that depend on the images are added to a network of daukit's.
        layout: how the images lie in their folder; None: found as by ``open_dataset``.
        crop: (height, width) of random parts that a network for segmentation or deblurring learns from; None:
            769x769 and 256x256.
        scale: bounds of a random factor on the size of pictures with masks; None: sizes stay.
        start: in words, the file that the training starts from; None where it needs none.
        about: what the recipe is of.
        name: what it is called; None if it comes from no file.
    """

    options: TrainingOptions = field(default_factory=TrainingOptions)
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    start: str | None = None
    about: About = About()
    name: str | None = None

    @property
    def task(self) -> TaskName | None:
        """What the network is for; None where the recipe names none."""
        return None if self.model is None else task_name(architecture_of(self.model, self.config))

    def tables(self) -> dict[str, Any]:
        """The recipe as TOML has it: tables by name, without options that nothing uses."""
        options = {key: _plain(value) for key, value in asdict(self.options).items() if value is not None}
        network = {"model": self.model, "from": self.start, "options": _plain(self.config)}
        data = {"layout": self.layout, **{key: options.get(key) for key in CHANGES}}
        data |= {"crop": _plain(self.crop), "scale": _plain(self.scale)}
        training = {key: options.get(key) for key in TRAINING if not self.options.idles(key)}
        tables = {"about": asdict(self.about), "network": network, "data": data, "training": training}
        kept = {name: {k: v for k, v in table.items() if v not in (None, "", {})} for name, table in tables.items()}
        return {name: table for name, table in kept.items() if table}

    def to_toml(self) -> str:
        """The recipe as text that ``parse_recipe`` reads."""
        return toml_text(self.tables())

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of some keys.

        Args:
            values: by key, as ``"training.epochs"``; None takes the key out.

        Raises:
            ValueError: there is no such key, it takes no such value, or another option makes it useless.
        """
        tables = self.tables()
        for key, value in values.items():
            _put(tables, key, value)
        recipe = replace(_recipe_of(tables), name=self.name)
        _refuse_idle(recipe.options, [key for key, value in values.items() if value is not None])
        return recipe


def parse_recipe(text: str, called: str, name: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        text: TOML.
        called: what messages call it, as its path.
        name: the name that it gets.

    Raises:
        RecipeError: the text is no TOML, or has keys that a recipe has not, or wrong values; all of them are named.
    """
    try:
        tables = parse_toml(text)
        recipe = replace(_recipe_of(tables), name=name)
        _refuse_idle(recipe.options, [f"training.{key}" for key in tables.get("training", ())])
    except ValueError as error:
        raise RecipeError(f"{called}: {error}") from None
    return recipe


def parse_value(text: str) -> Any:
    """The value of a key, as TOML has it; what is no TOML is a text."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def read_recipe(source: str | Path) -> Recipe:
    """Read the recipe that has this name among those of daukit, or, if it ends in ``.toml``, a file.

    Raises:
        ValueError: there is no recipe of that name.
        RecipeError: as ``parse_recipe``, or the file cannot be read.
    """
    path = Path(source)
    if path.suffix == SUFFIX:
        return parse_recipe(read_text(path, error=RecipeError), str(path), path.stem)
    return parse_recipe(recipe_text(str(source)), str(source), str(source))


def recipe_names() -> list[str]:
    """Names of daukit's own recipes, sorted."""
    folder = files("daukit") / "recipes"
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))


def recipe_text(name: str) -> str:
    """The TOML of one of daukit's recipes, with its comments.

    Raises:
        ValueError: there is none of that name.
    """
    names = recipe_names()
    if name not in names:
        raise ValueError(f"there is no recipe {name!r}{did_you_mean(name, names)}; daukit recipes lists them")
    return (files("daukit") / "recipes" / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def _recipe_of(tables: Mapping[str, Any]) -> Recipe:
    """The recipe of tables, without a name. Raises ``ValueError`` with a sentence for every wrong key."""
    wrong = faults(tables)
    if wrong:
        raise ValueError(wrong[0] + (f" (and: {'; '.join(wrong[1:])})" if wrong[1:] else ""))
    network, data = dict(tables.get("network", {})), dict(tables.get("data", {}))
    options = {**tables.get("training", {}), **{key: data.pop(key) for key in CHANGES if key in data}}
    try:
        chosen = TrainingOptions(**{key: _frozen(value) for key, value in options.items()})
    except ValueError as error:
        raise ValueError(f"training.{error}") from None
    data = {key: _frozen(value) for key, value in data.items()}
    config, about = network.get("options", {}), About(**tables.get("about", {}))
    return Recipe(chosen, network.get("model"), config, **data, start=network.get("from"), about=about)


def _refuse_idle(options: TrainingOptions, keys: list[str]) -> None:
    for key in keys:
        cause = options.idles(key.removeprefix("training."))
        if cause is not None:
            raise ValueError(f"{key} does nothing with training.{cause}; drop it")


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key, or take it out."""
    *path, last = key.split(".")
    if not path:
        raise ValueError(f"{key!r} is no key of a recipe; write its table, too, as training.epochs")
    table = tables
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"there is no key {key}: {part} is no table")
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dictionaries."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
