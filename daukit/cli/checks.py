"""``daukit checks``: versions, backends and devices, with the reason why one does not run."""

from __future__ import annotations

from typing import Any

from daukit.cli import options
from daukit.cli.printing import print_json, print_table, speak
from daukit.results import as_json

EXAMPLES = ("daukit checks", "daukit checks --json")


def checks(json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Print versions, backends, threads and devices, for example for a bug report.

    For a backend that does not run here, print the reason.
    """
    speak(json=json, quiet=quiet)
    from daukit.workflows.checks import check_installation

    result = check_installation()
    print_json("checks", result)
    rows = [(name, "" if value is None else value) for name, value in _flat(as_json(result))]
    print_table("This machine", ("item", "state"), rows, answer=True)


def _flat(result: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in result.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {name}", state) for name, state in value.items()]
        else:
            rows.append((key.replace("_", " "), value))
    return rows
