"""Prune and fine-tune in rounds, with a file after each step, so that a stopped run goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from daukit.checkpoint import Checkpoint, read, write
from daukit.datasets import Layout, open_dataset
from daukit.errors import CheckpointError, OutputError, in_words_of_caller
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.limits import is_whole
from daukit.pruning import Rule
from daukit.training import RunFiles, TrainingOptions
from daukit.training.recipe_rules import CHANGES, KEYS, TRAINING, check_options_of_training
from daukit.workflows.task_images import purpose_of
from daukit.workflows.train_sets import check_changes

_OPTIONS = {field.name for field in fields(TrainingOptions)}


@dataclass(frozen=True)
class RoundFiles:
    """The files of one round, all named after the output of the run.

    Attributes:
        output: the checkpoint at the end of the run.
        number: of the round, from 1.
    """

    output: Path
    number: int

    @property
    def pruned(self) -> Path:
        """The network of the round before it is trained."""
        return self._beside(".pruned")

    @property
    def trained(self) -> Path:
        """The network at the end of the round."""
        return self._beside("")

    @property
    def training(self) -> RunFiles:
        """The files of the round's training: its output, its log and its state."""
        return RunFiles(self.trained)

    @property
    def all(self) -> tuple[Path, ...]:
        """All files that the round leaves."""
        return self.pruned, self.trained, self.training.log, self.training.state

    def _beside(self, ending: str) -> Path:
        stem = self.output.name.removesuffix(".safetensors")
        return self.output.with_name(f"{stem}.round{self.number:02d}{ending}.safetensors")


@dataclass(frozen=True)
class Crops:
    """The parts of pictures that networks for segmentation and deblurring learn from, as ``Recipe`` has them.

    Attributes:
        crop: height and width; default: those of ``daukit train``.
        scale: bounds of a random factor on the size of pictures with masks; default: none.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are no defaults."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Plan:
    """The steps of a run, and how its files are told from those of others.

    Attributes:
        rules: of the rounds.
        options: of the training after each of them.
        files: of the rounds.
        identity: what stands beside a round's rule in the history of its file.
        source: digest of the file that the run began with.
        changes: how the images become those that are learnt from, as arguments of ``Recipe``.
    """

    rules: tuple[Rule, ...]
    options: TrainingOptions
    files: tuple[RoundFiles, ...]
    identity: Mapping[str, Any]
    source: str | None
    changes: Mapping[str, Any]

    def options_of(self, number: int) -> TrainingOptions:
        """Options of a round's training: each has the images in an order of its own."""
        return replace(self.options, seed=self.options.seed + number - 1)

    def arguments_of(self, number: int) -> dict[str, Any]:
        """What a round's pruned file has in its history."""
        return {**self.rules[number - 1].to_json(), **self.identity, "round": number}

    def found(self, number: int, before: str | None) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The files that a stopped run has left of a round: the pruned network and the trained one.

        Args:
            number: of the round.
            before: digest of the file that the round began with.

        Raises:
            CheckpointError: a file is damaged, or another run's.
        """
        files = self.files[number - 1]
        if not files.pruned.exists():
            return None, None
        pruned = read(files.pruned)
        self._check(pruned, "prune", self.arguments_of(number), before)
        if not files.trained.exists():
            return pruned, None
        trained = read(files.trained)
        self._check(trained, "train", self.options_of(number).settings(), pruned.digest)
        return pruned, trained

    def _check(self, file: Checkpoint, operation: str, arguments: Mapping[str, Any], source: str | None) -> None:
        last: dict[str, Any] = file.header.history[-1] if file.header.history else {}
        there = last.get("arguments", {})
        # A run that does not name what the file has is another one, too: options at their defaults are not written.
        more = [key for key in there if key not in arguments and (operation == "prune" or key in _OPTIONS)]
        differs = next((key for key in (*arguments, *more) if there.get(key) != arguments.get(key)), None)
        if last.get("operation") == operation and differs is None and last.get("source") == source:
            return
        reason = "it was made of another file, or by another command"
        if differs is not None and last.get("operation") == operation:
            reason = f"{differs}: {there.get(differs)} there, {arguments.get(differs)} here"
        again = in_words_of_caller("resume with the same arguments", "give the same options with --resume")
        raise CheckpointError(f"{file.called}: belongs to another run ({reason}); {again}")


def plan_of(
    checkpoint: Checkpoint,
    rules: tuple[Rule, ...],
    options: TrainingOptions,
    output: Path,
    data: Path,
    split: str,
    layout: Layout | None,
    crops: Crops,
) -> Plan:
    """The plan of a run.

    Raises:
        ValueError: ``layout`` is of another task.
        DataError: the images to learn from are missing or damaged.
    """
    digest = open_dataset(data, "train", layout, task=purpose_of(checkpoint)).digest()
    files = tuple(RoundFiles(output, number) for number in range(1, len(rules) + 1))
    there = {name: list(value) for name, value in crops.given.items()}
    identity = {"rounds": len(rules), "data": digest, "split": split, **there}
    return Plan(rules, options, files, identity, checkpoint.digest, {"layout": layout, **crops.given})


def check_files(plan: Plan, output: Path, source: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        CheckpointError: there is no run to go on with.
        OutputError: a file exists already, or cannot be written.
    """
    sources = [] if source is None else [source]
    go_on, anew = in_words_of_caller("resume=True", "--resume"), in_words_of_caller("overwrite=True", "--overwrite")
    check_output(output, overwrite=overwrite or resume, sources=sources, suffixes=CHECKPOINT_SUFFIXES)
    first = plan.files[0]
    if resume and not first.pruned.exists():
        raise CheckpointError(f"{first.pruned}: there is no such file, so no run to go on with; drop {go_on} to begin")
    if resume and output.exists() and not overwrite:
        raise OutputError(f"{output}: exists already, so its run has ended; pass {anew} as well to make it again")
    if not (resume or overwrite) and first.pruned.exists():
        raise OutputError(
            f"{first.pruned}: a run that writes {output.name} has begun already; pass {go_on} to go on with it, {anew} "
            f"to begin anew, or choose another {in_words_of_caller('output', '-o')}"
        )
    for path in (path for files in plan.files for path in files.all):
        check_output(path, overwrite=overwrite or resume, sources=sources)


def training_options(values: Mapping[str, Any]) -> TrainingOptions:
    """Options of a training by name, as ``--train-arg`` has them.

    Raises:
        ValueError: there is no such option, it has a wrong value, or another option makes it useless; the number of
            epochs and whole pixels are the run's own.
    """
    rules = {name: rule for name, rule in {**TRAINING, **CHANGES}.items() if name not in ("epochs", "snap_at")}
    values = {name: [value] if name == "milestones" and is_whole(value) else value for name, value in values.items()}
    check_options_of_training(values, rules)
    chosen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    options = TrainingOptions(**chosen)
    for name in sorted(values):
        cause = options.idles(name)
        if cause is not None:
            raise ValueError(f"{name} does nothing with {cause}; drop it")
    return options


def crops_of(values: Mapping[str, Any]) -> tuple[Crops, dict[str, Any]]:
    """The options of a training that say which parts of pictures it takes, as ``--train-arg`` has them, and the others.

    Raises:
        ValueError: an option has a wrong value.
    """
    rules = {name: KEYS["data"][name] for name in ("crop", "scale")}
    own = {name: value for name, value in values.items() if name in rules}
    check_options_of_training(own, rules)
    others = {name: value for name, value in values.items() if name not in rules}
    return Crops(**{name: tuple(value) for name, value in own.items()}), others


def check_crops(checkpoint: Checkpoint, options: TrainingOptions, crops: Crops) -> None:
    """Raise ``ValueError`` if a checkpoint's network does not learn from such parts of pictures."""
    check_changes(purpose_of(checkpoint), options, crop=crops.crop, scale=crops.scale)


def write_pruned(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Write a round's pruned network, whatever was there, and read it again, as a run that goes on would."""
    write(checkpoint, path, overwrite=True)
    return read(path)
