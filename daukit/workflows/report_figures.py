"""The sections of a report that are figures: where units are, what moved, and what layers see."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daukit import offsets
from daukit.erf.samples import areas_and_levels
from daukit.page import Block, Download, Drawing, Figure, Figures, Slider, Table, Text
from daukit.texts import csv_text, visible
from daukit.workflows import report_words as words
from daukit.workflows.erf_outputs import panel_of
from daukit.workflows.headlines import Headline, headline_of, value_of
from daukit.workflows.outputs import svg_of
from daukit.workflows.report import MeasuredNetwork
from daukit.workflows.sweep import Sweep, curves_of, sweep_to_csv

SHARES = (*(n / 20 for n in range(1, 20)), 0.99, 0.999)
"""Shares of the influence that the slider offers."""

Named = Sequence[tuple[str, MeasuredNetwork]]
"""The networks, each with what the page calls it."""


def displacements(networks: Named) -> list[Block]:
    """Where units are: distances, and the plane with a switch for weight filters."""
    from daukit.plots.cards import density_card, distance_card

    figures = []
    for title, name, layer in _by_layer(networks, "displacements"):
        shown = words.of_displacements(layer)
        drawings = [Drawing(svg_of(distance_card(layer)), f"Distances of units to the centre. {shown}")]
        for each in layer.distributions:
            finding = f"Where units are in the plane: {each.label}, {each.units:,} of {layer.units:,}. {shown}"
            drawings.append(Drawing(svg_of(density_card(layer, each)), finding, each.label))
        figures.append(Figure(title, shown, drawings, f"{name}-displacements"))
    if not figures:
        return []
    everything = [layer for _, network in networks for layer in network.displacements]
    labels = [each.label for each in everything[0].distributions]
    csv = Download("displacements.csv", offsets.to_csv(everything))
    return [Figures(figures, "Units in the plane", labels, csv)]


def moves(networks: Named) -> list[Block]:
    """What moved from other networks to the first one."""
    from daukit.plots.changes import plot_changes

    first, *others = networks
    blocks: list[Block] = []
    for label, network in others:
        figures, still = [], []
        for layer in network.changes or ():
            if not layer.mean_distance:
                still.append(layer.name)
                continue
            shown = words.of_changes(layer)
            drawn = svg_of(plot_changes([replace(layer, name=visible(layer.name))]))
            title, name = f"{layer.name}, from {label} to {first[0]}", file_name(f"{label}-{layer.name}-moves")
            figures.append(Figure(title, shown, [Drawing(drawn, f"How units moved. {shown}")], name, wide=True))
        if still:
            blocks.append(Text(f"From {label} to {first[0]} no unit moved in {words.names(still)}."))
        if figures:
            csv = Download(f"{file_name(label)}-moves.csv", offsets.changes_to_csv(network.changes or ()))
            blocks.append(Figures(figures, csv=csv))
    return blocks


def sigmas(networks: Named) -> list[Block]:
    """How wide units are: a sentence on layers with one sigma, figures of those with several."""
    from daukit.plots.cards import sigma_card

    single, figures, drawn = [], [], []
    for title, name, layer in _by_layer(networks, "sigmas"):
        shown = words.of_sigmas(layer)
        if layer.now.low == layer.now.high:
            single.append(title if layer.now.low is None else f"{title}: {layer.now.low:.3g}")
            continue
        figures.append(Figure(title, shown, [Drawing(svg_of(sigma_card(layer)), shown)], f"{name}-sigmas"))
        drawn.append(layer)
    blocks: list[Block] = []
    if single:
        blocks.append(Text(f"In pixels, the same for all units of a layer: {', '.join(single)}."))
    if figures:
        blocks.append(Figures(figures, csv=Download("sigmas.csv", offsets.sigmas_to_csv(drawn))))
    return blocks


def weights(networks: Named) -> list[Block]:
    """How large weights are."""
    from daukit.plots.cards import weight_card

    figures, rows = [], []
    for title, name, layer in _by_layer(networks, "weights"):
        shown = words.of_weights(layer)
        figures.append(Figure(title, shown, [Drawing(svg_of(weight_card(layer)), shown)], f"{name}-weights"))
        bins = zip(layer.edges[:-1].tolist(), layer.edges[1:].tolist(), layer.counts.tolist(), strict=True)
        rows += [(title, low, high, int(units)) for low, high, units in bins]
    if not figures:
        return []
    return [Figures(figures, csv=Download("weights.csv", csv_text(("layer", "from", "to", "units"), rows)))]


def pruning(networks: Named) -> list[Block]:
    """What thresholds would leave, and score where there are images."""
    swept = [
        (label, network.sweep, words.of_sweep(network.sweep, value_of(network.evaluation)))
        for label, network in networks
        if network.sweep is not None
    ]
    if not swept:
        return []
    headlines = [headline_of(sweep.sweep[0]) for _, sweep, _ in swept]
    scored = [each for each, headline in zip(swept, headlines, strict=True) if headline == headlines[0]]
    figures = [] if headlines[0] is None else [_score_curves(scored, headlines[0])]
    from daukit.plots.pruning import plot_units

    tables = []
    for (label, sweep, finding), headline in zip(swept, headlines, strict=True):
        shown = f"Units of each layer that a threshold leaves, as shares. {finding}"
        drawing = Drawing(svg_of(plot_units(curves_of(sweep))), shown)
        figures.append(Figure(f"Units against the threshold, {label}", shown, [drawing], f"{file_name(label)}-units"))
        tables.append(_thresholds(label, sweep, headline))
    return [Figures(figures), *tables]


def _score_curves(swept: Sequence[tuple[str, Sweep, str]], headline: Headline) -> Figure:
    from daukit.plots.pruning import Curve, plot_scores

    curves = [
        Curve(
            visible(label),
            [point.threshold for point in sweep.sweep],
            [point.units for point in sweep.sweep],
            [value_of(point) or 0.0 for point in sweep.sweep],
        )
        for label, sweep, _ in swept
    ]
    found = [finding if len(swept) == 1 else f"{label}: {finding}" for label, _, finding in swept]
    drawing = Drawing(svg_of(plot_scores(curves, headline.axis, percent=headline.is_share)), " ".join(found))
    return Figure(f"{headline.title} against units", " ".join(found), [drawing], "pruning")


def _thresholds(label: str, sweep: Sweep, headline: Headline | None) -> Table:
    columns, scale = ["threshold", "units", "units left, %"], 1.0
    if headline is not None:
        scale = 100.0 if headline.is_share else 1.0
        columns.append(f"{headline.title}, {'%' if headline.is_share else 'dB'}")
    rows = []
    for point in sweep.sweep:
        score = value_of(point)
        left = 100 * point.units / max(1, sweep.units_before)
        rows.append([point.threshold, point.units, left, *([] if score is None else [scale * score])])
    note = "A threshold is a share of the layer's largest |w|. Nothing was trained on, nor statistics taken anew."
    return Table(
        f"Thresholds, {label}", columns, rows, Download(f"{file_name(label)}-pruning.csv", sweep_to_csv(sweep)), note
    )


def fields(networks: Named, data: Path | None) -> list[Block]:
    """What layers see, with a slider for the share of the influence."""
    from daukit.plots.cards import field_card

    figures, readings, rows, images = [], [], [], set()
    for title, name, field in _by_layer(networks, "fields"):
        contours = areas_and_levels(field.map.abs(), SHARES)
        shown = words.of_field(field)
        drawn = svg_of(field_card(panel_of(title, "", field), [level for _, level in contours]))
        figures.append(Figure(title, shown, [Drawing(drawn, shown)], f"{name}-field"))
        measured = [(share, area, math.sqrt(area / math.pi)) for share, (area, _) in zip(SHARES, contours, strict=True)]
        readings.append([f"{_share(s)}: {area:,} pixels, a disc of {radius:.1f} px" for s, area, radius in measured])
        rows += [(title, *each) for each in measured]
        images.add(field.images)
    if not figures:
        return []
    source = "of noise" if data is None else f"of {data.name}"
    text = (
        f"Effective receptive fields on {'/'.join(map(str, sorted(images)))} images {source}: the smallest sets of "
        "pixels that hold a share of the influence on the position in the middle."
    )
    slider = Slider(
        "Share of the influence", [_share(share) for share in SHARES], SHARES.index(0.5), figures,
        list(zip(*readings, strict=True)), Download("fields.csv", csv_text(("layer", "share", "area", "radius"), rows)),
    )  # fmt: skip
    return [Text(text), slider]


def _share(share: float) -> str:
    return f"{100 * share:g} % of the influence"


def _by_layer(networks: Named, what: str) -> Iterator[tuple[str, str, Any]]:
    """What was measured of layers, the same layer of all networks side by side: a title, a file's name, the measure."""
    measures = [(label, {layer.name: layer for layer in getattr(network, what)}) for label, network in networks]
    for name in dict.fromkeys(name for _, layers in measures for name in layers):
        for label, layers in measures:
            if name in layers:
                alone = len(networks) == 1
                yield (
                    name if alone else f"{name}, {label}",
                    file_name(name if alone else f"{label}-{name}"),
                    layers[name],
                )


def file_name(name: str) -> str:
    """A name that may be a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name.removesuffix(".safetensors")).strip("-.") or "layer"
