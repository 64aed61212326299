"""Checks of a layer's arguments, each of which raises one sentence with the rule and the value."""

from __future__ import annotations

from daukit.limits import MAX_DISPLACEMENT, SIGMA_RANGE
from daukit.ops.checks import check_integer, check_number, pair
from daukit.ops.kernels import SIGMA_BOUNDS


def check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise unless both are positive multiples of ``groups``."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
        check_integer(name, value)
    if in_channels < 1 or out_channels < 1 or groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"in_channels ({in_channels}) and out_channels ({out_channels}) must be positive multiples of "
            f"groups ({groups})"
        )


def check_limit(max_displacement: float | None) -> None:
    """Raise unless it is None or a number of pixels within the bounds."""
    if max_displacement is not None:
        check_number("max_displacement", max_displacement, " of pixels or None")
        if not 0 <= max_displacement <= MAX_DISPLACEMENT:
            raise ValueError(
                f"max_displacement must be None (no limit) or within [0, {MAX_DISPLACEMENT:g}], got {max_displacement}"
            )


def check_form(form: str, mu_gradient: str, whole_pixels: bool) -> None:
    """Raise unless these exist and go together."""
    if form not in ("bilinear", "gaussian"):
        raise ValueError(f'form must be "bilinear" or "gaussian", got {form!r}')
    if mu_gradient not in ("gaussian", "exact"):
        raise ValueError(f'mu_gradient must be "gaussian" or "exact", got {mu_gradient!r}')
    if not isinstance(whole_pixels, bool):
        raise TypeError(f"whole_pixels must be True or False, got {type(whole_pixels).__name__} {whole_pixels!r}")
    if whole_pixels and form == "gaussian":
        raise ValueError('whole_pixels goes with form="bilinear": the general form has no pixels to read at')


def check_trim(trim: int | tuple[int, int], form: str) -> tuple[int, int]:
    """Raise unless a layer of this form may leave out so many rows and columns, and return them as (y, x)."""
    rows, columns = pair("trim", trim, least=0)
    if form == "gaussian" and (rows or columns):
        raise ValueError(f'trim goes with form="bilinear", got trim={trim!r} and the general form')
    return rows, columns


def check_sigma(sigma: float, learned: bool, whole_pixels: bool) -> bool:
    """Raise unless a layer may have ``sigma``, and tell whether it has no blur."""
    check_number("sigma", sigma, " of pixels; learn_sigma=True makes it a parameter")
    unblurred = sigma == 0 and not learned
    low, high = SIGMA_BOUNDS if learned else SIGMA_RANGE
    if unblurred and not whole_pixels:
        raise ValueError(f"sigma must be at least {low:g} pixels here, got 0; no blur goes with whole_pixels=True")
    if not (low <= sigma <= high or unblurred):
        raise ValueError(f"sigma must be within [{low:g}, {high:g}] pixels here, got {sigma}")
    return unblurred
