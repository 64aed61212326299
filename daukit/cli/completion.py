"""``daukit completion``: the script that makes a shell complete daukit's commands, options and layers."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from daukit.cli.printing import print_text
from daukit.errors import DaukitError
from daukit.texts import parse_json

VARIABLE = "_DAUKIT_COMPLETE"
"""Environment variable that a shell sets to ask for completions, by typer's convention."""

EXAMPLES = ("daukit completion bash", "daukit completion fish")


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="Shell that will read the script.")
    ],
) -> None:
    """Print a script that makes a shell complete daukit's commands, options and layers.

    For bash, add `eval "$(daukit completion bash)"` to ~/.bashrc.
    """
    # In this process: another one, started as Python starts, would look for its modules in the current folder first.
    # The script is the same for every program but for its name, so a program without commands will do.
    program = typer.Typer(add_completion=True)
    program.command()(lambda: None)
    os.environ[VARIABLE] = f"source_{shell}"
    script = io.StringIO()
    with redirect_stdout(script), suppress(SystemExit):
        typer.main.get_command(program).main(args=[], prog_name=Path(sys.argv[0]).name, complete_var=VARIABLE)
    del os.environ[VARIABLE]  # a program that this process starts is not asked for completions
    print_text(script.getvalue())


def complete_layer(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the DAU layers of the command's FILE, read from its header alone: a shell does not wait for torch."""
    # An option that still lacks its value ends the parsing: FILE then is one of the words left over.
    words = filter(None, [ctx.params.get("source"), *ctx.args])
    return [name for word in words for name in _layer_names(Path(word)) if name.startswith(incomplete)]


def _layer_names(path: Path) -> list[str]:
    """Names of DAU layers; none where there is no daukit file, as a completion has nowhere to complain.

    Names with anything but letters, digits, dots and dashes stay unsaid: shells evaluate what they complete.
    """
    try:
        with path.open("rb") as file:
            header: Any = parse_json(file.read(min(int.from_bytes(file.read(8), "little"), 1 << 27)), path)
        names = [layer["name"] for layer in parse_json(header["__metadata__"]["daukit"], path)["layers"]]
        return [name for name in names if re.fullmatch(r"[\w.-]+", name)]
    except (DaukitError, OSError, LookupError, TypeError):
        return []
