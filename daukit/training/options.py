"""Options of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from daukit.training.schedule import cosine_rate, poly_rate, step_rate, warm_up_rate
from daukit.transforms import Part

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["step", "poly", "cosine", "constant"]
Precision = Literal["fp32", "bf16"]
Auto = Literal["auto"]
AUTO: Auto = "auto"

_LATER = {
    "part", "snap_at", "optimizer", "warm_up", "clip_norm", "accumulate", "precision", "ema", "sync_batch_norm",
    "mu_power",
}  # fmt: skip
"""Options that states of older versions do not have: a state has them only where they are not the default."""
_OF_STEP, _OF_POLY = {"milestones", "gamma"}, {"power", "mu_power"}


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training; the defaults follow section 4.1 of the paper, but for how displacements learn.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        optimizer: ``"sgd"``, ``"adam"``, or ``"adamw"``, whose decay is no part of the gradient.
        lr: learning rate at the start.
        momentum: of SGD.
        betas: of Adam, whatever learns by it: how much its mean gradients and their mean squares keep at a step.
        weight_decay: on convolution, linear and DAU weights only.
        mu_lr_factor: let displacements learn by SGD, too, at ``mu_lr_factor * lr``; ``"auto"``: at the factor of
            ``displacement_factor`` for each layer. None: by Adam.
        mu_lr: of Adam, the learning rate of displacements: about the pixels that a unit moves in a step. ``"auto"``:
            that of ``displacement_rate``.
        schedule: ``"step"`` multiplies the rates by ``gamma`` at every milestone, ``"cosine"`` and ``"poly"`` lower
            them to zero, ``"constant"`` leaves them.
        milestones: epochs after which ``"step"`` acts.
        gamma: factor of ``"step"``.
        power: of ``"poly"``.
        mu_power: of ``"poly"`` for displacements; None: the same.
        warm_up: epochs during which a factor on all rates rises from 0 to 1; the schedule goes on underneath.
        clip_norm: the largest norm of all gradients together, to which longer ones are shortened; None: any.
        accumulate: parts in which the gradient of a step is computed, to save memory.
        precision: ``"bf16"`` runs the network under autocast; parameters and their gradients stay float32.
        ema: share that the moving average of the network's tensors keeps at a step; it is what is measured and written.
            None: no average.
        sync_batch_norm: batch norms see the whole batch where several processes share it, and not a share each.
        mirror: mirror each training image left to right with probability 1/2 (section 4.2).
        shift: move each training image by up to this many pixels along both axes.
        part: which random part of a picture is taken, if pictures differ in size: one of any area (None or
            ``"area"``), or of one size at any ``"position"``.
        seed: of the initial weights, of the order of the images and of their random changes.
        snap_at: share of the steps after which displacements are rounded to whole pixels for good, from 0 to below 1;
            None: never.
    """

    epochs: int = 100
    batch_size: int = 256
    optimizer: Optimizer = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 5e-4
    mu_lr_factor: float | Auto | None = None
    mu_lr: float | Auto = AUTO
    schedule: Schedule = "step"
    milestones: tuple[int, ...] = (75,)
    gamma: float = 0.1
    power: float = 0.9
    mu_power: float | None = None
    warm_up: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    precision: Precision = "fp32"
    ema: float | None = None
    sync_batch_norm: bool = False
    mirror: bool = False
    shift: int = 0
    part: Part | None = None
    seed: int = 0
    snap_at: float | None = None

    def __post_init__(self) -> None:
        if self.snap_at is not None and not 0 <= self.snap_at < 1:
            raise ValueError(f"snap_at must be a share of the steps, at least 0 and below 1, got {self.snap_at:g}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers of at least 0 and below 1, got {self.betas}")
        if not 0 <= self.warm_up < self.epochs:
            raise ValueError(f"warm_up must be at least 0 and below the {self.epochs} epochs, got {self.warm_up:g}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, got {self.clip_norm:g}")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(f"accumulate must be from 1 to the {self.batch_size} of a batch, got {self.accumulate}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema:g}")

    def rate(self, progress: float) -> float:
        """Factor on all learning rates but that of displacements after ``progress`` epochs."""
        return warm_up_rate(progress, self.warm_up) * self._scheduled(progress, self.power)

    def mu_rate(self, progress: float) -> float:
        """Factor on the learning rate of displacements after ``progress`` epochs."""
        power = self.power if self.mu_power is None else self.mu_power
        return warm_up_rate(progress, self.warm_up) * self._scheduled(progress, power)

    def _scheduled(self, progress: float, power: float) -> float:
        if self.schedule == "cosine":
            return cosine_rate(progress, self.epochs)
        if self.schedule == "poly":
            return poly_rate(progress, self.epochs, power)
        if self.schedule == "constant":
            return 1.0
        return step_rate(progress, self.milestones, self.gamma)

    def is_whole(self, progress: float) -> bool:
        """Tell whether displacements are whole after ``progress`` epochs."""
        return self.snap_at is not None and progress > self.snap_at * self.epochs

    @property
    def is_prolongable(self) -> bool:
        """True if nothing that happens in an epoch depends on how many follow."""
        return self.schedule in ("step", "constant") and self.snap_at is None

    @property
    def moves_by_adam(self) -> bool:
        """True if displacements learn by Adam, whatever weights learn by."""
        return self.optimizer != "sgd" or self.mu_lr_factor is None

    @property
    def mu_option(self) -> Literal["mu_lr", "mu_lr_factor"]:
        """Name of the option that says how fast displacements learn."""
        return "mu_lr" if self.moves_by_adam else "mu_lr_factor"

    def idles(self, name: str) -> str | None:
        """The choice, in words, that makes an option useless; None if it is used."""
        if self.optimizer != "sgd" and name in ("momentum", "mu_lr_factor"):
            return f"optimizer {self.optimizer}"
        if not self.moves_by_adam and name in ("betas", "mu_lr"):
            return f"mu_lr_factor {self.mu_lr_factor}"
        if (name in _OF_STEP and self.schedule != "step") or (name in _OF_POLY and self.schedule != "poly"):
            return f"schedule {self.schedule}"
        return None

    def settings(self) -> dict[str, Any]:
        """The options as JSON has them, those that are used; those of before are all there, as they were."""
        defaults = {field.name: field.default for field in fields(self)}
        idle = {name for name in defaults if self.idles(name)} - _OF_STEP  # those have always been there
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in idle and not (name in _LATER and value == defaults[name])
        }
