"""Figures of effective receptive fields: every drawn line against the pixels it claims to enclose."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from daukit.erf import ReceptiveField
from daukit.plots.erf import GREYS, Panel, plot_receptive_fields
from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH
from daukit.workflows.outputs import save_figure


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def panel(field, title="layer"):
    levels = {contour.mass: contour.level for contour in field.contours}
    return Panel(title, field.map.abs().numpy(), (3.5, 4.0), levels)


def crossings(polygon, point):
    """How many edges of a closed polygon a ray from ``point`` along x crosses."""
    (x, y), nodes = point, np.vstack([polygon, polygon[:1]])
    (x0, y0), (x1, y1) = nodes[:-1].T, nodes[1:].T
    across = (y0 > y) != (y1 > y)
    at = x0 + (y - y0) / np.where(across, y1 - y0, 1.0) * (x1 - x0)
    return int((across & (at > x)).sum())


@pytest.mark.parametrize("shape", [(9, 12), (1, 7)])
def test_every_drawn_contour_encloses_exactly_the_pixels_that_are_reported(shape):
    field = ReceptiveField.of(
        "noise", torch.randn(shape, dtype=torch.float64), None
    )  # ragged, and clipped on all sides
    figure = plot_receptive_fields([[panel(field)]])
    drawn = figure.axes[0].collections
    assert len(drawn) == len(field.contours)
    for contour, lines in zip(field.contours, drawn, strict=True):
        polygons = [polygon for path in lines.get_paths() for polygon in path.to_polygons()]
        centers = [(x - 4.0, y - 3.5) for y in range(shape[0]) for x in range(shape[1])]
        inside = [sum(crossings(polygon, point) for polygon in polygons) % 2 for point in centers]
        assert sum(inside) == contour.area


def test_networks_stand_in_columns_and_layers_in_rows_of_equal_limits():
    fields = [ReceptiveField.of("noise", torch.randn(9, size, dtype=torch.float64), None) for size in (5, 30)]
    networks = [[panel(field, f"{name} {i}") for i, field in enumerate(fields)] for name in ("a", "b")]
    figure = plot_receptive_fields([networks[0], networks[1][::-1]])
    panels = figure.axes[:-1]  # the last one is the colour bar
    assert [axes.get_title() for axes in panels] == ["a 0", "b 1", "a 1", "b 0"]
    for axes in panels:
        assert axes.get_xlim() == figure.axes[0].get_xlim()
        assert axes.get_ylim() == axes.get_xlim()[::-1]  # y points down


def test_one_network_fills_rows_of_three_and_leaves_no_empty_axes():
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    figure = plot_receptive_fields([[panel(field)] * 4])
    *panels, bar = figure.axes
    assert len(panels) == 4 and "square-root scale" in bar.get_xlabel()
    assert [bool(axes.get_xlabel()) for axes in panels] == [False, True, True, True]


@pytest.mark.parametrize(
    "suffix", [pytest.param("png", marks=pytest.mark.slow), "svg", pytest.param("pdf", marks=pytest.mark.slow)]
)
def test_the_same_fields_give_the_same_bytes(tmp_path, suffix):
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    for name in ("a", "b"):
        save_figure(plot_receptive_fields([[panel(field)]]), tmp_path / f"{name}.{suffix}", overwrite=False)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_titles_are_broken_where_the_panels_are_narrow_and_the_mark_is_named():
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    title = "a name of a file that goes on and on.safetensors\nconv1, trained"
    figure = plot_receptive_fields([[panel(field, title)]] * 5, mark="centroid")
    lines = figure.axes[0].get_title().splitlines()
    assert " ".join(lines) == title.replace("\n", " ") and lines[-1] == "conv1, trained"
    assert max(map(len, lines)) <= 20
    assert "centroid" in [text.get_text() for text in figure.legends[0].get_texts()]


def luminance(color):
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_contours_differ_in_more_than_their_colours_and_stand_out_in_grey():
    field = ReceptiveField.of("noise", torch.randn(9, 9, dtype=torch.float64), None)
    figure = plot_receptive_fields([[panel(field)]])
    lines = list(figure.axes[0].collections)
    styles = {str(line.get_linestyle()) for line in lines}
    assert len(styles) == len(lines) == 4
    greys = [luminance(line.get_edgecolor()[0][:3]) for line in lines]
    assert greys == sorted(greys, reverse=True)
    assert luminance(GREYS(1.0)[:3]) - greys[0] >= 0.2


def test_the_colour_bar_tells_the_grey_of_every_pixel():
    field = ReceptiveField.of("noise", torch.randn(6, 8, dtype=torch.float64), None)
    figure = plot_receptive_fields([[panel(field)]])
    (image,), bar = figure.axes[0].images, figure.axes[-1]
    assert np.allclose(image.get_array(), field.map.abs() / field.map.abs().max())
    assert bar.get_xlim() == (0, 1) and "largest" in bar.get_xlabel()
    shares = np.linspace(0, 1, 5)
    levels = [luminance(image.to_rgba(np.array([share]))[0][:3]) for share in shares]
    expected = [1 - (1 - levels[-1]) * share**0.5 for share in shares]
    assert np.allclose(levels, expected, atol=0.01)  # 256 greys


@pytest.mark.parametrize("width", [TEXT_WIDTH, COLUMN_WIDTH])
@pytest.mark.parametrize(
    ("networks", "layers"),
    [
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(1, 4, marks=pytest.mark.slow),
        (2, 2),
        (3, 1),
    ],
)
def test_no_text_runs_into_another(width, networks, layers):
    field = ReceptiveField.of("noise", torch.randn(40, 40, dtype=torch.float64), None)
    title = "a_long_name_of_a_network.safetensors\nbackbone.layer4.2.conv3, trained\n50 % radius: 10.4 px"
    title += "\n95 % interval: 10.4 to 12.4"
    figure = plot_receptive_fields([[panel(field, title)] * layers] * networks, width=width)
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text.get_window_extent(canvas.get_renderer()).width
    ]
    inside = [text for text in texts if not is_unseen_tick(text, figure)]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in inside]
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            assert not box.overlaps(other), (inside[i].get_text(), box, other)
    assert max(box.x1 for box in boxes) <= 100 * width + 8 and min(box.x0 for box in boxes) >= -8


def is_unseen_tick(text, figure):
    """Matplotlib keeps labels of ticks outside of the view, and does not draw them."""
    for axes in figure.axes:
        for axis, view in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in axis.get_major_ticks():
                if text in (tick.label1, tick.label2):
                    return not min(view) <= tick.get_loc() <= max(view) or text is tick.label2
    return False
