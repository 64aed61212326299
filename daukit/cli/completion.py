"""``daukit completion``: what a shell needs to complete daukit's commands, options and layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

VARIABLE = "_DAUKIT_COMPLETE"
"""What a shell sets to ask for completions; typer's convention."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell to write for.")],
) -> None:
    """Print a shell's completion script: put `eval "$(daukit completion bash)"` into ~/.bashrc."""
    script = f"{Path(sys.argv[0]).name}"
    run = [sys.executable, "-c", f"import sys; sys.argv[0] = {script!r}; from daukit.cli.main import app; app()"]
    done = subprocess.run(
        run, env={**os.environ, VARIABLE: f"source_{shell}"}, capture_output=True, text=True, check=True
    )
    typer.echo(done.stdout, nl=False)


def complete_layer(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the DAU layers of the command's FILE, read from its header alone: a shell does not wait for torch."""
    # An option that still lacks its value ends the parsing: FILE then is one of the words left over.
    words = filter(None, [ctx.params.get("source"), *ctx.args])
    return [name for word in words for name in _layer_names(Path(word)) if name.startswith(incomplete)]


def _layer_names(path: Path) -> list[str]:
    """No names where there is no daukit file: a completion has nowhere to complain."""
    try:
        with path.open("rb") as file:
            header: Any = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 1 << 27)))
        return [layer["name"] for layer in json.loads(header["__metadata__"]["daukit"])["layers"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
