"""``daukit convert`` on networks: substitution, the table of units, and folders."""

import json
from itertools import pairwise

import pytest
import torch

import daukit
from daukit.cli.convert_tables import verdict_of
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d

COMMAND = "convert"
X = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def plain(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "plain.safetensors"
    daukit.save(daukit.create_model("shallow", channels=[3, 4, 5]), path)
    return path


def test_fitted_units_compute_what_the_convolutions_did(run, plain, tmp_path):
    """Nine units with hardly any blur: one on each tap."""
    output = tmp_path / "dau.safetensors"
    code, out, _ = run(plain, "--substitute", "--units", 9, "--sigma", 0.01, "--fit", "-o", output, "--json")
    assert code == 0
    result = json.loads(out)
    assert [layer["name"] for layer in result["substitution"]["layers"]] == ["conv1", "conv2", "conv3"]
    assert result["parameters_before"] == 9 * (3 + 12 + 20) and result["parameters_after"] == 27 * (3 + 12 + 20)
    before, after = daukit.load(plain), daukit.load(output)
    assert all(isinstance(after.get_submodule(f"conv{i}"), DAUConv2d) for i in (1, 2, 3))
    assert (before(X) - after(X)).abs().max() < 1e-4
    assert daukit.read(output).header.history[-1]["operation"] == "substitute"


def test_layers_are_chosen_by_name_and_the_others_stay(run, plain, tmp_path):
    output = tmp_path / "dau.safetensors"
    code, out, _ = run(plain, "--substitute", "--where", "conv[23]", "--units", 3, "-o", output)
    assert code == 0 and "parameters of these layers before" in out
    assert {name: layer.units for name, layer in dau_layers(daukit.load(output)).items()} == {"conv2": 3, "conv3": 3}


@pytest.mark.slow
def test_the_table_of_units_writes_nothing(run, plain):
    before = sorted(path.name for path in plain.parent.iterdir())
    code, out, _ = run(plain, "--units-table", "--sigma", 0.01, "--json")
    assert code == 0
    table = json.loads(out)
    # Nine units with hardly any blur are exact; the error falls with their number.
    for layer in table["layers"]:
        errors = layer["errors"]
        rounding = 4 * 2.0**-26  # the root of float64's: errors are roots of sums of squares
        assert errors[8] < rounding and all(a >= b - rounding for a, b in pairwise(errors))
    assert run(plain, "--units-table")[1].count("conv") == 3
    assert sorted(path.name for path in plain.parent.iterdir()) == before


def test_a_folder_is_written_and_is_a_source_too(run, plain, tmp_path):
    folder, back = tmp_path / "folder", tmp_path / "back.safetensors"
    assert run(plain, "--folder", "-o", folder)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert run(folder, "-o", back)[0] == 0
    assert torch.equal(daukit.load(back)(X), daukit.load(plain)(X))
    code, _, err = run(plain, "--folder", "-o", folder)
    assert code == 1 and "exists" in err
    assert run(plain, "--folder", "-o", folder, "--overwrite")[0] == 0


def test_a_dry_run_reports_and_writes_nothing(run, plain, tmp_path):
    before = sorted(path.name for path in plain.parent.iterdir())
    code, out, err = run(plain, "--substitute", "--dry-run")
    assert code == 0 and "conv3" in out and "nothing was written" in err
    assert sorted(path.name for path in plain.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--units", 3, "-o", "x"), "needs --substitute"),
        (("--substitute", "--units-table"), "give one of the two"),
        (("--units-table", "--fit"), "every number of units"),
        (("--substitute",), "name the file to write"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(run, plain, arguments, message):
    code, _, err = run(plain, *arguments)
    assert code == 2 and message in " ".join(err.split()).replace("│ ", "")


def test_a_pattern_that_fits_no_layer_is_named(run, plain, tmp_path):
    code, _, err = run(plain, "--substitute", "--where", "cnov2", "-o", tmp_path / "x")
    assert code == 1 and "conv2" in err
    assert not (tmp_path / "x").exists()


def test_a_daukit_file_as_it_is_is_nothing_to_convert(run, plain, tmp_path):
    output, folder = tmp_path / "x.safetensors", tmp_path / "folder"
    assert run(plain, "--folder", "-o", folder)[0] == 0
    for arguments in ((plain, "-o", output), (plain, "--dry-run"), (folder, "--folder", "-o", output)):
        code, out, err = run(*arguments)
        assert code == 1 and "is a checkpoint of daukit's already, so nothing was converted" in err
        assert out == "" and err.count("\n") == 1 and not output.exists()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(0.0, "as good as exact"), (0.05, "near"), (0.15, "rough"), (0.4, "far from the trained"), (1.0, "far from the")],
)
def test_a_larger_error_is_judged_more_harshly(error, verdict):
    assert verdict_of(error).startswith(verdict)


def test_the_error_of_a_fit_is_judged_in_words_by_its_worst_layer(run, plain):
    code, out, err = run(plain, "--substitute", "--fit", "--units", 1, "--dry-run", "--json")
    worst = max(json.loads(out)["substitution"]["layers"], key=lambda layer: layer["error"])
    assert code == 0 and f"the fit is {verdict_of(worst['error'])}" in err
    assert f"(largest relative error {worst['error']:.3g}, {worst['name']})" in err
    assert "the fit is" not in run(plain, "--substitute", "--dry-run")[2]


@pytest.mark.parametrize("option", ["--substitute", "--units-table"])
def test_a_wrong_value_is_named_with_the_file(run, plain, option):
    code, _, err = run(plain, option, "--sigma", "-1", "--dry-run")
    assert code == 1 and "sigma must be" in err and "plain.safetensors" in err and err.count("\n") == 1
