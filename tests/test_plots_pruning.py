"""The figures of pruning: what lies where, and that its curves are told apart."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from daukit.plots.pruning import FEW, Curve, plot_scores, plot_units

CURVES = [
    Curve("by weight", [0, 0.1, 0.25], [300, 200, 50], [0.9, 0.85, 0.3]),
    Curve("at_$random$", [0, 0.1, 0.25], [300, 200, 50], [0.9, 0.5, 0.1], control=True),
]


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure.axes[0]


def test_accuracy_lies_over_the_units_and_thresholds_stand_at_the_points():
    axes = drawn(plot_scores(CURVES, "accuracy"))
    for line, curve in zip(axes.lines, CURVES, strict=True):
        assert (list(line.get_xdata()), list(line.get_ydata())) == (list(curve.units), list(curve.scores))
    assert {text.get_text(): text.xy for text in axes.texts} == {"0": (300, 0.9), "0.1": (200, 0.85), "0.25": (50, 0.3)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("units in the network, at each point its threshold", "accuracy")
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["by weight", "at_$random$"]
    assert axes.get_xlim()[0] == 0


@pytest.mark.parametrize(("percent", "label"), [(True, "90%"), (False, "0.90")])
def test_decibels_are_no_per_cent(percent, label):
    axes = drawn(plot_scores(CURVES, "PSNR (dB)", percent=percent))
    assert axes.get_ylabel() == "PSNR (dB)"
    assert axes.yaxis.get_major_formatter().format_ticks([0.1, 0.85, 0.9])[2] == label


@pytest.mark.parametrize("name", ["_hidden", "$x$", "back\\slash{", "backbone.layer4." + 9 * "block." + "conv2"])
def test_no_name_vanishes_from_the_legend_which_hides_no_curve(name):
    figure = plot_units([Curve("conv", [0, 0.1], [1, 0.4]), Curve(name, [0, 0.1], [1, 0.8])])
    axes, (legend,) = drawn(figure), figure.legends
    told = legend.get_texts()[1]
    assert told.get_text() == name or (len(name) > 50 and told.get_text().endswith(name[-30:]))
    assert not told.get_parse_math() and legend.get_window_extent().x0 >= 0
    assert not legend.get_window_extent().overlaps(axes.get_tightbbox())


def test_thresholds_at_the_points_lie_above_the_axis():
    axes = drawn(plot_scores(CURVES[:1], "accuracy"))
    assert min(text.get_window_extent().y0 for text in axes.texts) > axes.get_window_extent().y0


def test_layers_are_drawn_by_their_share_of_units():
    curves = [Curve(name, [0, 0.1], [1, share], [0.9, 0.8]) for name, share in (("a", 0.5), ("b", 0.2))]
    axes = drawn(plot_scores(curves, "accuracy", shares=True))
    assert axes.get_xlabel() == "units left in the layer" and not axes.texts
    assert "100%" in {label.get_text() for label in axes.get_xticklabels()}


def test_without_accuracies_units_lie_over_the_threshold():
    axes = drawn(plot_units([Curve("conv", [0, 0.1], [1, 0.4])]))
    assert (list(axes.lines[0].get_xdata()), list(axes.lines[0].get_ydata())) == ([0, 0.1], [1, 0.4])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("threshold", "units left") and not axes.figure.legends


@pytest.mark.parametrize("count", [2, FEW, FEW + 1, 34])
def test_every_curve_has_a_look_of_its_own_and_a_place_in_the_legend(count):
    figure = plot_units([Curve(f"layer{i}", [0, 1], [1, 0.5]) for i in range(count)])
    axes = drawn(figure)
    looks = [(line.get_color(), line.get_marker()) for line in axes.lines]
    assert len(set(looks)) == count
    assert len(axes.figure.legends[0].get_texts()) == count
    # Neighbours differ in lightness or marker, so that they are told apart in grey.
    for (first, one), (second, other) in itertools.pairwise(looks):
        lightness = [sum(w * c for w, c in zip((0.3, 0.59, 0.11), to_rgb(x), strict=True)) for x in (first, second)]
        assert one != other or abs(lightness[0] - lightness[1]) > 0.1
