"""Sigmas of a network's units and how they changed (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from daukit.plots import layout
from daukit.plots.style import GUIDE, TEXT_WIDTH, style

if TYPE_CHECKING:
    from daukit.offsets import LayerSigmas
    from daukit.offsets.sigmas import Values

_BEFORE = "#D0D0D0"
"""The area of the sigmas before, behind the lines."""


def plot_sigmas(layers: Sequence[LayerSigmas], *, width: float = TEXT_WIDTH) -> Figure:
    """Draw the distributions of sigma, a panel per layer and a line per weight filter.

    With a file to compare, an area behind the lines shows the sigmas before (of the first filter's units), and the
    panel below shows the changes.

    Args:
        layers: from ``daukit.offsets.sigma_distributions``, in the order to draw them.
        width: of the figure in inches, ``TEXT_WIDTH`` or ``COLUMN_WIDTH``.
    """
    with_changes, drawn = layers[0].change is not None, False
    with style():
        figure, (panels, *below), columns = layout.panel_grid(len(layers), width, 1 + with_changes)
        for i, (layer, axes) in enumerate(zip(layers, panels, strict=True)):
            drawn |= draw_values(axes, layer.now, layer.before, layer.units)
            layout.name_panel(axes, layer.name, layer.units)
            axes.set_xlabel("sigma (px)" if with_changes or i + columns >= len(layers) else "")
            axes.set_ylabel("density (1/px)" if i % columns == 0 else "")
            if layer.change is not None:
                (changes,) = below
                if layer.change.low == layer.change.high == 0:
                    changes[i].set(xticks=[], yticks=[])
                    layout.say(changes[i], "nothing changed")
                else:
                    has_curves = draw_values(changes[i], layer.change, None, layer.units)
                    if has_curves:
                        changes[i].axvline(0, color=GUIDE, linestyle=":", linewidth=0.8, zorder=0)
                    drawn |= has_curves
                changes[i].set_xlabel("change of sigma (px)")
                changes[i].set_ylabel("density (1/px)" if i % columns == 0 else "")
        if drawn:
            layout.draw_legend(figure, _handles(layers[0]))
    return figure


def draw_values(axes: Axes, values: Values, before: Values | None, units: int) -> bool:
    """Draw the curves, or say in words what there is instead; whether there are curves."""
    axes.set_xlim(values.edges[0], values.edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 4, 5, 10]))
    if values.mean is None or (_is_one_value(values) and (before is None or _is_one_value(before))):
        axes.set(xticks=[], yticks=[])
        if values.mean is None:
            layout.say_why_empty(axes, units)
        else:
            layout.say(
                axes, f"{values.mean:.3g} px\nin all units{_earlier(values, before)}".replace("-", "\N{MINUS SIGN}")
            )
        return False
    if before is not None and before.mean is not None:
        if before.low == before.high:  # as an area it would be a spike beside which the lines are flat
            axes.axvline(before.mean, color=_BEFORE, linewidth=4, zorder=0)
        else:
            axes.stairs(before.distributions[0].density, before.edges, fill=True, color=_BEFORE)
    layout.draw_curves(axes, [each.density for each in values.distributions], values.edges)
    axes.set_ylim(0)
    return True


def _is_one_value(values: Values) -> bool:
    return values.low == values.high


def _earlier(values: Values, before: Values | None) -> str:
    """The one sigma before, where it was another: two spikes would say less."""
    if before is None or before.mean is None or before.low == values.low:
        return ""
    return f",\nbefore {before.mean:.3g} px"


def _handles(layer: LayerSigmas) -> list[Any]:
    handles: list[Any] = [*layout.curve_handles([each.label for each in layer.now.distributions])]
    return handles if layer.before is None else [*handles, Patch(color=_BEFORE, label="before")]
