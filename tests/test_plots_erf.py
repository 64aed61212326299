"""Figures of effective receptive fields: every drawn line against the pixels it claims to enclose."""

import numpy as np
import pytest
import torch

from daukit.cli.figures import save_figure
from daukit.erf import ReceptiveField
from daukit.plots.erf import Panel, plot_receptive_fields


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
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a 0", "b 1", "a 1", "b 0"]
    for axes in figure.axes:
        assert axes.get_xlim() == figure.axes[0].get_xlim()
        assert axes.get_ylim() == axes.get_xlim()[::-1]  # y points down


def test_one_network_fills_rows_of_three_and_leaves_no_empty_axes():
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    figure = plot_receptive_fields([[panel(field)] * 4])
    assert len(figure.axes) == 4
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [False, True, True, True]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
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
