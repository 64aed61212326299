"""Every option of every command does something in every mode of it, or it is refused."""

import inspect
import json
import re
import shutil
import types
import typing
from functools import partial

import pytest
import safetensors.torch
import torch
import typer
from idx import toy_folder
from logs import write_log
from matplotlib.text import Text
from trees import picture

import daukit
from daukit import baking, benchmark, gpu_benchmark, training
from daukit.benchmark import Quartiles
from daukit.cli import devices, options, progress
from daukit.cli.main import app
from daukit.models import record_of
from daukit.ops import library
from daukit.preprocessing import Preprocessing
from daukit.workflows import bench, bench_data, bench_gpu, outputs, substitute

COMMANDS = {command.name: command.callback for command in app.registered_commands}

PERMISSIONS = {"--overwrite", "--dry-run"}
"""Options that ask for nothing: they allow, or promise not to do, what may not come about anyway."""

SAME = {
    "--kind both": "the default",
    "--kind change": "the default with --before",
    "--group layer": "the default",
    "--group stage": "every layer of this network is a stage of its own",
    "--batch-size 3": "of erf: how much at a time, which changes no number (that of train goes into the history)",
    "--layout idx": "what the folder is taken for anyway",
    "--save-state-every 1": "how much a power cut costs, which changes no number",
    "--no-crop": "how much is computed, which changes no number",
}
"""What is used, and yet shows nothing here."""

# The ways in which commands work; capital words are files of ``folder``.
MODES = {
    "info": [("MODEL",), ("--model", "shallow_dau")],
    "diff": [("MODEL", "MODEL", "--json")],
    "undo": [("RESCALED", "-o", "OUT", "--json")],
    "export": [
        ("MODEL", "-o", "ONNX", "--json"),
        ("MODEL", "-o", "PROGRAM", "--json"),
        ("MODEL", "-o", "ONNX", "--no-verify"),
    ],
    "report": [
        ("MODEL", "--images", "1", "--json"),
        ("MODEL", "--data", "DATA", "--images", "1", "--json"),
        ("MODEL", "--images", "1", "--time", "--json"),
        ("MODEL", "--images", "0", "-o", "PAGE"),
    ],
    "models": [()],
    "recipes": [(), ("alexnet",)],
    "checks": [()],
    "evaluate": [("MODEL", "--data", "DATA"), ("MODEL", "--data", "DATA", "--pictures", "FIG")],
    "predict": [("MODEL", "PICTURES", "-o", "FOLDER", "--json")],
    "prune": [
        ("MODEL", "--threshold", "0.3", "-o", "OUT", "--json"),
        ("MODEL", "--remove", "0.3", "--random", "-o", "OUT", "--json"),
        ("MODEL", "--merge-within", "1", "-o", "OUT", "--json"),
        ("MODEL", "--keep-units", "10", "--data", "DATA", "-o", "OUT", "--json"),
        ("MODEL", "--thresholds", "0,0.4", "--json"),
        ("MODEL", "--thresholds", "0,0.4", "--data", "DATA", "--json"),
        ("MODEL", "--macs", "0.5", "-o", "OUT", "--json"),
        ("MODEL", "--time-budget", "1", "-o", "OUT", "--json"),
        ("MODEL", "--remove", "0.3", "--score", "taylor", "--data", "DATA", "-o", "OUT", "--json"),
        ("MODEL", "--recalibrate", "DATA", "--split", "test", "-o", "OUT", "--json"),
        (
            "MODEL",
            "--remove",
            "0.3",
            "--iterate",
            "2",
            "--epochs-between",
            "1",
            "--data",
            "DATA",
            "-o",
            "OUT",
            "--json",
        ),
    ],
    "train": [
        ("--data", "DATA", "-o", "OUT", "--epochs", "1", "--batch-size", "4", "--channels", "2,2,3"),
        ("--data", "DATA", "-o", "OUT", "--epochs", "1", "--batch-size", "4", "--initial-checkpoint", "MODEL"),
    ],
    "erf": [
        ("MODEL", "--layer", "conv1", "--images", "2", "--json"),
        ("MODEL", "--layer", "conv1", "--images", "2", "--data", "DATA", "--json"),
        ("MODEL", "--layer", "conv1", "--images", "2", "--compare", "OTHER", "--json"),
        ("MODEL", "--layer", "conv1", "--layer", "conv2", "--images", "1", "--size", "16", "-o", "FIG"),
        ("--model", "shallow_dau", "--model-arg", "channels=2,2,3", "--layer", "conv1", "--images", "2", "--json"),
    ],
    "bake": [("MODEL", "-o", "PROGRAM", "--json")],
    "rescale": [("MODEL", "--factor", "conv2=2", "-o", "OUT"), ("MODEL", "--remove-pool", "pool3", "-o", "OUT")],
    "snap": [
        ("MODEL", "-o", "OUT", "--json"),
        ("MODEL", "--data", "DATA", "--images", "4", "-o", "OUT", "--json"),
    ],
    "plot-offsets": [
        ("MODEL", "--json"),
        ("MODEL", "--kind", "1d", "--layer", "conv1", "-o", "FIG"),
        ("MODEL", "--before", "OTHER", "--json"),
        ("MODEL", "--kind", "sigma", "--json"),
        ("--log", "LOG", "-o", "FIG"),
    ],
    "convert": [
        ("MODEL", "--folder", "-o", "OUT"),
        ("CONVOLUTIONS", "--substitute", "-o", "OUT"),
        ("CONVOLUTIONS", "--substitute", "--fit", "--where", "conv1", "-o", "OUT"),
        ("CONVOLUTIONS", "--units-table", "--where", "conv1", "--seed", "3"),
        ("MODEL", "--to", "shallow_dau", "--to-arg", "channels=2,2,4", "-o", "OUT"),
    ],
    "bench": [
        ("--shape", "1,2,3,5"),
        ("--backends", "--json"),
        ("--sparse", "--shape", "1,2,3,5", "--json"),
        ("--sparse", "--quick", "--json"),
        ("--commands",),
        ("--device", "cuda", "--shape", "1,2,3,5"),
        ("--data", "DATA", "--batch-size", "4"),
    ],
}

# Values of options whose type does not tell any.
VALUES = {
    "--output": "SECOND",
    "--recipe": "RECIPE",
    "--set": "training.momentum=0.5",
    "--model": "alexnet",
    "--model-arg": "units=3",
    "--size": "32",
    "--threshold": "0.5",
    "--thresholds": "0.1",
    "--csv": "CSV2",
    "--figure": "FIG2",
    "--pictures": "FIG2",
    "--tile": "64",
    "--gridding": "2",
    "--data": "DATA2",
    "--factor": "conv3=3",
    "--remove-pool": "pool2",
    "--remove-stride": "conv1",
    "--to": "shallow",
    "--to-arg": "task=segmentation",
    "--like": "shallow_dau",
    "--like-arg": "units=3",
    "--before": "OTHER",
    "--log": "LOG2",
    "--layer": "conv2",
    "--keep-top": "0.5",
    "--keep-rel": "0.5",
    "--stage": "conv",
    "--prototxt": "nowhere",
    "--window": "5",
    "--stride": "2",
    "--groups": "2",
    "--where": "conv2",
    "--kernel-size": "5",
    "--shape": "1,3,2,4",
    "--weights": "ema",
    "--device": "abacus",
    "--classes": "CLASSES",
    "--label": "Ours",
    "--channels": "2,3",
    "--units": "3",
    "--mu-lr": "0.25",
    "--mu-lr-factor": "0.25",
    "--milestones": "1",
    "--betas": "0.5,0.5",
    "--save-every": "1",
    "--save-state-every": "1",
    "--initial-checkpoint": "OTHER",
    "--compare": "CONVOLUTIONS",
    "--compare-model": "shallow",
    "--compare-model-arg": "units=3",
    "--tokens": "4",
    "--mean": "0.25",
    "--std": "0.5",
    "--npz": "NPZ",
    "--recalibrate": "DATA2",
    "--train-arg": "batch_size=3",
    "--tensorboard": "BOARD",
    "--crop-size": "8,8",
    "--scale": "0.5,2",
}
TYPES = {bool: [None], int: ["3"], float: ["0.25"]}


def choices(command):
    """(option, value) of every option: None for a flag, all values of a choice but the default."""
    hints = typing.get_type_hints(COMMANDS[command], include_extras=True)
    for name, parameter in inspect.signature(COMMANDS[command]).parameters.items():
        # Python 3.10 makes what may be None of a parameter that is None by default.
        hint = next(hint for hint in (hints[name], *typing.get_args(hints[name])) if hasattr(hint, "__metadata__"))
        kind, info = hint.__origin__, hint.__metadata__[0]
        if not isinstance(info, typer.models.OptionInfo):
            continue
        # typer takes the first name for a default until it looks closer.
        named = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
        option = next(iter(named), f"--{name.replace('_', '-')}")
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is typing.Literal:
            values = [value for value in typing.get_args(kind) if value != parameter.default]
        else:
            values = [VALUES[option]] if option in VALUES else TYPES[kind]
        if parameter.default is True:
            option = f"--no-{option.removeprefix('--')}"
        yield from ((option, value) for value in values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("options")
    for seed, name in enumerate(("data", "data2")):
        toy_folder(path / name, 8, 8 + 4 * seed)
    seen = Preprocessing((0.5,), (0.25,), "gray", (16, 16))
    for seed, (name, file) in enumerate((("shallow_dau", "model"), ("shallow_dau", "other"), ("shallow", "conv"))):
        torch.manual_seed(seed)
        sizes = {"channels": [2, 2, 3], "num_classes": 4, "input_size": [16, 16]}
        network = daukit.create_model(name, **sizes)
        record_of(network).preprocessing = seen
        daukit.save(network, path / f"{file}.safetensors")
    scaled, _ = daukit.rescale_factors(daukit.read(path / "model.safetensors"), {"conv2": 2})
    daukit.write(scaled, path / "rescaled.safetensors")
    (path / "classes.txt").write_text("a\nb\nc\nd\n")
    for name, speed in (("log", 0.25), ("log2", 0.5)):
        write_log(path / f"{name}.jsonl", speed=speed)
    (path / "recipe.toml").write_text("[training]\nmomentum = 0.5\n")
    picture(path / "pictures" / "one.png", (20, 16))
    return path


NAMES = {
    "MODEL": "model.safetensors", "OTHER": "other.safetensors", "CONVOLUTIONS": "conv.safetensors", "DATA": "data",
    "DATA2": "data2", "OUT": "out.safetensors", "SECOND": "second.safetensors", "CSV": "out.csv", "CSV2": "second.csv",
    "FIG": "out.svg", "FIG2": "second.svg", "NPZ": "out.npz", "PROGRAM": "out.pt2", "CLASSES": "classes.txt",
    "PAGE": "page.html", "RESCALED": "rescaled.safetensors",
    "ONNX": "out.onnx", "BOARD": "board", "RECIPE": "recipe.toml", "PICTURES": "pictures", "FOLDER": "folder",
    "LOG": "log.jsonl", "LOG2": "log2.jsonl",
}  # fmt: skip


@pytest.fixture
def outcome(folder, monkeypatch, daukit_command):
    """What a call leaves behind: its exit code, what it says, its files; time stands still, and no time is taken."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(devices, "choose", lambda name, used=True: "cpu" if name == "auto" else name)
    for module in (benchmark, benchmark.layers, benchmark.networks, benchmark.sparse):
        monkeypatch.setattr(module, "interleave", untimed)
    monkeypatch.setattr(benchmark.sparse, "KERNELS", (3,))
    monkeypatch.setattr(benchmark, "DENSITIES", (1.0, 0.5))
    monkeypatch.setattr(benchmark, "network_cases", lambda quick: [benchmark.layer_cases([(1, 2, 2, 3)])[0]])
    for name in ("bench_training", "bench_gamma", "bench_inference"):
        monkeypatch.setattr(benchmark, name, told(name))
    monkeypatch.setattr(library, "peak", lambda: 1e9)
    monkeypatch.setattr(bench_data, "_interleaved", unmeasured)
    monkeypatch.setattr(benchmark, "BACKEND_CASES", {"tiny": benchmark.BACKEND_CASES["tiny"]})
    monkeypatch.setattr(bench, "_processes", lambda model: {"import torch": lambda: weights(model)})
    for name in ("bench_layer", "bench_network"):
        monkeypatch.setattr(gpu_benchmark, name, told(name, lambda q: gpu_benchmark.Timed(q, 0.0, 0.0, None)))
    monkeypatch.setattr(
        gpu_benchmark, "device_peaks", lambda _: dict.fromkeys(("flops_per_second", "bytes_per_second"))
    )
    monkeypatch.setattr(bench_gpu, "_name", str)
    monkeypatch.setattr(training.loop.time, "perf_counter", lambda: 0.0)
    monkeypatch.setattr(progress, "_lines", progress._Lines())
    monkeypatch.setattr(progress, "PATIENCE", float("inf"))
    monkeypatch.setattr(baking, "export", program_of)
    monkeypatch.setattr(outputs, "save_figure", sketch)
    monkeypatch.setattr(substitute, "units_needed", partial(substitute.units_needed, max_units=2, starts=2))
    before = set(folder.iterdir())

    def call(command, arguments):
        threads = torch.get_num_threads()
        try:
            done = daukit_command(command, *(NAMES.get(word, word) for word in arguments))
            said = (done.returncode, done.stdout, done.stderr)
        except Exception as error:  # a device that does not exist may end as torch likes
            said = repr(error)
        torch.set_num_threads(threads)
        written = {}
        for path in sorted(set(folder.iterdir()) - before):
            for file in [path] if path.is_file() else path.iterdir():
                # But for dates, and for digests of files that have dates.
                written[str(file)] = re.sub(rb"\d{4}-\d\d-\d\dT[\d:+]+|\b[0-9a-f]{64}\b", b"", file.read_bytes())
            path.unlink() if path.is_file() else shutil.rmtree(path)
        return said, written

    return call


def weights(path):
    return safetensors.torch.load_file(path)["conv1.weight"]


def program_of(twin, example, metadata):
    """Instead of a program, which takes torch seconds: what it would be of."""
    return repr((example, twin.state_dict(), metadata)).encode()


def sketch(figure, path, *, overwrite):
    """Instead of drawing, which takes a second: what is on the figure, and where."""
    told = [repr(figure.get_size_inches())]
    for artist in figure.findobj():
        told += [type(artist).__name__, artist.get_text() if isinstance(artist, Text) else ""]
        told += [repr(getattr(artist, data, str)()) for data in ("get_xydata", "get_array", "get_label", "get_xlim")]
    path.write_text("\n".join(told))


def untimed(tasks, rounds):
    """Instead of times: the number of rounds, and something of what each task gives."""
    values = {}
    for name, task in tasks.items():
        output = task()
        output = torch.zeros(1) if output is None else output
        first = output if isinstance(output, torch.Tensor) else output[0]
        values[name] = Quartiles(1.0 * rounds, 1.0 + float(torch.as_tensor(first).detach().double().abs().sum()), 3.0)
    return values


def unmeasured(tasks, rounds, on_progress):
    """Instead of times of a training: the number of rounds, and something of its network and its images."""
    timed = tasks["step"].__self__
    images = next(iter(timed.batches.epoch(0))).images
    seen = sum(float(tensor.detach().double().abs().sum()) for tensor in (images, *timed._network.parameters()))
    return dict.fromkeys(tasks, [rounds * seen] * 2)


def told(name, wrap=lambda quartiles: quartiles):
    """Instead of a function that takes times: what it was asked to do, as a number."""

    def fake(*arguments, **named):
        code = sum(json.dumps([list(map(str, arguments)), named]).encode())
        return {"3x3": wrap(Quartiles(1.0, float(code), 3.0)), "9x9": wrap(Quartiles(1.0, 2.0, 3.0))}

    return fake


def takes_long(command, mode):
    """True where every option costs a figure of several fields, or a training."""
    trains = command == "train" or "--iterate" in mode or (command, mode[:1]) == ("bench", ("--data",))
    return (command == "erf" and "FIG" in mode) or command in ("report", "export") or trains


@pytest.mark.parametrize(
    ("command", "mode"),
    [
        pytest.param(command, mode, marks=[pytest.mark.slow] if place or takes_long(command, mode) else [])
        for command, modes in MODES.items()
        for place, mode in enumerate(modes)
    ],
)
def test_an_option_does_something_or_is_refused(command, mode, outcome):
    base = outcome(command, mode)
    assert base[0][0] == 0, base
    assert outcome(command, mode) == base, "what differs from call to call shows nothing"
    idle = []
    for option, value in choices(command):
        words = (option,) if value is None else (option, value)
        if option in PERMISSIONS or " ".join(words) in SAME or set(words) <= set(mode):
            continue
        if outcome(command, (*mode, *words)) == base:
            idle.append(" ".join(words))
    assert not idle


@pytest.mark.parametrize(("command", "former"), [(c, name) for c, names in options.RENAMED.items() for name in names])
def test_a_former_name_of_an_option_works_with_a_note_and_is_not_in_the_help(command, former, outcome, daukit_command):
    present = options.RENAMED[command][former]
    mode = next(mode for mode in MODES[command] if present in mode)
    said, written = outcome(command, mode)
    place = mode.index(present)
    value = NAMES.get(mode[place + 1], mode[place + 1])
    for words in ((former, value), (f"{former}={value}",)):
        (code, out, err), files = outcome(command, (*mode[:place], *words, *mode[place + 2 :]))
        assert (code, out, files) == (*said[:2], written)
        assert err == f"{former} is now {present}\n" + said[2]
    assert outcome(command, (*mode[:place], former, "no number"))[0][2].count(present) >= 1
    names = re.findall(r"--[\w-]+", daukit_command(command, "--help").stdout)
    assert present in names and former not in names


def test_a_former_name_makes_no_note_where_only_answers_are_wanted(outcome):
    words = ("MODEL", "--units", "3", "--dry-run")
    assert outcome("prune", (*words, "--quiet"))[0] == (0, "3\n", "")
    assert outcome("prune", words)[0][2].startswith("--units is now --keep-units\n")
