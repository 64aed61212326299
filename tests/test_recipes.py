"""Recipes: what TOML says, as a training that runs; the paper's own, each two steps at a tiny size."""

import json
import string
import sys
from dataclasses import fields, replace

import pytest
from cifar import cifar10_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idx import toy_folder
from pages import TEXTS, table
from pictures import class_folders
from trees import deblurring_tree, segmentation_tree

import daukit
from daukit.errors import RecipeError
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.training import About, Recipe, TrainingOptions, parse_recipe, read_recipe, recipe_names, recipe_text
from daukit.training.toml import parse_toml, toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMAND = "train"
NAMES = recipe_names()
TINY = {
    "shallow": {"network.options.channels": "[2, 2, 2]", "training.batch_size": "20"},
    "alexnet": {"network.options.channels": "[2, 2, 2, 2, 2]", "network.options.hidden": "4"},
    "resnet": {"network.options.width": "2", "network.options.depths": "[1, 1, 1, 1]"},
    "deeplabv3plus": {
        "network.options.width": "2", "network.options.depths": "[1, 1, 1, 1]", "network.options.features": "2",
    },
    "srn_deblur": {"network.options.width": "2", "network.options.blocks": "1", "data.crop": "[12, 12]"},
}  # fmt: skip
QUICK = {"alexnet-dau-small", "cifar10-sigma-0.5", "alexnet-dilated-voc", "resnet50", "srn-deblur"}


def family(recipe):
    return next(name for name in TINY if recipe.model.startswith(name))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of images by task; of CIFAR-10 too, as small images are."""
    place = tmp_path_factory.mktemp("trees")
    (place / "pictures").mkdir()
    return {
        "small": cifar10_folder(place / "cifar", test=4),
        "classification": class_folders(place / "pictures", train=2, val=1),
        "segmentation": segmentation_tree(place / "masks", size=(40, 45)),
        "deblurring": deblurring_tree(place / "blurred", size=(16, 20)),
    }


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Files to start from, by network."""
    place, seen = tmp_path_factory.mktemp("classifiers"), Preprocessing((0.5,) * 3, (0.25,) * 3, "rgb", (67, 67))
    files = {}
    for model, name, pools, sizes in (
        ("alexnet", "alexnet", [], {"channels": [2] * 5, "hidden": 4, "input_size": [67, 67]}),
        ("alexnet_dau", "alexnet_dau", ["pool2", "pool5"], {"channels": [2] * 5, "hidden": 4, "input_size": [67, 67]}),
        ("deeplabv3plus", "resnet101", [], {"width": 2, "depths": [1, 1, 1, 1]}),
        ("deeplabv3plus_dau", "resnet101_dau", ["pool4"], {"width": 2, "depths": [1, 1, 1, 1]}),
    ):
        network = daukit.create_model(name, num_classes=3, **sizes)
        record_of(network).preprocessing = seen
        files[model] = place / f"{name}.safetensors"
        if pools:
            network, _ = daukit.remove_pools(network.eval(), pools)
        daukit.save(network, files[model])
    return files


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_a_recipe_of_the_paper_runs(name, data, classifiers, tmp_path, run):
    recipe = read_recipe(name)
    changes = {"training.epochs": "1", "training.batch_size": "1", **TINY[family(recipe)]}
    folder = data["small" if family(recipe) == "shallow" else recipe.task]
    if recipe.task == "classification" and family(recipe) != "shallow":
        changes["training.batch_size"] = "3"
        if family(recipe) == "alexnet":
            changes["network.options.input_size"] = "[67, 67]"
    if recipe.task == "segmentation":
        changes |= {"data.crop": "[33, 33]", "training.lr": "0.0001"}
    if recipe.options.idles("milestones") is None:
        changes["training.milestones"] = "[1]"
    start = () if recipe.start is None else ("--initial-checkpoint", classifiers[recipe.model])
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    output = tmp_path / "net.safetensors"
    code, out, err = run("--recipe", name, "--data", folder, "-o", output, *start, *sets, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["steps"], result["epochs"], result["recipe"]) == (2, 1, name)
    assert result["settings"]["network"]["model"] == recipe.model
    (entry,) = [e for e in record_of(daukit.load(output)).history if e["operation"] == "train"]
    assert entry["arguments"]["recipe"] == name and entry["arguments"]["lr"] == result["settings"]["training"]["lr"]
    assert entry["arguments"].get("crop") == result["settings"]["data"].get("crop")
    assert entry["arguments"].get("scale") == result["settings"]["data"].get("scale")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_the_paper_is_the_same_when_it_was_written_and_read(name):
    recipe = read_recipe(name)
    assert parse_recipe(recipe.to_toml(), "it", name) == recipe
    assert recipe.about.title and recipe.about.section and recipe.about.prints and recipe.about.data
    assert tomllib.loads(recipe_text(name))["training"].items() <= tomllib.loads(recipe.to_toml())["training"].items()


def test_the_paper_has_a_recipe_for_every_row_of_its_tables():
    """Rows of Tables 1, 2, 4, 5, 6, 7 and 8 that are trained; Table 4's DAU-AlexNet is Table 2's medium one.

    No table has the one of section 7.1 in the text, and daukit's own."""
    tables = [read_recipe(name).about.table for name in NAMES]
    assert {table: tables.count(table) for table in tables} == {
        "1": 7, "2": 2, "2 and 4": 1, "4": 1, "5": 2, "6": 4, "7": 8, "8": 2, "": 2,
    }  # fmt: skip


def test_the_page_lists_every_recipe_with_what_the_paper_prints():
    rows = table(TEXTS["recipes.md"], "The paper's trainings")
    about = {name: read_recipe(name).about for name in NAMES}
    told = {f"`{n}`": [a.title, a.data, a.table or "-", a.section, a.prints] for n, a in about.items()}
    assert {row[0]: row[1:] for row in rows} == told and len(rows) == len(NAMES)


# Optimiser, schedule and numbers of the sections, written down a second time.
@pytest.mark.parametrize(
    ("name", "progress", "rate", "mu_rate"),
    [
        ("cifar10-sigma-0.5", (0, 74.9, 75), (0.01, 0.01, 0.001), 500),
        ("alexnet-dau-small", (19, 20, 40, 79), (1e-2, 1e-3, 1e-4, 1e-5), 500),
        ("resnet101-dau", (29, 30, 60, 80, 90), (0.1, 0.01, 1e-3, 1e-4, 1e-5), 500),
        ("alexnet-dau-voc", (0, 150), (0.0002, 0.0002), 500),
        ("resnet101-dau-cityscapes", (0, 67), (0.01, 0.01 * 0.5**0.9), 500),
        ("srn-deblur", (0, 1000, 1500), (1e-4, 1e-4 * 0.5**0.3, 1e-4 * 0.25**0.3), None),
    ],
)
def test_rates_of_a_recipe_are_the_papers(name, progress, rate, mu_rate):
    options = read_recipe(name).options
    assert [options.lr * options.rate(t) for t in progress] == pytest.approx(list(rate), rel=1e-12)
    assert mu_rate is None or options.mu_lr_factor == mu_rate


def test_displacements_of_the_deblurring_network_learn_along_a_line():
    options = read_recipe("srn-deblur-dau").options
    assert (options.lr, options.mu_lr, options.optimizer) == (5e-4, 1e-3, "adam")
    assert [options.mu_rate(t) for t in (0, 500, 1500, 2000)] == [1, 0.75, 0.25, 0]
    assert options.rate(1500) == pytest.approx(0.25**0.3, rel=1e-12)
    assert replace(options, mu_power=None).mu_rate(1500) == options.rate(1500)


WRONG = {
    "[training]\nepoch = 3": "there is no key training.epoch; did you mean 'training.epochs'?",
    "[training]\nmirror = true": "there is no key training.mirror; did you mean 'data.mirror'?",
    "[trainning]\nepochs = 3": "there is no table [trainning]; did you mean 'training'?",
    "training = 3": "training must be a table, got 3",
    "[training]\nepochs = 2.5": "training.epochs must be a whole number from 1 to 1,000,000, got 2.5",
    "[training]\nepochs = 0": "training.epochs must be a whole number from 1 to 1,000,000, got 0",
    "[training]\nlr = '0.1'": "training.lr must be a number of at least 0, got '0.1'",
    "[training]\nlr = -1": "training.lr must be a number of at least 0, got -1",
    "[training]\nschedule = 'polly'": "training.schedule must be step, poly, cosine or constant, got 'polly'",
    "[training]\noptimizer = 'adam'\nbetas = [0.9]": "training.betas must be a list of two numbers",
    "[training]\noptimizer = 'adam'\nbetas = [0.9, 1]": "training.betas must be two numbers of at least 0 and below 1",
    "[training]\nmilestones = 75": "training.milestones must be a list of epochs, counted from 1, got 75",
    "[training]\nwarm_up = 100": "training.warm_up must be at least 0 and below the 100 epochs, got 100",
    "[training]\nmu_lr = 0.1\nmu_lr_factor = 2": "training.mu_lr does nothing with training.mu_lr_factor 2; drop it",
    "[training]\nmu_lr = 'fast'": "training.mu_lr must be a number of at least 0, or \"auto\", got 'fast'",
    "[training]\nschedule = 'poly'\ngamma = 0.1": "training.gamma does nothing with training.schedule poly; drop it",
    "[data]\ncrop = [8, 0]": "data.crop must be a list of a height and a width of at least 1, got [8, 0]",
    "[data]\nlayout = 'voc2012'": "data.layout must be ",
    "[data]\nmirror = 1": "data.mirror must be true or false, got 1",
    "[network]\nmodel = 'alexnet_dua'": "network.model must be one of daukit's networks, got 'alexnet_dua'; did you "
    "mean 'alexnet_dau'?",
    "[network]\nmodel = 'my.package:net'": "a file may not choose what code runs",
    "[network.options]\nunits = 2": "network.options needs network.model",
    "[network]\nmodel = 'shallow_dau'\noptions.unit = 2": "there is no key network.options.unit; did you mean "
    "'network.options.units'?",
    "[network]\nmodel = 'shallow_dau'\noptions.units = 'two'": "options.units of shallow_dau must be an integer",
    "[about]\ntable = 1": "about.table must be a text, got 1",
    "[training]\nlr = nan": "nan is no number that can be used",
    "a = 2020-01-01": "2020-01-01 is a date",
    "seed = 123456789012345678901": "an integer of more than 64 bits",
    "[training": "Expected",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_recipe_is_named_with_its_file(text):
    with pytest.raises(RecipeError) as error:
        parse_recipe(text, "my.toml")
    assert str(error.value).startswith("my.toml: ") and WRONG[text] in str(error.value)


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(RecipeError) as error:
        parse_recipe("[training]\nepoch = 3\nlr = 'x'\n[data]\nscales = [1, 2]", "my.toml")
    for part in ("training.epoch;", "training.lr must", "data.scales; did you mean 'data.scale'?"):
        assert part in str(error.value)


# On a busy machine, generation alone may take a second.
LITTLE = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
TABLES = st.recursive(
    st.one_of(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(string.printable, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@LITTLE
@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), TABLES, max_size=4))
def test_tables_are_written_so_that_any_reader_of_toml_reads_them(tables):
    assert tomllib.loads(toml_text(tables)) == tables
    assert parse_toml(toml_text(tables)) == tables


POSITIVE = st.floats(0, 1e6)
OPTIONS = st.builds(
    TrainingOptions,
    epochs=st.integers(10, 1000),
    batch_size=st.integers(4, 1000),
    lr=POSITIVE,
    momentum=POSITIVE,
    weight_decay=POSITIVE,
    mu_lr_factor=POSITIVE,
    milestones=st.lists(st.integers(1, 100), max_size=4).map(tuple),
    gamma=POSITIVE,
    warm_up=st.floats(0, 9),
    clip_norm=st.none() | st.floats(1e-3, 10),
    accumulate=st.integers(1, 4),
    precision=st.sampled_from(["fp32", "bf16"]),
    ema=st.none() | st.floats(0, 0.999),
    mirror=st.booleans(),
    shift=st.integers(0, 9),
    part=st.sampled_from([None, "area", "position"]),
    seed=st.integers(-100, 100),
    snap_at=st.none() | st.floats(0, 0.99),
)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9)


@LITTLE
@given(
    OPTIONS,
    st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    st.none() | st.tuples(st.floats(0.1, 1), st.floats(1, 2)),
    st.none() | TEXT,
    TEXT,
)
def test_a_recipe_is_written_and_read_as_it_is(options, crop, scale, start, title):
    recipe = Recipe(options, "shallow_dau", {"units": 3, "sigma": 0.5}, None, crop, scale, start, About(title=title))
    assert parse_recipe(recipe.to_toml(), "it") == recipe


def test_an_option_of_every_kind_has_a_key():
    keys = {key for table in ("data", "training") for key in parse_toml(_all_options().to_toml())[table]}
    assert {field.name for field in fields(TrainingOptions)} - keys == {
        "momentum",
        "mu_lr_factor",
        "milestones",
        "gamma",
    }


def _all_options():
    """Every option that an optimiser of Adam's kind and a polynomial have."""
    return Recipe(
        TrainingOptions(
            optimizer="adam", schedule="poly", mu_power=1.0, clip_norm=1.0, ema=0.9, snap_at=0.5, part="area"
        )
    )


@pytest.fixture
def toy(tmp_path):
    toy_folder(tmp_path / "toy", 12, 8)
    (tmp_path / "my.toml").write_text(
        "[network]\nmodel = 'shallow_dau'\noptions = {channels = [2, 2, 2], units = 1}\n"
        "[training]\nepochs = 2\nbatch_size = 6\noptimizer = 'adam'\nmu_lr = 0.5\nlr = 0.25\n"
    )
    return ("--recipe", tmp_path / "my.toml", "--data", tmp_path / "toy", "-o", tmp_path / "net.safetensors")


def settings_of(run, *arguments):
    code, out, err = run(*arguments, "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)["settings"]


def test_options_win_over_settings_and_settings_over_the_file(toy, run):
    told = settings_of(run, *toy)
    assert told["training"] | {"epochs": 2, "batch_size": 6, "mu_lr": 0.5, "lr": 0.25} == told["training"]
    assert told["network"] == {"model": "shallow_dau", "options": {"channels": [2, 2, 2], "units": 1}}
    told = settings_of(run, *toy, "--set", "training.lr=0.5", "--set", "training.mu_lr=1", "--lr", "0.125")
    assert (told["training"]["lr"], told["training"]["mu_lr"]) == (0.125, 1)
    told = settings_of(run, *toy, "--units", 2, "--model-arg", "sigma=0.4", "--mirror", "--set", "data.mirror=false")
    assert told["network"]["options"] == {"channels": [2, 2, 2], "units": 2, "sigma": 0.4} and told["data"]["mirror"]
    told = settings_of(run, *toy, "--set", "training.optimizer=sgd", "--momentum", "0.5")
    assert told["training"]["momentum"] == 0.5 and told["training"]["mu_lr"] == 0.5
    sgd = ("--set", "training.optimizer=sgd", "--set", "training.mu_lr=", "--mu-lr-factor", "auto")
    told = settings_of(run, *toy, *sgd, "--units", "3,1,1")
    assert told["training"]["mu_lr_factor"] == "auto" and "mu_lr" not in told["training"]
    assert told["network"]["options"]["units"] == [3, 1, 1]
    told = settings_of(run, *toy, "--model", "shallow", "--channels", "2,2")
    assert told["network"] == {"model": "shallow", "options": {"channels": [2, 2]}}
    assert settings_of(run, *toy, "--whole-pixels")["training"]["snap_at"] == 0.25
    told = settings_of(run, *toy, "--set", "training.snap_at=0.5", "--snap-at", "0.75")
    assert told["training"]["snap_at"] == 0.75
    assert settings_of(run, *toy, "--set", "network.options.channels=")["network"]["options"] == {"units": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--momentum", "0.5"), "--momentum: the optimizer adam has none; drop it"),
        (("--power", "2"), "--power: the schedule step has no power; drop it"),
        (
            ("--set", "training.optimizer=sgd", "--set", "training.mu_lr_factor=2", "--mu-lr", "1"),
            "--mu-lr: with the recipe's mu_lr_factor nothing learns by Adam; drop it, or pass --set "
            "training.mu_lr_factor=",
        ),
        (("--set", "training.power=2"), "--set: training.power does nothing with training.schedule step"),
        (("--set", "training.epoch=2"), "--set: there is no key training.epoch; did you mean 'training.epochs'?"),
        (("--set", "epochs=2"), "--set: 'epochs' is no key of a recipe; write its table, too, as training.epochs"),
        (("--set", "training.epochs.x=2"), "--set: there is no key training.epochs.x: epochs is no table"),
        (("--set", "training.epochs"), "--set: 'training.epochs' is not KEY=VALUE"),
        (("--set", "training.lr=fast"), "--set: training.lr must be a number of at least 0, got 'fast'"),
        (("--warm-up", "2"), "--warm-up: warm_up must be at least 0 and below the 2 epochs, got 2"),
        (("--recipe", "alexnet-voc"), "--recipe: there is no recipe 'alexnet-voc'; did you mean"),
        (("--crop-size", "8,8"), "a network for classification takes no crop; drop it"),
        (("--snap-at", "0.5"), "--snap-at: without --whole-pixels nothing is rounded; drop it"),
    ],
)
def test_what_a_recipe_does_not_take_is_a_usage_error(toy, run, arguments, said):
    code, _, err = run(*toy, *arguments)
    assert code == 2 and said in " ".join(err.replace("│", " ").split())


def test_a_key_that_a_recipe_has_for_other_data_can_be_taken_out(tmp_path, run):
    folder = cifar10_folder(tmp_path / "cifar", batch=1, test=1)
    sizes = [f"--set=network.options.{key}={value}" for key, value in (("channels", [2] * 5), ("hidden", 2))]
    command = ("--recipe", "alexnet", "--data", folder, "-o", tmp_path / "net.safetensors", "--dry-run", *sizes)
    code, _, err = run(*command)
    assert code == 1 and "its images have one size; drop --part, or give --set data.part= where a recipe has it" in err
    code, _, err = run(*command, "--set", "data.part=")
    assert code == 1 and "input_size (32, 32) is too small for AlexNet" in err
    code, _, err = run(*command[:-2], "--recipe", "cifar10-sigma-0.5", "--set=data.crop=[8, 8]")
    assert code == 2 and "--recipe: a network for classification takes no crop; drop it" in err.replace("\n", " ")


def test_a_file_that_is_no_recipe_is_one_line(toy, tmp_path, run):
    (tmp_path / "my.toml").write_text("[training]\nepoch = 3\n")
    code, _, err = run(*toy)
    assert code == 1 and f"{tmp_path}/my.toml: there is no key training.epoch; did you mean" in err
    code, _, err = run("--recipe", tmp_path / "no.toml", *toy[2:])
    assert code == 1 and f"{tmp_path}/no.toml: cannot be read: No such file" in err


def test_a_run_goes_on_by_the_same_options_with_and_without_the_recipe(toy, run):
    assert run(*toy, "--epochs", "1")[0] == 0
    words = ("--epochs", 2, "--batch-size", 6, "--optimizer", "adam", "--mu-lr", 0.5, "--lr", 0.25)
    sizes = ("--model", "shallow_dau", "--channels", "2,2,2", "--units", 1)
    sizes += tuple(f"--set=network.options.{name}=" for name in ("sigma", "init", "mu_gradient"))
    words += ("--schedule", "step")
    code, _, err = run(*toy[2:], *words, *sizes, "--resume", "--overwrite")
    assert code == 0, err
    assert run(*toy, "--epochs", "3", "--resume", "--overwrite")[0] == 0


def test_a_dry_run_prints_the_recipe_as_it_would_be_followed(toy, run):
    code, out, _ = run(*toy, "--dry-run", "--set", "training.seed=4")
    assert code == 0
    printed = parse_recipe(out.partition("\n\n")[2], "stdout", "my")
    assert printed == replace(read_recipe(toy[1]), options=replace(read_recipe(toy[1]).options, seed=4))


def test_recipes_are_listed_and_printed(daukit_command):
    assert daukit_command("recipes", "--quiet").stdout.split() == NAMES
    listed = json.loads(daukit_command("recipes", "--json").stdout)["recipes"]
    assert [entry["name"] for entry in listed] == NAMES
    assert daukit_command("recipes", "srn-deblur").stdout == recipe_text("srn-deblur")
    shown = json.loads(daukit_command("recipes", "srn-deblur", "--json").stdout)
    assert shown == {**next(e for e in listed if e["name"] == "srn-deblur"), "toml": recipe_text("srn-deblur")}
    done = daukit_command("recipes", "srn-debur")
    assert done.returncode == 2 and "did you mean 'srn-deblur'?" in done.stderr
