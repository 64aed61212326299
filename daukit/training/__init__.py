"""Train networks: SGD with the paper's rules for DAUs, a log, and a state to resume from, bit for bit."""

from __future__ import annotations

from daukit.training.batches import Batches
from daukit.training.kept import RunFiles, check_files, check_save_every, keep_checkpoints
from daukit.training.log import EpochResult, best_of, read_log
from daukit.training.loop import TrainingStoppedError, train
from daukit.training.optimizers import displacement_rates, make_optimizer
from daukit.training.options import TrainingOptions
from daukit.training.recipe import About, Recipe, parse_recipe, parse_value, read_recipe, recipe_names, recipe_text
from daukit.training.sanity import absurd_loss
from daukit.training.settling import check_settling, hold
from daukit.training.state import RunState, read_state
from daukit.training.stepping import check_shares

__all__ = [
    "About",
    "Batches",
    "EpochResult",
    "Recipe",
    "RunFiles",
    "RunState",
    "TrainingOptions",
    "TrainingStoppedError",
    "absurd_loss",
    "best_of",
    "check_files",
    "check_save_every",
    "check_settling",
    "check_shares",
    "displacement_rates",
    "hold",
    "keep_checkpoints",
    "make_optimizer",
    "parse_recipe",
    "parse_value",
    "read_log",
    "read_recipe",
    "read_state",
    "recipe_names",
    "recipe_text",
    "train",
]
