"""Receptive fields in numbers, as Python callers get them and ``daukit erf --json`` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daukit.erf import About, Measure, ReceptiveField
from daukit.erf import Contour as MeasuredContour
from daukit.results import Count, Positive, Share, Size, result_of
from daukit.workflows.erf_networks import ProbedNetwork
from daukit.workflows.labels import labels_of

_Point = tuple[float, float]
_Pair = tuple[Positive, Positive]
_Window = tuple[Count | None, Count | None]


@dataclass(frozen=True, kw_only=True)
class FieldContour:
    """The smallest set of pixels that holds a share of the influence.

    Attributes:
        mass: share of the influence inside.
        radius: of the disc of the same area, in pixels.
        area: number of pixels inside.
        reach: radius of the smallest disc about the origin that holds the share.
        radius_interval: radii of the discs of the areas in area_interval; None where that is.
        area_interval: 95 % interval, for infinitely many images like these; None for one image, or where signed
            influences cancel too far to tell.
        radius_error: standard error that random mixtures add; None where every channel was probed.
        area_error: the same for the area.
    """

    mass: Share
    radius: Positive
    area: Count
    reach: Positive
    radius_interval: _Pair | None
    area_interval: tuple[Count, Count] | None
    radius_error: Positive | None
    area_error: Positive | None

    @classmethod
    def of(cls, contour: MeasuredContour) -> FieldContour:
        """A measured contour."""
        return result_of(cls, contour)


@dataclass(frozen=True, kw_only=True)
class LayerField:
    """The effective receptive field of a layer.

    Attributes:
        name: the module.
        center: position that the probed output looks at by arithmetic; None where it is not known.
        centroid: mean position, weighted by influence.
        std: standard deviation of the position per axis.
        origin: the position that reaches are measured from.
        stride: pixels from one output to the next; None where the arithmetic is not known.
        size: pixels that an output can depend on, per axis, where None is everything; None where it is not known.
        size_limit: the same at the layers' max_displacement.
        contours: one for each share of the influence, ascending.
        border_mass: share of the influence on the outermost pixels.
        clipped: whether the outer contour reaches the outermost pixels.
        layout: of the layer's output; h and w are height and width.
        layout_assumed: whether the layout is only the most likely one.
    """

    name: str
    center: _Point | None
    centroid: _Point
    std: _Pair
    origin: _Point
    stride: _Pair | None
    size: _Window | None
    size_limit: _Window | None
    contours: tuple[FieldContour, ...]
    border_mass: Share
    clipped: bool
    layout: str
    layout_assumed: bool

    @classmethod
    def of(cls, field: ReceptiveField) -> LayerField:
        """A measured field."""
        return result_of(
            cls,
            field,
            stride=None if field.theory is None else field.theory.stride,
            size=None if field.theory is None else field.theory.size,
            size_limit=None if field.limit is None else field.limit.size,
            contours=tuple(FieldContour.of(contour) for contour in field.contours),
            layout_assumed=field.assumed,
        )


@dataclass(frozen=True, kw_only=True)
class NetworkFields:
    """The effective receptive fields of a network.

    Attributes:
        file: the network's file; None for initial weights.
        network: the file, or the factory.
        trained: by the file's history; false: initial weights; None: not known.
        images: number of images taken.
        layers: the layers that were probed.
        label: what figures and tables call the network, where it was given one.
    """

    file: Path | None
    network: str
    trained: bool | None
    images: Size
    layers: tuple[LayerField, ...]
    label: str | None = None

    @classmethod
    def of(cls, network: ProbedNetwork, fields: Sequence[ReceptiveField], label: str | None = None) -> NetworkFields:
        """The measured fields of a network."""
        return cls(
            file=network.path,
            network=network.label,
            trained=network.trained,
            images=fields[0].images,
            layers=tuple(LayerField.of(field) for field in fields),
            label=label,
        )

    @property
    def weights(self) -> str:
        """``trained`` in words."""
        return "training unknown" if self.trained is None else "trained" if self.trained else "untrained"


def titles_of(networks: Sequence[NetworkFields]) -> list[str]:
    """What figures and tables call networks: as they are labelled, or by their files."""
    given = [network.label for network in networks if network.label is not None]
    return given or labels_of([network.file or network.network for network in networks])


@dataclass(frozen=True, kw_only=True)
class MeasuredFields(NetworkFields):
    """Effective receptive fields; positions are (y, x) in input pixels, 0 the first pixel's middle.

    Attributes:
        measure: the statistic of the gradients that counts as influence.
        probes: number of random mixtures of the channels; None: every channel was probed.
        images_limit: largest number of images to take.
        until_stable: share of the 50 % radius that its interval may reach to either side; None: all images were taken.
        about: the point that distances are to be measured from.
        tokens: height and width of the maps, as given.
        size: height and width of the images.
        seed: of the images, initial weights, mixtures and resampling.
        data: folder of the images; None: noise.
        output: the figure written; None where none was.
        npz: the archive of maps written; None where none was.
        compare: the second network; None without one.
        networks: all of them, the first one included.
    """

    measure: Measure
    probes: Size | None
    images_limit: Size
    until_stable: Share | None
    about: About
    tokens: tuple[Size, Size] | None
    size: tuple[Size, Size]
    seed: int
    data: Path | None
    output: Path | None
    npz: Path | None
    compare: NetworkFields | None
    networks: tuple[NetworkFields, ...]
