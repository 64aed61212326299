"""``daukit prune``: remove the units of small weight, or print what every threshold would remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, print_line, print_table

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.pruning import PruneReport


def prune(
    source: options.Source,
    output: options.Output = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Remove units with |w| below this share of the reference.")
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(metavar="0,0.01,...", help="Print what each threshold would remove (Table 2); write nothing."),
    ] = None,
    relative_to: Annotated[
        Literal["layer", "channel", "network", "filter"], typer.Option(help="The reference is the largest |w| of this.")
    ] = "layer",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of IDX test images: measure the accuracy before and after, or of the sweep."),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    device: options.Device = "cpu",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Remove the units of small weight and write a smaller checkpoint (paper, section 4.2)."""
    if (threshold is None) == (thresholds is None):
        raise typer.BadParameter("give either --threshold or --thresholds", param_hint="--threshold")
    if threshold is not None and output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if thresholds is not None and output is not None:
        raise typer.BadParameter("a sweep writes no file; give one --threshold to write it", param_hint="--output")
    wanted = options.parse_numbers(thresholds, "--thresholds") if thresholds is not None else []
    options.check_device(device)
    from daukit.files import check_output

    if output is not None and not dry_run:
        check_output(output, overwrite=overwrite)
    checkpoint = options.read_source(source, model, model_arg)
    measure = _Accuracy(data, model, device, len(wanted) or 2)
    if threshold is None:
        _sweep(checkpoint, wanted, relative_to, measure, json)
    else:
        _prune(checkpoint, threshold, relative_to, measure, None if dry_run else output, overwrite, json)


class _Accuracy:
    """Measures accuracies where ``--data`` was given; gives None otherwise."""

    def __init__(self, data: Path | None, model: str | None, device: str, networks: int) -> None:
        from daukit.data import load_folder

        self.images = None if data is None else load_folder(data, "test")
        self.model, self.device, self.networks, self.done = model, device, networks, 0

    def __call__(self, checkpoint: Checkpoint) -> float | None:
        if self.images is None:
            return None
        from daukit.checkpoint import build_model
        from daukit.evaluation import evaluate, preprocessing_of

        network = build_model(checkpoint, model=self.model)
        with progress_bar(self.networks) as update:
            result = evaluate(
                network, self.images, preprocessing_of(network), device=self.device,
                on_batch=lambda done, total: update(self.done + done / total, f"network {self.done + 1}"),
            )  # fmt: skip
        self.done += 1
        return result.accuracy


def _prune(
    checkpoint: Checkpoint,
    threshold: float,
    relative_to: Any,
    measure: _Accuracy,
    output: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    from daukit.checkpoint import write
    from daukit.pruning import prune as prune_units

    pruned, report = prune_units(checkpoint, threshold, relative_to)
    result: dict[str, Any] = {**_summary(report), "output": None if output is None else str(output)}
    if measure.images is not None:
        result |= {"accuracy_before": measure(checkpoint), "accuracy_after": measure(pruned)}
    if output is not None:
        assert checkpoint.path is not None
        before = checkpoint.path.stat().st_size
        result |= {"bytes_before": before, "bytes_after": write(pruned, output, overwrite=overwrite)}
    if json:
        print_json(result)
        return
    rows = [
        (c["name"], c["units_before"], c["units_after"], _removed(c["units_before"], c["units_after"]))
        for c in result["layers"]
    ]
    rows.append(("total", report.units_before, report.units_after, _removed(report.units_before, report.units_after)))
    print_table(
        f"Units with |w| < {threshold:g} x the largest of their {relative_to}",
        ("layer", "before", "after", "% removed"),
        rows,
    )
    if "accuracy_before" in result:
        print_line(f"accuracy {result['accuracy_before']:.2%} -> {result['accuracy_after']:.2%}")
    if output is not None:
        print_line(f"{output}: {result['bytes_before']:,} -> {result['bytes_after']:,} bytes")
    else:
        note("dry run: nothing was written")


def _sweep(checkpoint: Checkpoint, thresholds: list[float], relative_to: Any, measure: _Accuracy, json: bool) -> None:
    from daukit.pruning import prune as prune_units
    from daukit.pruning import sweep

    entries: list[dict[str, Any]] = []
    for report in sweep(checkpoint, thresholds, relative_to):
        entry: dict[str, Any] = {"threshold": report.threshold, "units": report.units_after}
        if measure.images is not None:
            entry["accuracy"] = measure(prune_units(checkpoint, report.threshold, relative_to)[0])
        entries.append(entry)
    before = sum(checkpoint.layer(name).weight.numel() for name in checkpoint.layer_names)
    if json:
        print_json({"units_before": before, "relative_to": relative_to, "sweep": entries})
        return
    rows = []
    for e in entries:
        accuracy = [f"{e['accuracy']:.2%}"] if "accuracy" in e else []
        rows.append((f"{e['threshold']:g}", *accuracy, e["units"], _removed(before, e["units"])))
    columns = ("threshold", *(["accuracy"] if measure.images is not None else []), "units", "% removed")
    print_table(f"Threshold relative to the largest |w| of the {relative_to}", columns, rows)


def _summary(report: PruneReport) -> dict[str, Any]:
    return {
        "threshold": report.threshold,
        "relative_to": report.relative_to,
        "units_before": report.units_before,
        "units_after": report.units_after,
        "layers": [
            {"name": c.name, "units_before": c.units_before, "units_after": c.units_after} for c in report.layers
        ],
    }


def _removed(before: int, after: int) -> str:
    return f"{100 * (before - after) / before:.1f}" if before else "0.0"
