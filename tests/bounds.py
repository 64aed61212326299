"""Bounds on the error of a float32 result: docs/math.md, section 7. Nothing in it is fitted."""

import math

import torch

from daukit.ops.contract import Needs, Tensors
from daukit.ops.dense import Dense
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_radius
from daukit.ops.units import unit_list

EPS = torch.finfo(torch.float32).eps
DENSE = Dense()
LEAVES = ("input", "weight", "mu", "bias")


def geometry(case, arguments, learned):
    """Sizes of the call. The blur of a learned sigma has the radius of the largest that it may become."""
    steps = {k: (v, v) if isinstance(v, int) else v for k, v in {"stride": 1, "dilation": 1, **case.options}.items()}
    radius = blur_radius(1.6 if learned else case.sigma)
    return Geometry.of(
        arguments["input"], arguments["weight"], arguments["unit_ptr"], radius=radius, groups=case.groups, **steps
    )


def results(backend, error, tensors, geo, mu_gradient="gaussian", compute=None):
    """The output, and the gradients of input, weight, mu and sigma."""
    compute = compute or tensors.mu.dtype
    output = backend.forward(tensors, geo, compute=compute)
    needs = Needs(input=True, weight=True, mu=True, sigma=True)
    gradients = backend.backward(error, tensors, geo, mu_gradient=mu_gradient, needs=needs, compute=compute)
    return [output, *gradients]


def truth_and_bounds(case, arguments, error, mu_gradient, learned, backend=DENSE):
    """Results in float64, the bound of docs/math.md, section 7, and the same operator's results on absolute values.

    ``backend`` gives the results: the dense path, which equals the reference and is faster, or the reference.
    """
    doubled = {k: v.detach().double() for k, v in arguments.items() if k in LEAVES and v is not None}
    a = {**arguments, **doubled}
    # The value of a learned sigma is rounded to float32.
    sigma = torch.tensor(case.sigma, dtype=torch.float32 if learned else torch.float64).double()
    geo = geometry(case, a, learned)
    radius = geo.radius

    def both(x, w, e, mu, backend=DENSE):
        tensors = Tensors(input=x, weight=w, mu=mu, sigma=sigma, bias=a["bias"], unit_ptr=a["unit_ptr"])
        return results(backend, e, tensors, geo, mu_gradient)

    e = error.double()
    exact = both(a["input"], a["weight"], e, a["mu"], backend)
    magnitudes = [a["input"].abs(), a["weight"].abs(), e.abs()]
    size = both(*magnitudes, a["mu"])
    if a["bias"] is not None:
        size[0] = size[0] + 2 * a["bias"].abs()[:, None, None]
    # Displacement gradients multiply by a slope: at most radius / sigma^2 times the Gaussian, or the tap itself.
    if mu_gradient == "gaussian":
        slope = radius / sigma**2 if radius else 0.0  # without a blur there is none, and no gradient
        size[3] = size[2] * a["weight"].abs() * slope
    else:
        corners = [torch.tensor([y, x], dtype=torch.float64) for y in (0, 1) for x in (0, 1)]
        floors = a["mu"].floor()
        taps = [both(*magnitudes, floors + c.reshape(2, *[1] * (floors.dim() - 1)))[2] for c in corners]
        size[3] = (sum(taps) * a["weight"].abs()).expand_as(a["mu"])
    size[4] = size[1].mul(a["input"].abs()).sum().reshape(()) * (radius**2 / sigma**3 if radius else 0.0)
    # A blur twice, a cell, and a sum: over units of all pairs, or over all pixels.
    blur = 4 * (2 * radius + 1)
    terms = max(case.in_channels, case.out_channels) * case.units, e.numel() // max(1, case.out_channels)
    counts = [terms[0], blur + terms[0], terms[1], terms[1], a["input"].numel()]
    operations = [blur + 16 + count for count in counts]
    # Below the smallest normal number rounding is absolute.
    tiny = torch.finfo(torch.float32).tiny
    return exact, [c * EPS * s + c * tiny for c, s in zip(operations, size, strict=True)], size


def spectral_bounds(case, arguments, error, mu_gradient, learned):
    """Bounds for results that went through transforms, whose rounding spreads over the image: norms in place of values.

    For the output, and the gradients of input, weight, mu and sigma (docs/math.md, section 7).
    """
    geo = geometry(case, arguments, learned)
    sigma, radius, (height, width) = case.sigma, geo.radius, geo.in_size
    units = unit_list(arguments["weight"].detach().double(), arguments["mu"], arguments["unit_ptr"])
    shape = (geo.out_channels, geo.in_channels // geo.groups)
    weights = units.weight.new_zeros(math.prod(shape)).index_add(0, units.pair, units.weight.abs()).reshape(shape)
    of_image = arguments["input"].detach().double().norm(dim=(2, 3)).unflatten(1, (geo.groups, -1))  # (N, groups, C)
    of_error = error.double().norm(dim=(2, 3)).unflatten(1, (geo.groups, -1))  # (N, groups, O)
    weights = weights.unflatten(0, (geo.groups, -1))  # (groups, O, C)
    output = torch.einsum("ngc,goc->ngo", of_image, weights).flatten(1)
    if arguments["bias"] is not None:
        output = output + 2 * arguments["bias"].detach().double().abs()
    image = torch.einsum("ngo,goc->ngc", of_error, weights)
    weight = torch.einsum("ngo,ngc->goc", of_error, of_image).flatten()[units.pair]
    slope = (radius / sigma**2 if radius else 0.0) if mu_gradient == "gaussian" else 2.0
    by_sigma = (image * of_image).sum() * (radius**2 / sigma**3 if radius else 0.0)
    size = [
        output[..., None, None],
        image.flatten(1)[..., None, None],
        weight.reshape(arguments["weight"].shape),
        (weight * units.weight.abs() * slope).reshape(arguments["weight"].shape),
        by_sigma.reshape(()),
    ]
    # Sides of transforms are below four times the image's. Three of them, each of at most 4 eps a stage, and sums over
    # the frequencies and taps of both axes.
    transforms = 12 * math.log2(16 * max(1, height * width)) + 6 * (height + width)
    terms = max(case.in_channels, case.out_channels) * case.units, case.batch
    blur = 4 * (2 * radius + 1)
    counts = [terms[0], blur + terms[0], terms[1], terms[1], arguments["input"].numel()]
    return [(blur + 16 + transforms + count) * EPS * s for count, s in zip(counts, size, strict=True)]
