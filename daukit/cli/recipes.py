"""``daukit recipes``: the trainings of the paper, as ``daukit train --recipe`` takes them."""

from __future__ import annotations

from typing import Annotated

import typer

from daukit.cli import options
from daukit.cli.printing import is_json, print_answer, print_json, print_table, print_text, speak

EXAMPLES = ("daukit recipes", "daukit recipes alexnet-dau-medium")


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Recipe to print as TOML. If omitted, lists all.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List the recipes that `daukit train --recipe` takes by name, or print one."""
    speak(json=json, quiet=quiet)
    from daukit.workflows.recipes import list_recipes, show_recipe

    if name is not None:
        options.refuse_unused("a recipe is printed as it is; drop it", "--quiet")
        with options.usage_of("NAME"):
            content = show_recipe(name)
        print_json("recipes", content)
        if not is_json():
            print_text(content.toml)
        return
    result = list_recipes()
    print_json("recipes", result)
    for entry in result.recipes:
        print_answer(entry.name)
    rows = [
        (entry.name, entry.table, entry.section, entry.network, entry.task, entry.data, entry.prints)
        for entry in result.recipes
    ]
    columns = ("recipe", "table", "section", "network", "task", "data", "the paper prints")
    print_table("Recipes", columns, rows)
