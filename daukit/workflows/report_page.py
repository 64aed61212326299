"""The page of a report: its sections, and those of them that are facts and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from daukit._version import __version__
from daukit.page import Block, Cell, Download, Facts, Page, Section, Table, Text, Timed, TimeLine
from daukit.texts import csv_text
from daukit.workflows import report_figures as figures
from daukit.workflows import report_words as words
from daukit.workflows.evaluate_results import DeblurringEvaluation, Evaluation, SegmentationEvaluation, csv_of
from daukit.workflows.headlines import headline_of, value_of
from daukit.workflows.info import HistoryEntry, architecture_in_words
from daukit.workflows.labels import labels_of
from daukit.workflows.report import MeasuredNetwork
from daukit.workflows.report_figures import Named, file_name

_LAYER_COLUMNS = (
    "layer", "inputs", "outputs", "units", "per filter", "parameters", "sigma", "limit", "mean distance",
    "largest distance", "at the limit, %",
)  # fmt: skip

_NETWORK = "network"


def page_of(measured: Sequence[MeasuredNetwork], data: Path | None) -> Page:
    """Put a page together of networks, of which the first one is what it is about; ``data``: as in ``make_report``."""
    labels = labels_of([one.checkpoint.path or "the model" for one in measured])
    networks = list(zip(labels, measured, strict=True))
    sections = [
        Section("summary", "Summary", _summary(networks)),
        Section("history", "How it was made", _histories(networks)),
        Section("layers", "Layers", _layers(networks)),
        Section("displacements", "Where units are", figures.displacements(networks)),
        Section("moves", "What moved", figures.moves(networks)),
        Section("sigmas", "How wide units are", figures.sigmas(networks)),
        Section("weights", "How large weights are", figures.weights(networks)),
        Section("pruning", "What pruning would leave", figures.pruning(networks)),
        Section("fields", "What layers see", figures.fields(networks, data)),
        Section("scores", "Scores", _scores(networks)),
        Section("missing", "What is not here", _missing(networks)),
    ]
    others = "" if len(networks) == 1 else f", beside {words.names([label for label, _ in networks[1:]])}"
    footer = (
        f"Made by daukit {__version__}. Displacements and distances are in pixels of a layer's input, and units count "
        "by the size of their weights; receptive fields are in pixels of the image."
    )
    subtitle = f"{architecture_in_words(measured[0].info.architecture)}{others}"
    return Page(networks[0][0], subtitle, [section for section in sections if section.blocks], footer)


def _summary(networks: Named) -> list[Block]:
    """The totals: of one network as facts, of several as a table with a column each."""
    facts = {label: dict(_totals(network)) for label, network in networks}
    if len(networks) == 1:
        return [Facts([fact for fact in facts[networks[0][0]].items() if fact[0] != _NETWORK])]
    names = dict.fromkeys(name for own in facts.values() for name in own)
    rows = [[name, *(own.get(name) for own in facts.values())] for name in names]
    return [Table("Side by side", ["measure", *facts], rows, sorts=False)]


def _totals(network: MeasuredNetwork) -> Iterator[tuple[str, str]]:
    info = network.info
    yield _NETWORK, architecture_in_words(info.architecture)
    yield "DAU layers", f"{len(info.layers):,}"
    yield "units", f"{info.units:,}"
    yield "parameters", f"{info.parameters:,}"
    if info.bytes is not None:
        yield "bytes of the file", f"{info.bytes:,}"
    if info.input is not None and info.multiply_adds is not None:
        yield f"multiply-adds for {_size(info.input[1:])}", f"{info.multiply_adds:,}"
    headline = headline_of(network.evaluation)
    if headline is not None:
        yield f"{headline.title} on test images", headline.text(value_of(network.evaluation)) or ""
    yield "trained", "yes" if any(entry.operation == "train" for entry in info.history) else "not known"
    if network.times is not None:
        of = f"{network.times.input[0]} images of {_size(network.times.input[1:])}"
        for name, times in (("forward", network.times.plain), ("prepared forward", network.times.prepared)):
            yield f"{name}, {of}", f"{times.median:.2f} ms ({times.lower:.2f} to {times.upper:.2f})"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _histories(networks: Named) -> list[Block]:
    blocks: list[Block] = []
    for label, network in networks:
        if len(networks) > 1:
            blocks.append(Text(f"{label}:" if network.info.history else f"{label}: its history mentions nothing."))
        elif not network.info.history:
            blocks.append(Text("The file's history mentions nothing."))
        if network.info.history:
            blocks.append(TimeLine([_timed(entry) for entry in network.info.history]))
    return blocks


def _timed(entry: HistoryEntry) -> Timed:
    return Timed(
        entry.operation, entry.date[:16].replace("T", " "), [*_arguments(entry.arguments), ("daukit", entry.version)]
    )


def _arguments(arguments: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in arguments.items():
        if isinstance(value, dict):
            yield key, ", ".join(f"{name} = {item}" for name, item in value.items())
        elif isinstance(value, list):
            yield key, ", ".join(map(str, value))
        elif value is not None:
            yield key, str(value)


def _layers(networks: Named) -> list[Block]:
    blocks: list[Block] = []
    for label, network in networks:
        rows: list[list[Cell]] = [
            [
                e.name, e.in_channels, e.out_channels, e.units, e.units_per_filter, e.parameters,
                "learned" if e.sigma is None else e.sigma, e.max_displacement, e.mean_displacement,
                e.largest_displacement, 100 * e.share_at_limit,
            ]
            for e in network.info.layers
        ]  # fmt: skip
        if rows:
            csv = Download(f"{file_name(label)}-layers.csv", csv_text(_LAYER_COLUMNS, rows))
            note = "Distances are Euclidean, in pixels of the layer's input; the limit is that of each axis."
            blocks.append(Table(f"DAU layers of {label}", _LAYER_COLUMNS, rows, csv, note))
        else:
            blocks.append(Text(f"{label} has no DAU layer."))
        if network.info.modules:
            blocks.append(_others(label, network))
    return blocks


def _others(label: str, network: MeasuredNetwork) -> Table:
    """What was rescaled, narrowed or replaced: the modules that its factory would make otherwise."""
    rows: list[list[Cell]] = []
    for name, module in network.info.modules.items():
        options = [f"{key} = {value}" for key, value in module.items() if key != "type"]
        rows.append([name, str(module.get("type", "")), ", ".join(options)])
    return Table(f"Modules of {label} that its factory would make otherwise", ["module", "type", "options"], rows)


def _scores(networks: Named) -> list[Block]:
    blocks: list[Block] = []
    for label, network in networks:
        if network.evaluation is not None:
            columns, rows = _score_table(network.evaluation)
            csv = Download(f"{file_name(label)}-scores.csv", csv_of(network.evaluation))
            blocks.append(Table(f"{label} on {network.evaluation.images:,} test images", columns, rows, csv))
    return blocks


def _score_table(result: Evaluation) -> tuple[list[str], list[list[Cell]]]:
    if isinstance(result, DeblurringEvaluation):
        return ["images", "PSNR, dB", "SSIM"], [["all images", result.psnr, result.ssim]]
    count = len(result.class_accuracy)
    names = [result.class_names[i] if i < len(result.class_names) else str(i) for i in range(count)]
    rows: list[list[Cell]]
    if isinstance(result, SegmentationEvaluation):
        each = zip(names, result.class_iou, result.class_accuracy, strict=True)
        rows = [[name, _percent(iou), _percent(accuracy)] for name, iou, accuracy in each]
        rows.append(["mean", _percent(result.mean_iou), _percent(result.mean_accuracy)])
        return ["class", "IoU, %", "accuracy, %"], rows
    rows = [[name, _percent(share)] for name, share in zip(names, result.class_accuracy, strict=True)]
    return ["class", "accuracy, %"], [*rows, ["all images", _percent(result.accuracy)]]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _missing(networks: Named) -> list[Block]:
    return [
        Text(f"{label}: no {missing.part}. {missing.reason}")
        for label, network in networks
        for missing in network.missing
    ]
