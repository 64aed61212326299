"""One pruning of ``daukit prune``: the steps, what they changed, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.cli import options
from daukit.cli.costs import file_cost, in_words_of
from daukit.cli.measures import Accuracy, time_networks
from daukit.cli.report import change, note, print_answer, print_json, print_line, print_table, wrote
from daukit.errors import naming

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.pruning import PruneReport, Rule


@dataclass(frozen=True)
class Job:
    """What the command line asks for; ``output`` is None in a dry run."""

    rule: Rule | None
    merge_within: float | None
    drop_channels: bool
    data: Path | None
    time: bool
    size: tuple[int, int] | None
    model: str | None
    model_arg: Sequence[str] | None
    weights: str | None
    device: str
    output: Path | None
    overwrite: bool


def run(source: Path, job: Job) -> None:
    """Merge, prune, drop channels, measure, write and tell."""
    from daukit.checkpoint import Checkpoint, is_daukit_file
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.pruning import prune_file

    if job.output is not None:
        check_output(job.output, overwrite=job.overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    asks_network = job.model or job.model_arg or job.weights
    others = job.merge_within is not None or job.drop_channels or job.data or job.time or asks_network
    if job.rule is not None and not others and is_daukit_file(source):
        with naming(str(source)):
            done = prune_file(source, job.rule, job.output, overwrite=job.overwrite)
        report: PruneReport | None = done.report
        result = _summary(done.report, done.report.units_by_layer) | {
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
        }
        network = Checkpoint(done.header, {}, source)
        result |= _costs(network, network, done.report.units_by_layer, job.model)
    else:
        report, result = _in_memory(options.read_source(source, job.model, job.model_arg, job.weights), job)
    result["output"] = None if job.output is None else str(job.output)
    print_json("prune", result)
    _print(report, result)


def _in_memory(before: Checkpoint, job: Job) -> tuple[PruneReport | None, dict[str, Any]]:
    """All steps, on the whole network."""
    from daukit.channels import drop_channels
    from daukit.checkpoint import stored_bytes, write
    from daukit.pruning import merge, select
    from daukit.pruning.removal import remove_units

    after, report, merged, channels = before, None, None, None
    with naming(str(before.path)):
        if job.merge_within is not None:
            after, merged = merge(after, job.merge_within)
        if job.rule is not None:
            report, keeps = select(after, job.rule)
            after = remove_units(after, keeps, "prune", job.rule.to_json())
        if job.drop_channels:
            after, channels = drop_channels(after, model=job.model)
    units = {name: (_units(before, name), _units(after, name)) for name in before.layer_names}
    result = _summary(report, units) | _costs(before, after, units, job.model)
    if merged is not None:
        result["merge"] = {"within": job.merge_within, "layers": [asdict(layer) for layer in merged]}
    if channels is not None:
        result["channels"] = [asdict(layer) for layer in channels]
    if job.data is not None:
        measure = Accuracy(job.data, job.model, job.device, 2)
        for when, network in (("before", before), ("after", after)):
            result[f"accuracy_{when}"] = measure(network).accuracy
    if job.time:
        result["time"] = time_networks(before, after, job.size, model=job.model, device=job.device)
    result["bytes_before"] = before.file_size
    if job.output is None:
        result["bytes_after"] = stored_bytes(after)
    else:
        result["bytes_after"] = write(after, job.output, overwrite=job.overwrite)
    return report, result


def _costs(
    before: Checkpoint, after: Checkpoint, units: Mapping[str, tuple[int, int]], model: str | None
) -> dict[str, Any]:
    """Multiply-adds of one image, of the network of ``before`` and of that of ``after``."""
    first = file_cost(before, {name: counts[0] for name, counts in units.items()}, model)
    second = file_cost(after, {name: counts[1] for name, counts in units.items()}, model)
    named = {"multiply_adds_before": first["multiply_adds"], "multiply_adds_after": second["multiply_adds"]}
    return {"input": first["input"], **named}


def _units(checkpoint: Checkpoint, layer: str) -> int:
    return checkpoint.layer(layer).weight.numel()


def _summary(report: PruneReport | None, units: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """What was asked for and what became of the units, {layer: (before, after)}."""
    rule = None if report is None else report.rule
    thresholds = {} if report is None else {layer.name: layer.threshold for layer in report.layers}
    return {
        "threshold": rule and rule.threshold,
        "layer_thresholds": dict(rule.layer_thresholds) if rule else {},
        "units": rule and rule.units,
        "remove": rule and rule.remove,
        "relative_to": rule and rule.relative_to,
        "seed": rule and rule.seed,
        "least_kept": report and report.least_kept,
        "ties": report and report.ties,
        "units_before": sum(before for before, _ in units.values()),
        "units_after": sum(after for _, after in units.values()),
        "layers": [
            {"name": name, "threshold": thresholds.get(name), "units_before": before, "units_after": after}
            for name, (before, after) in units.items()
        ],
    }


def _print(report: PruneReport | None, result: dict[str, Any]) -> None:
    rows = [(c["name"], c["units_before"], c["units_after"]) for c in result["layers"]]
    rows.append(("total", result["units_before"], result["units_after"]))
    table: list[tuple[object, ...]] = [(*row, removed(*row[1:])) for row in rows]
    columns = ["layer", "before", "after", "% removed"]
    if result["layer_thresholds"]:
        columns.append("threshold")
        table = [(*row, t) for row, t in zip(table, [*(c["threshold"] for c in result["layers"]), None], strict=True)]
    print_table(_title(report), columns, table)
    if result["ties"] is not None:
        kept = result["least_kept"]
        least = "no unit stays" if kept is None else f"the smallest unit that stays has {kept:.6g} of its reference"
        print_line(f"{least}; {result['ties']:,} like it went, the first in the file first")
    for layer in result.get("merge", {}).get("layers", ()):
        gone = layer["units_before"] - layer["units_after"]
        if gone:
            print_line(
                f"{layer['name']}: merged {gone:,} units into others, moved by up to {layer['moved']:.3g} px; its "
                f"filters changed by {layer['error']:.2g} of their norm"
            )
    _print_channels(result.get("channels", ()))
    if "accuracy_before" in result:
        print_line(f"accuracy {result['accuracy_before']:.2%} -> {result['accuracy_after']:.2%}")
    if "time" in result:
        before, after = (result["time"][when]["median"] for when in ("before", "after"))
        shape = " x ".join(map(str, result["time"]["input"]))
        print_line(f"time of {shape}: {change(before, after, 'ms')}")
    adds = result["multiply_adds_before"], result["multiply_adds_after"]
    if None not in adds:
        print_line(f"{in_words_of(result)}: {change(*adds, 'multiply-adds')}")
    print_line(f"file: {change(result['bytes_before'], result['bytes_after'], 'bytes')}")
    wrote(result["output"])
    if result["output"] is None:
        print_answer(result["units_after"])
        note("dry run: nothing was written")


def _print_channels(layers: Sequence[dict[str, Any]]) -> None:
    for layer in layers:
        if layer["dropped"]:
            folded = f", of which {len(layer['folded']):,} went into a bias" if layer["folded"] else ""
            print_line(f"{layer['name']}: dropped {len(layer['dropped']):,} channels{folded}")
        if layer["constant"]:
            print_line(f"{layer['name']}: {len(layer['constant']):,} constant channels stay: {layer['reason']}")


def _title(report: PruneReport | None) -> str:
    if report is None:
        return "No unit removed for its weight"
    rule = report.rule
    if rule.is_budget:
        gone = report.units_before - report.units_after
        title = f"{gone:,} units removed, those of the smallest |w| relative to the largest of their {rule.relative_to}"
    else:
        one = {layer.threshold for layer in report.layers}
        share = f"{one.pop():g}" if len(one) == 1 else "the threshold of their layer"
        title = f"Units with |w| < {share} x the largest of their {rule.relative_to}"
    return title if rule.seed is None else f"{title}; as many of every layer, at random (seed {rule.seed})"


def removed(before: int, after: int) -> str:
    """The share of units that went, in percent."""
    return f"{100 * (before - after) / before:.1f}" if before else "0.0"
