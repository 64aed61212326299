"""``daukit models``: the networks that daukit knows by name."""

from __future__ import annotations

from daukit.cli import options
from daukit.cli.report import print_json, print_table


def models(json: options.Json = False) -> None:
    """List the networks that --model and daukit.create_model know, with their units and parameters."""
    from daukit.models import MODELS
    from daukit.models.tables import empty_model, layer_counts, parameter_count

    entries = []
    for name, factory in MODELS.items():
        model = empty_model(name)
        units = sum(layer.units or 0 for layer in layer_counts(model))
        about = (factory.__doc__ or "").partition("\n")[0]
        entries.append({"name": name, "units": units, "parameters": parameter_count(model), "about": about})
    if json:
        print_json({"models": entries})
        return
    rows = [(entry["name"], entry["units"], entry["parameters"]) for entry in entries]
    print_table("networks, at their default sizes", ("name", "units", "parameters"), rows)
