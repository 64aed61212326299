"""``daukit models``: the networks that daukit knows by name."""

from __future__ import annotations

from daukit.cli import options
from daukit.cli.report import print_answer, print_json, print_table, speak


def models(json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the networks that --model and daukit.create_model know, with their units and parameters."""
    speak(json=json, quiet=quiet)
    from daukit.models import MODELS
    from daukit.models.tables import empty_model, layer_counts, parameter_count

    entries = []
    for name, factory in MODELS.items():
        model = empty_model(name)
        units = sum(layer.units or 0 for layer in layer_counts(model))
        about = (factory.__doc__ or "").partition("\n")[0]
        entries.append({"name": name, "units": units, "parameters": parameter_count(model), "about": about})
    print_json("models", {"models": entries})
    for name in MODELS:
        print_answer(name)
    rows = [(entry["name"], entry["units"], entry["parameters"]) for entry in entries]
    print_table("networks, at their default sizes", ("name", "units", "parameters"), rows)
