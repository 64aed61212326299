"""Options of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from daukit.training.schedule import cosine_rate, step_rate
from daukit.transforms import Part

_NEW = ("part", "snap_at")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training; the defaults follow section 4.1 of the paper.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: on convolution, linear and DAU weights only.
        mu_lr_factor: displacements learn at ``mu_lr_factor * lr``.
        schedule: ``"step"`` multiplies the rates by ``gamma`` at every milestone, ``"cosine"`` lowers them to zero.
        milestones: epochs after which ``"step"`` acts.
        gamma: factor of ``"step"``.
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
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mu_lr_factor: float = 500.0
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (75,)
    gamma: float = 0.1
    mirror: bool = False
    shift: int = 0
    part: Part | None = None
    seed: int = 0
    snap_at: float | None = None

    def __post_init__(self) -> None:
        if self.snap_at is not None and not 0 <= self.snap_at < 1:
            raise ValueError(f"snap_at must be a share of the steps, at least 0 and below 1, got {self.snap_at:g}")

    def rate(self, progress: float) -> float:
        """Factor on all learning rates after ``progress`` epochs."""
        if self.schedule == "cosine":
            return cosine_rate(progress, self.epochs)
        return step_rate(progress, self.milestones, self.gamma)

    def is_whole(self, progress: float) -> bool:
        """Tell whether displacements are whole after ``progress`` epochs."""
        return self.snap_at is not None and progress > self.snap_at * self.epochs

    @property
    def is_prolongable(self) -> bool:
        """True if nothing that happens in an epoch depends on how many follow."""
        return self.schedule != "cosine" and self.snap_at is None

    def settings(self) -> dict[str, Any]:
        """The options as JSON has them; new ones only where they are used, as states of older versions have none."""
        settings = {**asdict(self), "milestones": list(self.milestones)}
        return {key: value for key, value in settings.items() if value is not None or key not in _NEW}
