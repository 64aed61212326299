"""The picture itself: what is dark, what is red, and what is written where."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle, StepPatch
from matplotlib.text import Text

from daukit.plots.offsets import plot_displacements
from daukit.plots.style import COLORS, COLUMN_WIDTH, MARK, TEXT_WIDTH

BINS = 9
EDGES = np.linspace(-4.5, 4.5, BINS + 1)  # cells of one pixel, centred on whole pixels


def a_layer(y, x, labels=("all units",), spikes=(), **changes):
    """A layer whose weight all lies at (y, x), whole pixels."""
    square, line = np.zeros((BINS, BINS)), np.zeros(7)
    square[y + 4, x + 4] = line[int(np.hypot(y, x))] = 1.0
    shared = {"units": 1, "density": line, "density_2d": square, "spikes": spikes}
    distributions = [SimpleNamespace(label=label, **shared) for label in labels]
    values = {"name": "conv", "units": 1, "mean_distance": np.hypot(y, x), "limit": (4.5, 4.5), "points": None}
    values |= {"pixels": None, "pixel_shares": None}
    return SimpleNamespace(
        **(values | changes), distance_edges=np.arange(8.0), edges=EDGES, distributions=distributions
    )


def pixels(figure):
    figure.set_dpi(300)  # lines are then wider than the blur of their edges
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255  # first row at the bottom, as in figure coordinates


def test_the_picture_is_dark_where_the_unit_is_and_nowhere_mirrored():
    figure = plot_displacements([a_layer(-3, 2)], "2d")
    image, axes = pixels(figure), figure.axes[0]

    def brightness(y, x):
        column, row = axes.transData.transform((x, y)).astype(int)
        return image[row, column].mean()

    assert brightness(-3, 2) < 0.5
    assert min(brightness(3, 2), brightness(-3, -2), brightness(2, -3), brightness(-2, 3)) > 0.9
    above, below = (axes.transData.transform((0, y))[1] for y in (-1, 1))
    assert above > below


def test_initialisation_points_are_red_rings_around_the_units_that_stayed_there():
    figure = plot_displacements([a_layer(1, 3, points=np.array([[1.0, -2.0], [3.0, -3.0]]))], "2d")
    image, axes = pixels(figure), figure.axes[0]
    for y, x, is_occupied in ((1, 3, True), (-2, -3, False)):
        column, row = axes.transData.transform((x, y)).astype(int)
        radius = int(2 / 72 * figure.dpi)  # a ring of four points across
        assert np.abs(image[row, column + radius] - to_rgb(MARK)).max() < 1 / 255
        assert (image[row, column].mean() < 0.5) == is_occupied


def test_lines_are_the_densities_of_the_distances():
    figure = plot_displacements([a_layer(-3, 2, labels=("all units", "some"))], "1d")
    drawn = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    for stairs in drawn:
        values, edges, _ = stairs.get_data()
        assert values.tolist() == [0, 0, 0, 1, 0, 0, 0]
        assert edges.tolist() == list(range(8))
    assert len(drawn) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_curves_that_coincide_are_all_seen_and_told_apart_in_the_legend(count):
    labels = [f"top {n}" for n in range(count)]
    figure = plot_displacements([a_layer(-3, 2, labels)], "1d")
    image, (legend,) = pixels(figure), figure.legends
    for color in COLORS[1:count] if count > 1 else COLORS[:1]:
        assert (np.abs(image - to_rgb(color)).max(axis=2) < 0.1).sum() > 100, color
    column, row = figure.axes[0].transData.transform((3.5, 0.5)).astype(int)
    inside = image[row, column]
    assert 0 < np.abs(inside - 1).max() and np.argmax(inside) == 2  # below the first curve: tinted blue
    told = [text.get_text() for text in legend.get_texts()][:count]
    looks = {(str(h.get_linestyle()), h.get_linewidth(), isinstance(h, Patch)) for h in legend.legend_handles[:count]}
    assert told == labels and len(looks) == count


@pytest.mark.parametrize("limit", [(4.0, 4.0), (2.0, 4.0)])
@pytest.mark.parametrize("kind", ["1d", "both"])
def test_a_limit_per_axis_is_a_band_of_distances_from_the_edge_of_its_box_to_its_corner(kind, limit):
    figure = plot_displacements([a_layer(-1, 2, limit=limit)], kind)
    (band,) = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert (band.get_x(), band.get_x() + band.get_width()) == (min(limit), float(np.hypot(*limit)))
    assert any("per axis" in text.get_text() for text in figure.legends[0].get_texts())
    y, x = np.meshgrid(*(np.linspace(-end, end, 401) for end in limit), indexing="ij")
    at_limit = (np.abs(y) == limit[0]) | (np.abs(x) == limit[1])
    distances = np.hypot(y, x)[at_limit]
    assert np.allclose((distances.min(), distances.max()), (band.get_x(), band.get_x() + band.get_width()))


def test_a_colour_bar_says_that_its_scale_is_of_square_roots():
    figure = plot_displacements([a_layer(-1, 2)], "2d")
    image, bar = figure.axes
    assert "square-root scale" in bar.get_ylabel()
    norm = image.images[0].norm
    assert norm(norm.vmax / 4) == 0.5


@pytest.mark.parametrize("kind", ["1d", "2d"])
@pytest.mark.parametrize("width", [COLUMN_WIDTH, TEXT_WIDTH])
def test_no_text_covers_another(kind, width):
    labels = ("all units", "top 90% by |w|", "top 75% by |w|")
    layers = [a_layer(1, 1, labels, name=name, units=123456) for name in ("conv1", "conv2", "conv3")]
    for layer in layers:
        for distribution in layer.distributions:
            distribution.units, distribution.density_2d = 123456, distribution.density_2d * 0.17
            distribution.density = distribution.density * 0.9
    assert not covered(plot_displacements(layers, kind, width=width))


LONG = [f"backbone.encoder.{4 * 'block.'}conv{n}_$x$" for n in range(3)]


@pytest.mark.parametrize(
    ("kind", "width"), [("1d", COLUMN_WIDTH), ("2d", COLUMN_WIDTH), ("1d", TEXT_WIDTH), ("both", TEXT_WIDTH)]
)
def test_long_names_of_layers_lose_their_middle_and_cover_no_text(kind, width):
    figure = plot_displacements([a_layer(1, 1, name=name, units=123456) for name in LONG], kind, width=width)
    assert not covered(figure)
    words = [text.get_text() for text in figure.findobj(Text) if "…" in text.get_text()]
    assert len(words) == 3 and all(name[-5:] in word for name, word in zip(LONG, words, strict=True))


def covered(figure):
    """Pairs of texts of which one lies over the other."""
    FigureCanvasAgg(figure).draw()
    hidden = [
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]
    words = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden]
    boxes = [(text.get_text(), text.get_window_extent()) for text in words]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]


@pytest.mark.parametrize(("kind", "panels"), [("1d", 2), ("2d", 2 * 3 + 2), ("both", 2 * 4 + 2)])
def test_each_kind_has_its_panels_and_names_layers_and_filters(kind, panels):
    labels = ("all units", "top 90% by |w|", "|w| ≥ 0.9 max |w|")
    figure = plot_displacements([a_layer(1, 1, labels), a_layer(1, 1, labels, name="last$_$layer")], kind)
    pixels(figure)
    assert len(figure.axes) == panels  # densities with one colour bar a layer
    words = [text.get_text() for axes in figure.axes for text in (axes.title, axes.yaxis.label)]
    words += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for name in ("conv", "last$_$layer", *labels):
        assert any(name in word for word in words), name


@pytest.mark.parametrize(("units", "reason"), [(2, "all weights\nare zero"), (0, "no units")])
@pytest.mark.parametrize("kind", ["1d", "2d", "both"])
def test_a_layer_with_nothing_to_draw_says_why(units, reason, kind):
    layer = a_layer(0, 0, units=units, mean_distance=None)
    for distribution in layer.distributions:
        distribution.density[:] = 0
        distribution.density_2d[:] = 0
    figure = plot_displacements([layer], kind)
    pixels(figure)
    assert all(any(text.get_text() == reason for text in axes.texts) for axes in figure.axes)


def test_spikes_are_named_above_the_first_line_with_their_share_of_the_weight():
    spikes = [SimpleNamespace(distance=3.5, weight=0.25, reason="limit")]
    spikes.append(SimpleNamespace(distance=4.5, weight=0.5, reason=None))
    axes = plot_displacements([a_layer(-3, 2, spikes=spikes)], "1d").axes[0]
    assert [text.get_text() for text in axes.texts] == ["25%\nlimit", "50%"]
    assert axes.texts[0].xy == (3.5, 1.0)


def test_names_of_crowded_spikes_do_not_cover_each_other():
    spikes = [SimpleNamespace(distance=d, weight=0.3, reason="initialisation") for d in (3.1, 3.5, 3.9)]
    figure = plot_displacements([a_layer(-3, 2, spikes=spikes)], "1d", width=COLUMN_WIDTH)
    pixels(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_a_column_holds_three_layers_and_filters_in_print_of_at_least_six_points(kind):
    labels = ("all units", "top 90% by |w|", "|w| ≥ 0.75 max |w|")
    layers = [a_layer(1, 1, labels, name=name, limit=(4, 4)) for name in ("conv3", "conv4", "conv5")]
    for width in (COLUMN_WIDTH, TEXT_WIDTH):
        figure = plot_displacements(layers, kind, width=width)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert figure.get_tightbbox().width + 0.2 <= width + 0.05  # saving pads each side by 0.1
        words = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(text.get_fontsize() for text in words) >= 6
        titles = [axes.title.get_window_extent() for axes in figure.axes if axes.title.get_text()]
        assert not any(one.overlaps(other) for i, one in enumerate(titles) for other in titles[:i])


def test_both_kinds_do_not_fit_into_a_column():
    with pytest.raises(ValueError, match='"both" needs a page'):
        plot_displacements([a_layer(1, 1)], "both", width=COLUMN_WIDTH)
