"""``daukit models``: the networks that daukit knows by name."""

from __future__ import annotations

from daukit.cli import options
from daukit.cli.printing import print_answer, print_json, print_table, speak

EXAMPLES = ("daukit models", "daukit models --quiet")


def models(json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the networks that --model and daukit.create_model accept, with their units and parameters."""
    speak(json=json, quiet=quiet)
    from daukit.workflows.models import list_networks

    result = list_networks()
    print_json("models", result)
    for entry in result.models:
        print_answer(entry.name)
    rows = [(entry.name, entry.units, entry.parameters) for entry in result.models]
    print_table("Networks, at their default sizes", ("name", "units", "parameters"), rows)
