"""Figures of changes: arrows from where to where, lines of sigmas and what was before."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.quiver import Quiver

from daukit.plots.changes import plot_changes
from daukit.plots.sigmas import plot_sigmas
from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH

EDGES = np.linspace(-2.5, 2.5, 6)  # cells of one pixel, centred on whole pixels


def a_change(masses, before, **changes):
    """A layer with weight ``masses`` at {(y, x): mass}, whole pixels, that came from ``before``."""
    density, origin = np.zeros((5, 5)), np.full((2, 5, 5), np.nan)
    after = origin.copy()
    for (y, x), mass in masses.items():
        density[y + 2, x + 2] = mass
        origin[:, y + 2, x + 2], after[:, y + 2, x + 2] = before, (y, x)
    flow = SimpleNamespace(edges=EDGES, density=density, before=origin, after=after)
    distribution = SimpleNamespace(label="all units", density=np.array([0, 1.0, 0, 0]), density_2d=density)
    values = {"name": "conv", "units": 3, "mean_distance": 1.5, "limit": (2.0, 2.0), "flow": flow}
    return SimpleNamespace(**values | changes, distance_edges=np.arange(5.0), edges=EDGES, distributions=[distribution])


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def arrows(figure):
    (quiver,) = [child for axes in figure.axes for child in axes.get_children() if isinstance(child, Quiver)]
    return quiver


def test_arrows_run_from_where_units_were_to_where_they_are_in_pixels():
    quiver = arrows(drawn(plot_changes([a_change({(-1, 2): 0.75, (1, 0): 0.25}, (0.5, -0.5))])))
    ends = sorted(zip(quiver.X + quiver.U, quiver.Y + quiver.V, strict=True))
    assert (set(quiver.X), set(quiver.Y)) == ({-0.5}, {0.5})
    assert ends == [(0.0, 1.0), (2.0, -1.0)]
    assert (quiver.angles, quiver.scale, quiver.scale_units) == ("xy", 1, "xy")


def test_arrows_are_of_the_cells_that_hold_almost_all_the_weight():
    masses = {(0, 0): 0.6, (1, 1): 0.385, (2, 2): 0.01, (-2, -2): 0.005}
    quiver = arrows(plot_changes([a_change(masses, (0.0, 0.0))]))
    assert sorted(quiver.U) == [0.0, 1.0, 2.0]


def test_y_grows_downwards_in_both_maps():
    figure = drawn(plot_changes([a_change({(-1, 2): 1.0}, (0.0, 0.0))]))
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 2
    for axes in maps:
        assert axes.transData.transform((0, -1))[1] > axes.transData.transform((0, 1))[1]
        left, right, bottom, top = axes.images[0].get_extent()
        assert (left, right, bottom, top) == (-2.5, 2.5, 2.5, -2.5)


@pytest.mark.parametrize(("units", "reason"), [(2, "all weights\nare zero"), (0, "no units")])
def test_a_layer_without_weight_says_why_it_is_empty(units, reason):
    layer = a_change({}, (0, 0), units=units, mean_distance=None)
    layer.distributions[0].density[:] = 0
    figure = drawn(plot_changes([layer]))
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == [reason] * 3


def test_no_text_of_the_maps_covers_another():
    figure = drawn(
        plot_changes(
            [a_change({(0, 0): 0.001, (1, 1): 0.0001}, (0, 0), name="backbone.encoder.stage4.blocks.2.conv2")] * 2
        )
    )
    labels = [axes.yaxis.label.get_window_extent() for axes in figure.axes if axes.yaxis.label.get_text()]
    ticks = [t.get_window_extent() for axes in figure.axes for t in axes.get_yticklabels() if t.get_text()]
    assert not any(one.overlaps(other) for i, one in enumerate(labels) for other in labels[:i])
    assert not any(label.overlaps(tick) for label in labels for tick in ticks)


def test_where_nothing_moved_the_panels_say_so_and_no_arrow_is_drawn():
    layer = a_change({(0, 0): 0.75, (1, 2): 0.25}, (0, 0), mean_distance=0.0)
    layer.flow.before[:] = layer.flow.after
    figure = drawn(plot_changes([layer]))
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes[:3]] == [["nothing moved"]] * 2 + [[]]
    assert not any(isinstance(child, Quiver) for axes in figure.axes for child in axes.get_children())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["limit per axis"]
    assert not any(axes.images for axes in figure.axes[:2]) and len(figure.axes) == 4  # a bar for the places alone


def values(density, mean=0.5, low=0.4, high=0.6):
    curve = SimpleNamespace(label="all units", density=np.array(density, dtype=float))
    return SimpleNamespace(mean=mean, low=low, high=high, edges=np.array([0.4, 0.5, 0.6]), distributions=[curve])


def test_sigmas_are_lines_before_an_area_with_changes_below():
    layer = SimpleNamespace(name="conv", units=2, now=values([10, 0]), before=values([0, 10]), change=values([4, 6]))
    figure = drawn(plot_sigmas([layer]))
    above, below = figure.axes
    assert [(patch.get_data().values.tolist(), patch.get_fill()) for patch in above.patches] == [
        ([0, 10], True),
        ([10, 0], True),
    ]
    assert above.patches[0].get_facecolor()[:3] == to_rgb("#D0D0D0")
    assert [patch.get_data().values.tolist() for patch in below.patches] == [[4, 6]]
    assert above.get_position().y0 > below.get_position().y1
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"all units", "before"}


def test_one_sigma_of_all_units_is_written_and_a_change_of_none_is_said():
    same, none = values([10, 0], 0.5, 0.5, 0.5), values([0, 10], 0.0, 0.0, 0.0)
    figure = drawn(plot_sigmas([SimpleNamespace(name="conv", units=2, now=same, before=same, change=none)]))
    assert not figure.legends  # of curves that are not there
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        ["0.5 px\nin all units"],
        ["nothing changed"],
    ]
    assert not any(axes.patches or axes.lines for axes in figure.axes)


def test_one_sigma_in_the_place_of_another_is_told_in_words():
    now, earlier = values([10, 0], 0.3, 0.3, 0.3), values([10, 0], 0.5, 0.5, 0.5)
    change = values([10, 0], -0.2, -0.2, -0.2)
    figure = drawn(plot_sigmas([SimpleNamespace(name="conv", units=2, now=now, before=earlier, change=change)]))
    told = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert told == ["0.3 px\nin all units,\nbefore 0.5 px", "\N{MINUS SIGN}0.2 px\nin all units"]
    assert not figure.legends and not any(axes.lines or axes.patches for axes in figure.axes)


def test_one_sigma_before_is_a_line_that_leaves_the_others_their_height():
    layer = SimpleNamespace(
        name="conv", units=2, now=values([6, 4]), before=values([0, 900], 0.5, 0.5, 0.5), change=values([4, 6])
    )
    above, _ = drawn(plot_sigmas([layer])).axes
    assert [line.get_xdata() for line in above.lines] == [[0.5, 0.5]] and above.get_ylim()[1] < 10
    assert above.lines[0].get_zorder() < min(patch.get_zorder() for patch in above.patches)  # and hides none of them


@pytest.mark.parametrize(("width", "in_a_row"), [(TEXT_WIDTH, 3), (COLUMN_WIDTH, 2)])
def test_sigmas_of_layers_stand_beside_each_other_as_the_width_allows(width, in_a_row):
    layer = SimpleNamespace(name="conv", units=2, now=values([10, 0]), before=None, change=None)
    figure = drawn(plot_sigmas([layer] * 5, width=width))
    tops = [round(axes.get_position().y1, 6) for axes in figure.axes]
    assert tops.count(max(tops)) == in_a_row
    assert figure.get_tightbbox().width + 0.2 <= width + 0.05


def test_sigmas_without_weight_say_why_they_are_not_there():
    layer = SimpleNamespace(name="conv", units=2, now=values([0, 0], None), before=None, change=None)
    (axes,) = drawn(plot_sigmas([layer])).axes
    assert [text.get_text() for text in axes.texts] == ["all weights\nare zero"]
