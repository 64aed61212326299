"""Pictures and what is made of them: everything is drawn, in its proportions, and nothing covers anything else."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from daukit.plots.palette import IGNORED, class_colors
from daukit.plots.pictures import Panel, plot_pictures

SIZES = [(30, 40), (40, 30), (20, 60), (30, 40), (64, 16), (33, 33), (30, 40)]


def panels(size, rows, lines=()):
    pixels = [np.random.default_rng(row).integers(0, 256, (*size, 3), dtype=np.uint8) for row in range(rows)]
    return [Panel(part, lines) for part in pixels]


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("lines", [(), ("is a very long name of a class indeed", "said $x_1$")])
def test_every_picture_is_there_in_its_proportions_and_nothing_overlaps(count, lines):
    columns = [panels(size, 3, lines) for size in SIZES[:count]]
    legend = [(f"class {i}", color) for i, color in enumerate(class_colors(13))]
    figure = drawn(plot_pictures(columns, ["picture", "truth", "a_network"], legend))
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 3 * count
    assert all(any(np.array_equal(panel.pixels, pixels) for pixels in shown) for column in columns for panel in column)
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for axes in figure.axes:
        box, (height, width) = axes.get_window_extent(), axes.images[0].get_array().shape[:2]
        assert np.isclose(box.width / box.height, width / height, rtol=0.03)
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == [name for name, _ in legend]
    boxes += [key.get_window_extent(), *(text.get_window_extent() for text in figure.texts)]
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert all(box.x0 >= 0 and box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1 for box in boxes)


def test_names_are_no_formulas_and_wrong_answers_are_told_apart():
    panel = Panel(np.zeros((4, 4, 3), dtype=np.uint8), ("is $a$", "said b"), frozenset({1}))
    right, wrong = drawn(plot_pictures([[panel]], ["$row$"])).axes[0].texts
    assert right.get_text() == "is $a$" and not right.get_parse_math()
    assert right.get_color() != wrong.get_color()


def test_colours_of_21_classes_are_those_of_voc():
    """As the toolbox of the challenge prints them: background, aeroplane, bicycle, and the last, tv/monitor."""
    colors = class_colors(21)
    assert colors[:3] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)] and colors[15] == (192, 128, 128)
    assert colors[20] == (0, 64, 128)


@pytest.mark.parametrize("count", [1, 2, 8, 19, 20, 21, 150, 255])
def test_no_two_classes_share_a_colour_and_none_is_that_of_ignored_pixels(count):
    colors = class_colors(count)
    assert len({*colors, IGNORED}) == count + 1
