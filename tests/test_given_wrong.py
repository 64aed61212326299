"""Every wrong type that a public function is given ends in one sentence."""

import pytest
import torch
from given import Net, X, network

import daukit
from daukit import baking, erf, pruning, rescale
from daukit.checkpoint import from_model
from daukit.errors import DaukitError
from daukit.nn import DAUConv2d
from daukit.offsets import displacement_changes

WRONG = {"None": None, "number": 1.5, "list": [], "mapping": {}, "class": Net, "bytes": b"x", "set": {1}}
FUNCTIONS = {
    "bake": baking.bake,
    "compare": lambda wrong: rescale.compare(wrong, network(), ["pool"]),
    "compare with": lambda wrong: rescale.compare(network(), wrong, ["pool"]),
    "compare_modes": lambda wrong: rescale.compare_modes(wrong, network(), None),
    "default_layers": erf.default_layers,
    "displacement_changes": lambda wrong: displacement_changes(wrong, network()),
    "displacement_changes from": lambda wrong: displacement_changes(network(), wrong),
    "export": lambda wrong: baking.export(wrong, X),
    "plan_like": lambda wrong: rescale.plan_like(wrong, "resnet18"),
    "random_inputs": lambda wrong: erf.random_inputs(wrong, 1, (8, 8), 0),
    "theoretical_receptive_field": lambda wrong: erf.theoretical_receptive_field(wrong, "first", X),
    "create_model": daukit.create_model,
    "displacement_distributions": daukit.displacement_distributions,
    "effective_receptive_field": lambda wrong: daukit.effective_receptive_field(wrong, "first", X),
    "erf of inputs": lambda wrong: daukit.effective_receptive_field(network(), "first", wrong),
    "from_model": from_model,
    "load": daukit.load,
    "open": daukit.open,
    "parameter_groups": lambda wrong: daukit.parameter_groups(wrong, 0.1, 0.1, 0.0),
    "project_displacements": daukit.project_displacements,
    "prune": lambda wrong: daukit.prune(wrong, 0.1),
    "read": daukit.read,
    "remove_pools": lambda wrong: daukit.remove_pools(wrong, ["pool"]),
    "rescale_factors": lambda wrong: daukit.rescale_factors(wrong, {"first": 2.0}),
    "save": lambda wrong: daukit.save(wrong, "net.safetensors"),
    "save to": lambda wrong: daukit.save(daukit.create_model("shallow_dau"), wrong),
    "substitute": lambda wrong: daukit.substitute(wrong),
    "sweep": lambda wrong: pruning.sweep(wrong, [0.1]),
    "units_needed": lambda wrong: daukit.units_needed(wrong),
    "write": lambda wrong: daukit.write(wrong, "net.safetensors"),
    "dau_conv2d": lambda wrong: daukit.dau_conv2d(wrong, torch.zeros(1, 1, 1), torch.zeros(2, 1, 1, 1)),
    "DAUConv2d": lambda wrong: DAUConv2d(wrong, 1, 1),
    "layer": lambda wrong: DAUConv2d(1, 1, 1)(wrong),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_wrong_type_gets_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, wrong in WRONG.items():
        with pytest.raises((TypeError, ValueError, DaukitError)) as told:
            FUNCTIONS[name](wrong)
        assert str(told.value) and "\n" not in str(told.value), f"{what}: {told.value}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [3, [], object()])
def test_a_wrong_architecture_says_what_it_may_be(wrong):
    with pytest.raises(TypeError, match="a network is named by a string"):
        from_model(network(), architecture=wrong)
    with pytest.raises(TypeError, match="a network is named by a string"):
        from_model(network(), architecture={"factory": wrong})


ARGUMENTS = {
    "threshold": lambda m: daukit.prune(m, "0.1"),
    "threshold of conv1": lambda m: daukit.prune(m, layer_thresholds={"conv1": "x"}),
    "layer_thresholds": lambda m: daukit.prune(m, layer_thresholds=0.1),
    "units": lambda m: daukit.prune(m, units=2.5),
    "remove": lambda m: daukit.prune(m, remove=[0.1]),
    "seed": lambda m: daukit.prune(m, 0.1, seed="x"),
    "within": lambda m: pruning.merge(m, "1"),
    "factors": lambda m: daukit.rescale_factors(m, [("conv1", 2)]),
    "the factor of 'conv1'": lambda m: daukit.rescale_factors(m, {"conv1": "2"}),
    "names": lambda m: daukit.remove_pools(m, "pool1"),
    "strides": lambda m: daukit.remove_pools(m, [], strides="conv1"),
    "input_size": lambda m: daukit.remove_pools(m, ["pool1"], input_size="16"),
    "layers": lambda m: daukit.effective_receptive_field(m, 3, torch.zeros(1, 1, 8, 8)),
    "masses": lambda m: daukit.effective_receptive_field(m, "conv1", torch.zeros(1, 1, 8, 8), masses=0.5),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_of_the_wrong_type_gets_one_sentence(argument):
    with pytest.raises(TypeError, match=rf"^{argument} must (be|map) .*, got [a-zA-Z]+ \S.*$"):
        ARGUMENTS[argument](daukit.create_model("shallow_dau", channels=[2, 2], units=2, num_classes=2))
