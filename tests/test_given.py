"""What public functions may be given: models, wrapped models, checkpoints, paths, factories; and what they refuse."""

import copy
import functools
import json

import pytest
import torch
from given import Net, X, network
from torch import nn
from torch.optim.swa_utils import AveragedModel

import daukit
from daukit import baking, channels, erf, pruning, rescale
from daukit.checkpoint import from_model
from daukit.errors import DaukitError
from daukit.nn import DAUConv2d
from daukit.offsets import displacement_changes, displacement_distributions, sigma_distributions


def build(width=4):
    return Net(width)


OPERATIONS = {
    "prune": lambda source: daukit.prune(source, 0.5),
    "merge": lambda source: pruning.merge(source, 10.0),
    "drop_channels": lambda source: channels.drop_channels(source),
    "rescale_factors": lambda source: daukit.rescale_factors(source, {"first": 2.0}),
    "remove_pools": lambda source: daukit.remove_pools(source, ["pool"]),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    model = daukit.create_model("shallow_dau")
    daukit.save(model, path)
    return model, path


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_a_model_gives_a_new_model_that_computes_what_the_files_would(name, tmp_path):
    model = network()
    before = copy.deepcopy(model.state_dict())
    after, _ = OPERATIONS[name](model)
    assert type(after) is Net and after is not model and after.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    path = tmp_path / "net.safetensors"
    daukit.save(model, path, architecture={"factory": build})
    expected, _ = OPERATIONS[name](daukit.read(path)) if name not in ("drop_channels", "remove_pools") else (None, None)
    if expected is not None:
        rebuilt = daukit.checkpoint.build_model(expected, model=build)
        assert torch.equal(after.eval()(X), rebuilt(X))
    else:
        assert after.eval()(X).isfinite().all()


def test_prune_really_removes_units_of_a_model_and_leaves_modes_and_gradients_as_they_were():
    model = network()
    model.norm.eval()
    model.first.bias.requires_grad_(False)
    pruned, report = daukit.prune(model, units=10)
    assert sum(layer.weight.numel() for layer in (pruned.first, pruned.second)) == 10 == report.units_after
    assert pruned.training and not pruned.norm.training
    assert not pruned.first.bias.requires_grad and pruned.first.weight.requires_grad
    assert daukit.models.record_of(pruned) is None


def test_a_checkpoint_or_a_path_gives_a_checkpoint(saved):
    model, path = saved
    by_path, by_string, by_checkpoint = (daukit.prune(s, 0.5)[0] for s in (path, str(path), daukit.read(path)))
    of_model, _ = daukit.prune(model, 0.5)
    assert all(isinstance(one, daukit.Checkpoint) for one in (by_path, by_string, by_checkpoint))
    for name, tensor in of_model.state_dict().items():
        assert torch.equal(tensor, by_path.tensors[name]) and torch.equal(tensor, by_checkpoint.tensors[name])


def test_what_was_done_to_a_model_of_daukits_is_in_its_file(saved, tmp_path):
    model, _ = saved
    pruned, _ = daukit.prune(model, 0.5)
    daukit.save(pruned, tmp_path / "pruned.safetensors")
    header = daukit.read(tmp_path / "pruned.safetensors").header
    assert [entry["operation"] for entry in header.history] == ["prune"]
    assert header.architecture == {"name": "shallow_dau", "config": {}}


def test_the_numbers_of_a_model_are_those_of_its_checkpoint(saved):
    model, path = saved
    for study in (daukit.displacement_distributions, sigma_distributions):
        told = [[layer.mean_distance if study is daukit.displacement_distributions else layer.name
                 for layer in study(source)] for source in (model, path, daukit.read(path))]  # fmt: skip
        assert told[0] == told[1] == told[2]
    swept = [[told.units_after for told in pruning.sweep(source, [0, 0.1])] for source in (model, path)]
    assert swept[0] == swept[1] == [daukit.prune(path, threshold)[1].units_after for threshold in (0, 0.1)]


WRAPPERS = {
    "parallel": nn.DataParallel,
    "compiled": torch.compile,
    "averaged": AveragedModel,
    "compiled and parallel": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_is_unwrapped(wrap, tmp_path):
    model = daukit.create_model("shallow_dau")
    wrapped = wrap(model)
    daukit.save(wrapped, tmp_path / "wrapped.safetensors")
    loaded = daukit.load(tmp_path / "wrapped.safetensors")
    assert set(loaded.state_dict()) == set(model.state_dict())
    pruned, _ = daukit.prune(wrapped, 0.5)
    assert set(pruned.state_dict()) > set(model.state_dict())  # pruned layers have unit_counts, too


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_is_baked_and_probed_as_what_is_in_it(wrap):
    model = network().eval()
    wrapped = wrap(model)
    assert torch.equal(baking.bake(wrapped)(X), baking.bake(model)(X))
    assert erf.default_layers(wrapped) == ["first", "second"]
    assert torch.equal(erf.random_inputs(wrapped, 1, (8, 8), 0), erf.random_inputs(model, 1, (8, 8), 0))
    both = [erf.theoretical_receptive_field(one, "second", X[:1]) for one in (wrapped, model)]
    assert both[0] == both[1] and both[0][0] is not None


class Fine(Net):
    """The same layers without the pool's stride."""

    def __init__(self, width=4):
        super().__init__(width)
        self.pool = nn.MaxPool2d(2, stride=1)


def test_what_compares_two_networks_takes_models_paths_and_checkpoints(tmp_path):
    before, paths = network().eval(), [tmp_path / f"{i}.safetensors" for i in range(2)]
    after, report = daukit.remove_pools(before, ["pool"], mode="exact", model=build)
    daukit.save(before, paths[0], architecture=build)
    daukit.save(after, paths[1], architecture=build)
    named = {"model": build, "input_size": (12, 12)}
    for function in (
        lambda *both: rescale.compare(*both, ["pool"], **named),
        lambda *both: rescale.compare_modes(*both, report, **named),
    ):
        told = function(before, after)
        assert told == function(*paths) == function(daukit.read(paths[0]), after) == function(before, paths[1])
    plans = [rescale.plan_like(one, f"{__name__}:Fine", model=build) for one in (before, paths[0])]
    assert plans[0] == plans[1] and plans[0].pools == ("pool",)


def test_changes_between_two_models_are_those_between_their_files(tmp_path):
    models, paths = [network(), network()], [tmp_path / f"{i}.safetensors" for i in range(2)]
    with torch.no_grad():
        models[1].first.mu += 0.5
    for model, path in zip(models, paths, strict=True):
        daukit.save(model, path, architecture=build)
    for study in (displacement_changes, lambda after, before: sigma_distributions(after, before=before)):
        told = [[repr(layer) for layer in study(*both)] for both in (models, paths, (models[0], paths[1]))]
        assert told[0] == told[1] == told[2]


def fine_of(width):
    return Fine(width)


def test_options_of_a_model_in_memory_go_to_the_network_that_it_is_planned_like(tmp_path):
    daukit.save(Net(5), tmp_path / "net.safetensors", architecture={"factory": build, "config": {"width": 5}})
    model = daukit.load(tmp_path / "net.safetensors", model=build)
    assert rescale.plan_like(model, f"{__name__}:fine_of").pools == ("pool",)


@pytest.mark.filterwarnings("ignore:.*and is read as.*")  # one function for the other
@pytest.mark.parametrize("architecture", [{"factory": build}, build, {"factory": Net, "config": {"width": 4}}])
def test_a_factory_may_be_the_function_itself(architecture, tmp_path):
    model, path = network().eval(), tmp_path / "net.safetensors"
    daukit.save(model, path, architecture=architecture)
    said = daukit.read(path).header.architecture["factory"]
    assert said in (f"{__name__}:build", f"{Net.__module__}:Net")
    for factory in (build, said, lambda width=4: Net(width)):
        assert torch.equal(daukit.load(path, model=factory)(X), model(X))


def test_a_factory_that_no_file_can_name_is_refused_when_a_file_is_written(tmp_path):
    def within():
        return Net()

    for factory, name in ((lambda: Net(), "<lambda>"), (within, "within"), (functools.partial(Net, 4), "<partial>")):
        with pytest.raises(ValueError, match=f"a file names its network's factory, and {name} could not be found"):
            daukit.save(network(), tmp_path / "net.safetensors", architecture={"factory": factory})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "a network is named by a string.*got int$"),
        ({"model": Net()}, "a network is named by a string.*got Net that is built already"),
        ({"model": build, "config": [1]}, "config must map options.*it is a list"),
        ({"model": build, "config": {1: 2}}, "config must map options.*other keys than texts"),
    ],
)
def test_a_wrong_network_to_load_gets_one_sentence(options, message, saved):
    with pytest.raises(TypeError, match=message):
        daukit.load(saved[1], **options)
    with pytest.raises(TypeError, match=message):
        from_model(network(), architecture={"factory": options["model"], "config": options.get("config", {})})


class Masked(Net):
    """Its mask holds infinities, as those of attention do."""

    def __init__(self, width=4):
        super().__init__(width)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))


def test_infinities_that_the_network_itself_makes_are_taken_and_no_others(tmp_path):
    model = Masked()
    torch.save(model.state_dict(), tmp_path / "mask.pth")
    assert torch.equal(daukit.load(tmp_path / "mask.pth", model=Masked).mask, model.mask)
    for wrong in (torch.inf, torch.nan):
        torch.save({**model.state_dict(), "mask": model.mask.nan_to_num(neginf=wrong)}, tmp_path / "mask.pth")
        with pytest.raises(DaukitError, match="1 of 4 values of mask are NaN or infinite"):
            daukit.load(tmp_path / "mask.pth", model=Masked)


def test_a_layer_is_asked_for_by_its_name(saved):
    with pytest.raises(TypeError, match="layer takes the name of a DAU layer, got int 3"):
        daukit.read(saved[1]).layer(3)
    with daukit.open(saved[1]) as file, pytest.raises(TypeError, match="layer takes the name"):
        file.layer(3)


BROKEN = {
    "NaN": lambda: DAUConv2d(1, 2, 2, init="uniform", max_displacement=1),
    "no DAU layer": lambda: nn.Conv2d(1, 1, 3),
}
READERS = {
    "prune": lambda model: daukit.prune(model, 0.1),
    "merge": lambda model: pruning.merge(model, 1.0),
    "displacement_distributions": displacement_distributions,
    "sigma_distributions": sigma_distributions,
}


@pytest.mark.parametrize("layer", BROKEN)
@pytest.mark.parametrize("operation", READERS.values(), ids=READERS)
def test_an_error_about_a_model_in_memory_begins_with_the_model(layer, operation):
    model = nn.Sequential(BROKEN[layer]())
    nn.init.constant_(model[0].weight, torch.nan)
    with pytest.raises(DaukitError, match=r"^the model: "):
        operation(model)


def test_a_header_never_names_what_is_only_in_memory(saved):
    model, _ = saved
    for operation in ("prune", "merge"):
        after, _ = OPERATIONS[operation](model)
        assert "in memory" not in json.dumps(from_model(after).header.architecture)
