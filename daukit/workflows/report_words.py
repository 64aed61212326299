"""What the figures of a report show, in words: for captions, and for those who do not see them."""

from __future__ import annotations

from collections.abc import Sequence

from daukit.erf import ReceptiveField
from daukit.offsets import LayerChanges, LayerDistributions, LayerSigmas, LayerWeights, Spike
from daukit.workflows.headlines import headline_of, value_of
from daukit.workflows.sweep import Sweep

SMALL_LOSS = {True: 0.005, False: 0.1}
"""What pruning may cost to be called cheap: half a point of a share, a tenth of a decibel."""


def of_displacements(layer: LayerDistributions) -> str:
    """Where a layer's units are."""
    if layer.quantiles is None:
        return "It has no units." if not layer.units else "All of its weights are zero."
    half, most = layer.quantiles[0.5], layer.quantiles[0.9]
    words = [f"Half of the weight is within {half:.2f} px of the centre, nine tenths within {most:.2f} px."]
    if layer.limit is not None and layer.at_limit is not None:
        y, x = layer.limit
        limit = f"{y:g} px" if y == x else f"{y:g} px down and {x:g} px across"
        reached = max(part.units for part in layer.at_limit)
        there = "no unit is at it" if not reached else f"{_percent(reached)} of the units are at it on an axis"
        words.append(f"The limit is {limit} on each axis; {there}.")
    if layer.at_points is not None:
        words.append(f"{_percent(layer.at_points.units)} of the units have not moved from where they began.")
    if layer.pixels is not None:
        words.append(f"Units read at {layer.pixels.shape[1]:,} whole pixels.")
    words += [_spike(spike) for spike in layer.distributions[0].spikes]
    return " ".join(words)


def _spike(spike: Spike) -> str:
    why = {
        "initialisation": "where units began", "limit": "at the limit", None: "where training has put them",
    }[spike.reason]  # fmt: skip
    return f"A spike at {spike.distance:.2f} px holds {_percent(spike.weight)} of the weight, {why}."


def of_weights(layer: LayerWeights) -> str:
    """How large a layer's weights are."""
    if layer.below is None or layer.largest is None:
        return "It has no units." if not layer.units else "All of its weights are zero."
    (first, units), *rest = layer.below.items()
    others = ", ".join(f"{at:g} {_percent(share)}" for at, share in rest)
    least = f"A threshold of {first:g} takes {_percent(units)} of the units"
    return f"The largest |w| is {layer.largest:.3g}. {least}, {others}."


def of_sigmas(layer: LayerSigmas) -> str:
    """How wide a layer's units are."""
    low, high = layer.now.low, layer.now.high
    if low is None or high is None:
        return "It has no units."
    if low == high:
        return f"Sigma is {low:.3g} px."
    mean = "" if layer.now.mean is None else f", {layer.now.mean:.3g} px on average by weight"
    return f"Sigmas lie between {low:.3g} and {high:.3g} px{mean}."


def of_changes(layer: LayerChanges) -> str:
    """How far a layer's units moved."""
    if layer.mean_distance is None or layer.quantiles is None:
        return "It has no units." if not layer.units else "All of its weights are zero."
    if not layer.mean_distance:
        return "No unit moved."
    return (
        f"By weight, units moved by {layer.mean_distance:.2f} px on average, nine tenths by at most "
        f"{layer.quantiles[0.9]:.2f} px; {_percent(layer.unmoved.units)} of them stayed."
    )


def of_field(field: ReceptiveField) -> str:
    """How far a layer sees."""
    words = [f"{100 * c.mass:g} % of the influence from a disc of {c.radius:.1f} px" for c in field.contours]
    cut = " The field reaches the border of the input: the input may be too small for it." if field.clipped else ""
    return f"What a position says depends on its surroundings: {', '.join(words)} of radius.{cut}"


def of_sweep(sweep: Sweep, whole: float | None = None) -> str:
    """What thresholds cost: the largest that is cheap; ``whole`` is the score of the network as it is."""
    points = sorted(sweep.sweep, key=lambda point: point.threshold)
    headline = headline_of(points[0]) if points else None
    if headline is None or whole is None:
        shares = ", ".join(
            f"{point.threshold:g} leaves {_percent(point.units / max(1, sweep.units_before))}" for point in points
        )
        return f"Of {sweep.units_before:,} units, a threshold of {shares}."
    unit = "half a point" if headline.is_share else "0.1 dB"
    cheap = []
    for point in points:
        score = value_of(point)
        if score is None or whole - score > SMALL_LOSS[headline.is_share]:
            break
        cheap.append((point, score))
    if not cheap:
        least = f"the least one tried, {points[0].threshold:g}, leaves {headline.text(value_of(points[0]))}"
        return f"Every threshold tried costs more than {unit} of {headline.title}: {least} of {headline.text(whole)}."
    point, score = cheap[-1]
    rest = _percent(point.units / max(1, sweep.units_before))
    return (
        f"Up to a threshold of {point.threshold:g}, pruning costs at most {unit} of {headline.title} in this sweep: "
        f"{point.units:,} units, {rest} of them, have {headline.text(score)}, and all {headline.text(whole)}."
    )


def names(labels: Sequence[str]) -> str:
    """Names in a sentence."""
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _percent(share: float) -> str:
    """A share, without digits that nobody looks at; what is not nothing does not look like it."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "less than 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"
