"""All passes through a network over all images, and their sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from daukit.distributed import ALONE, Ranks
from daukit.erf.field import About, ReceptiveField
from daukit.erf.probing import Measure, directions, gradient_parts, pass_over
from daukit.erf.samples import Samples
from daukit.erf.survey import Survey
from daukit.models.usercode import name_of
from daukit.receptive_field.forward import run_to_layers

_MEMORY = 1 << 30
"""Bytes that the maps of one forward pass may take where no batch size is given."""

_MOST = 32
"""Images in a forward pass where no batch size is given: more gain nothing."""


class Passes:
    """One network's passes, after a survey of it, frozen; arguments as in ``effective_receptive_field``.

    Args:
        most: most images of one forward pass.

    Attributes:
        images: images of one forward pass; each of them as often as directions are differentiated at once.
        per_chunk: backward passes after each forward pass.
        number: images done, by all processes together.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        survey: Survey,
        measure: Measure,
        *,
        probes: int | None,
        seed: int,
        batch_size: int | None,
        most: int,
        ranks: Ranks = ALONE,
    ):
        self._model, self._layers, self._survey = model, layers, survey
        self._measure, self._probes, self._seed = measure, probes, seed
        batch = batch_size or max(1, min(_MOST, _MEMORY // max(1, survey.memory)))
        counts = [directions(site.channels, measure, probes) for site in survey.sites.values()]
        self._copies = min(batch, max(counts))
        self.images = min(most, batch // self._copies)
        self.per_chunk = sum(math.ceil(count / self._copies) for count in counts)
        self.number = self._chunks = 0
        self._ranks = ranks
        size = survey.rows.stop - survey.rows.start, survey.columns.stop - survey.columns.start
        self._by_image = {name: Samples(size) for name in layers}
        self._by_probe = {name: Samples(size) for name in layers}
        self._generator = torch.Generator().manual_seed(seed)
        self._inputs_size = (0, 0)

    def add(self, chunk: Tensor) -> Iterator[None]:
        """Probe some images (images, C, H, W); one step per backward pass.

        Of several processes each one takes one chunk in turn, and passes over those of the others.
        """
        self._inputs_size = (chunk.shape[2], chunk.shape[3])
        is_ours = self._chunks % self._ranks.size == self._ranks.rank
        self._chunks += 1
        if is_ours:
            yield from self._probe(chunk)
        else:
            for name in self._layers:
                channels = self._survey.sites[name].channels
                pass_over(len(chunk), channels, self._copies, self._probes, self._generator)
            yield from itertools.repeat(None, self.per_chunk)
        self.number += len(chunk)

    def _probe(self, chunk: Tensor) -> Iterator[None]:
        part = chunk[:, :, self._survey.rows, self._survey.columns]
        leaf = part.detach().repeat_interleave(self._copies, 0).requires_grad_()  # (images * copies, C, h, w)
        by_image = {name: torch.zeros(len(chunk), *part.shape[2:], dtype=torch.float64) for name in self._layers}
        for name, outputs in self._forward(leaf).items():
            first = 0
            for maps, maps_of_probes in gradient_parts(
                outputs, leaf, self._copies, self._measure, self._probes, self._generator, name_of(self._model)
            ):
                by_image[name] += maps
                self._by_probe[name].add_each(maps_of_probes, first)
                first += len(maps_of_probes)
                yield
            self._by_image[name].add_each(by_image[name], self.number)

    def _forward(self, leaf: Tensor) -> dict[str, Tensor]:
        """The outputs (images * copies, O) of every layer at the probed position."""
        outputs: dict[str, Tensor] = {}

        def visit(name: str, output: Tensor) -> None:
            if output.grad_fn is None:
                raise ValueError(f"layer {name!r} gives {tuple(output.shape)}, which does not depend on the input")
            site = self._survey.sites[name]
            y, x = site.cropped
            # A copy: the next module may change the output in place.
            outputs[name] = site.layout.maps(output)[:, :, y, x].clone()

        run_to_layers(self._model, self._layers, leaf.clone(), visit)  # nor must the leaf be changed
        return {name: outputs[name] for name in self._layers}

    def are_stable(self, share: float) -> bool:
        """Check that the 50 % radius of every layer is known to ``share`` of it."""
        return all(self.field(name, (0.5,), "centroid").contours[0].is_stable(share) for name in self._layers)

    def field(self, name: str, masses: Sequence[float], about: About) -> ReceptiveField:
        """The field of one layer, by the images so far; all processes ask for it together."""
        site, rows, columns = self._survey.sites[name], self._survey.rows, self._survey.columns
        height, width = self._inputs_size
        edges = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        center = None if site.theory is None else site.theory.looks_at(site.position)
        by_image, by_probe = self._by_image[name], self._by_probe[name]
        if not self._ranks.is_alone:
            by_image = by_image.added_up(self._ranks, self.number)
            by_probe = by_probe.added_up(self._ranks, self._probes) if self._probes else by_probe
        field = ReceptiveField.of(name, pad(by_image.total(), edges), center, masses, about)
        ascending = [contour.mass for contour in field.contours]
        errors = by_probe.radius_errors(ascending, self._seed) if self._probes else None
        field = field.with_certainty(by_image.area_intervals(ascending), errors)
        return replace(
            field, theory=site.theory, limit=site.limit, images=self.number, layout=site.words,
            assumed=site.layout.assumed,
        )  # fmt: skip
