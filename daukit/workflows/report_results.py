"""The numbers of a report, as Python callers get them and ``daukit report --json`` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daukit.benchmark import Quartiles
from daukit.offsets import LayerWeights
from daukit.offsets.summaries import ChangeSummary, DisplacementSummary, Quantile, SigmaSummary
from daukit.results import Count, Positive, Share, Size, result_of
from daukit.workflows.erf_results import NetworkFields
from daukit.workflows.evaluate_results import DeblurringEvaluation, FileEvaluation, SegmentationEvaluation
from daukit.workflows.info import FileInfo
from daukit.workflows.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class WeightSummary:
    """Sizes of the weights of a layer.

    Attributes:
        name: the layer's name.
        units: number of its units.
        largest: largest |w|; null without units.
        mean: mean |w|; null likewise.
        quantiles: |w| up to which these shares of the units lie; null likewise.
        below: share of the units whose |w| is below this share of the largest; null likewise, or where all are zero.
    """

    name: str
    units: Count
    largest: Positive | None
    mean: Positive | None
    quantiles: dict[Quantile, Positive] | None
    below: dict[str, Share] | None

    @classmethod
    def of(cls, layer: LayerWeights) -> WeightSummary:
        """A measured layer."""
        named = {
            key: None if values is None else {f"{share:g}": value for share, value in values.items()}
            for key, values in (("quantiles", layer.quantiles), ("below", layer.below))
        }
        return result_of(cls, layer, **named)


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """Times of a network's forward pass, measured in turn with those of the other networks.

    Attributes:
        input: sizes (batch, channels, height, width) of the input.
        plain: of the network as it is.
        prepared: of the network as `daukit.prepare` makes it.
    """

    input: tuple[Size, Size, Size, Size]
    plain: Quartiles
    prepared: Quartiles


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A part that a report does not have.

    Attributes:
        part: what it would have been.
        reason: why it is not there.
    """

    part: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """What there is to say of a network.

    Attributes:
        info: the file's content.
        displacements: where units are, by DAU layer.
        sigmas: how wide they are.
        weights: how large their weights are.
        evaluation: what the network scores on the test images; null without images.
        pruning: what thresholds would leave; null without DAU layers.
        fields: effective receptive fields; null where they were not measured.
        time: times of the forward pass; null where they were not asked for.
        changes: how units of FILE moved from where they are here, for files to compare; null where they are others.
        missing: parts that could not be had.
    """

    info: FileInfo
    displacements: tuple[DisplacementSummary, ...]
    sigmas: tuple[SigmaSummary, ...]
    weights: tuple[WeightSummary, ...]
    evaluation: FileEvaluation | SegmentationEvaluation | DeblurringEvaluation | None
    pruning: Sweep | None
    fields: NetworkFields | None
    time: NetworkTimes | None
    changes: tuple[ChangeSummary, ...] | None
    missing: tuple[Missing, ...]


@dataclass(frozen=True, kw_only=True)
class Report(NetworkReport):
    """A network, and those to compare it with.

    Attributes:
        data: folder of the images that scores and receptive fields were measured on; null: fields are of noise.
        compare: the other networks.
        output: path of the page written; null where none was.
    """

    data: Path | None
    compare: tuple[NetworkReport, ...]
    output: Path | None
