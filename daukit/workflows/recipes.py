"""List the recipes that daukit brings, and show one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from daukit.results import result_of
from daukit.training import Recipe, read_recipe, recipe_names, recipe_text


@dataclass(frozen=True, kw_only=True)
class RecipeSummary:
    """What a recipe trains.

    Attributes:
        name: the name that ``daukit train --recipe`` takes.
        title: what is trained, in a line.
        table: table of the paper that has the result; empty where it is in the text.
        section: section of the paper that describes the training.
        prints: the result as the paper prints it.
        network: the network's name; None where the recipe takes that of the initial checkpoint.
        task: what the network is for; None likewise.
        data: what it learns from.
        start: in words, the file that the training starts from; None where it needs none.
    """

    name: str
    title: str
    table: str
    section: str
    prints: str
    network: str | None
    task: str | None
    data: str
    start: str | None


@dataclass(frozen=True, kw_only=True)
class RecipeList:
    """The recipes that daukit brings.

    Attributes:
        recipes: one entry per recipe.
    """

    recipes: tuple[RecipeSummary, ...]


@dataclass(frozen=True, kw_only=True)
class RecipeContent(RecipeSummary):
    """A recipe and its text.

    Attributes:
        toml: its file.
    """

    toml: str


def list_recipes() -> RecipeList:
    """List daukit's own recipes by name."""
    return RecipeList(recipes=tuple(_summary(read_recipe(name)) for name in recipe_names()))


def show_recipe(name: str) -> RecipeContent:
    """Show one of daukit's recipes, with the comments of its file.

    Raises:
        ValueError: there is none of that name.
    """
    return result_of(RecipeContent, _summary(read_recipe(name)), toml=recipe_text(name))


def _summary(recipe: Recipe) -> RecipeSummary:
    return RecipeSummary(
        name=recipe.name or "", network=recipe.model, task=recipe.task, start=recipe.start, **asdict(recipe.about)
    )
