"""Saved figures: the same bytes whatever the user's configuration of matplotlib is."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from daukit.plots.erf import Panel as Field
from daukit.plots.erf import plot_receptive_fields
from daukit.plots.pictures import Panel, plot_pictures
from daukit.plots.pruning import Curve, plot_scores
from daukit.plots.sigmas import plot_sigmas
from daukit.workflows.outputs import save_figure

STRANGE = {
    "axes.unicode_minus": False,
    "figure.facecolor": "black",
    "font.size": 20,
    "path.sketch": (1, 100, 2),
    "pdf.fonttype": 42,
    "pdf.compression": 0,
    "savefig.facecolor": "red",
    "savefig.pad_inches": 1,
    "svg.fonttype": "none",
    "svg.hashsalt": None,
    "xtick.labelsize": 20,
    "xtick.direction": "in",
}


def accuracy():
    return plot_scores([Curve(name, [0, 0.1], [300, 100], [0.9, 0.5]) for name in ("a", "b")], "accuracy")


def sigmas():
    curve = SimpleNamespace(label="all units", density=np.array([1.0, 3.0]))
    values = SimpleNamespace(mean=0.5, low=-1.0, high=1.0, edges=np.array([-1.0, 0.0, 1.0]), distributions=[curve])
    return plot_sigmas([SimpleNamespace(name="conv", units=2, now=values, before=None, change=None)])


def fields():
    influence = np.outer([1.0, 2.0, 1.0], [1.0, 3.0, 1.0])
    return plot_receptive_fields([[Field("conv", influence, (1.0, 1.0), {0.5: 3.0})]])


def pictures():
    panel = Panel(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), ("is a cat",), exact=True)
    return plot_pictures([[panel]], ["truth"], [("cat", (0, 114, 178))])


@pytest.mark.parametrize(
    "suffix", [pytest.param("png", marks=pytest.mark.slow), "svg", pytest.param("pdf", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("draw", [accuracy, sigmas, fields, pictures])
def test_figures_have_the_same_bytes_whatever_a_matplotlibrc_says(draw, suffix, tmp_path):
    for name, settings in (("plain", {}), ("strange", STRANGE)):
        with matplotlib.rc_context(settings):
            save_figure(draw(), tmp_path / f"{name}.{suffix}", overwrite=False)
    assert (tmp_path / f"plain.{suffix}").read_bytes() == (tmp_path / f"strange.{suffix}").read_bytes()
