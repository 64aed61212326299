"""Derives the JSON schemas that ``daukit schema`` prints from the results that commands print.

``make schemas`` writes them anew; ``test_schemas.py`` holds the shipped ones to what comes out here.
"""

import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from daukit.workflows.adapt import Adaptation
from daukit.workflows.bake import BakedProgram
from daukit.workflows.bench import BackendTimes, CommandTimes, PeerTimes
from daukit.workflows.bench_data import DataTimes
from daukit.workflows.bench_gpu import GpuTimes
from daukit.workflows.bench_sparse import SparseBench
from daukit.workflows.checks import Installation
from daukit.workflows.convert import Import, Rewrite
from daukit.workflows.diff import FileDifference
from daukit.workflows.erf_results import MeasuredFields
from daukit.workflows.evaluate_results import DeblurringEvaluation, FileEvaluation, SegmentationEvaluation
from daukit.workflows.export import OnnxExport
from daukit.workflows.info import FileInfo, NetworkInfo
from daukit.workflows.iterate import Iteration
from daukit.workflows.models import NetworkList
from daukit.workflows.moves import MovesPlot
from daukit.workflows.offsets import ChangePlot, DisplacementPlot, SigmaPlot
from daukit.workflows.predict import Prediction
from daukit.workflows.prune import Pruning
from daukit.workflows.recipes import RecipeContent, RecipeList
from daukit.workflows.report_results import Report
from daukit.workflows.rescale import Rescaling
from daukit.workflows.sensitivity import Sensitivity
from daukit.workflows.snap import Snapping
from daukit.workflows.sparse import SparseConversion
from daukit.workflows.substitute import FileUnitsTable, Substitution
from daukit.workflows.sweep import Sweep
from daukit.workflows.train_runs import TrainingResult
from daukit.workflows.undo import Undone

RESULTS: dict[str, Any] = {
    "bake": BakedProgram,
    "bench": PeerTimes | BackendTimes | SparseBench | CommandTimes | GpuTimes | DataTimes,
    "checks": Installation,
    "diff": FileDifference,
    "erf": MeasuredFields,
    "convert": Import | Substitution | SparseConversion | FileUnitsTable | Adaptation | Rewrite,
    "evaluate": FileEvaluation | SegmentationEvaluation | DeblurringEvaluation,
    "export": OnnxExport | BakedProgram,
    "info": FileInfo | NetworkInfo,
    "models": NetworkList,
    "plot-offsets": DisplacementPlot | ChangePlot | SigmaPlot | MovesPlot,
    "predict": Prediction,
    "prune": Pruning | Sweep | Sensitivity | Iteration,
    "recipes": RecipeList | RecipeContent,
    "report": Report,
    "rescale": Rescaling,
    "snap": Snapping,
    "train": TrainingResult,
    "undo": Undone,
}
"""The type of what each command prints with --json; a union where that depends on its options."""

FOLDER = Path(__file__).parent.parent / "daukit" / "cli" / "schemas"


class Generator(GenerateJsonSchema):
    """Describes dataclasses as ``daukit.results.as_json`` writes them."""

    def dataclass_schema(self, schema):
        cls, described = schema["cls"], super().dataclass_schema(schema)
        described |= {"description": summary(cls), "additionalProperties": False}
        required = described.get("required", ())
        for name, entry in described["properties"].items():
            if name not in required:
                _make_optional(entry)
            if name in (words := attributes(cls)):
                entry["description"] = _as_sentence(words[name])
        return described

    def tuple_schema(self, schema):
        described = super().tuple_schema(schema)
        kinds = described.get("prefixItems", ())
        if kinds and all(kind == kinds[0] for kind in kinds):
            described["items"] = described.pop("prefixItems")[0]
        return described

    def get_title_from_name(self, name):
        return ""

    def field_title_should_be_set(self, schema):
        return False


def _make_optional(entry):
    """An optional key is left out where it has its default."""
    default = entry.pop("default", None)
    if default is None and (kept := [kind for kind in entry.get("anyOf", ()) if kind != {"type": "null"}]):
        del entry["anyOf"]
        entry.update(kept[0] if len(kept) == 1 else {"anyOf": kept})


def _as_sentence(text):
    """The words of a docstring, for readers of JSON."""
    return re.sub(r"\bNone\b", "null", text[:1].upper() + text[1:]).replace("``", "")


def summary(cls):
    """First paragraph of a class's docstring, in one line."""
    return " ".join(inspect.cleandoc(cls.__doc__).split("\n\n")[0].split()).replace("``", "")


def attributes(cls):
    """The entries of the ``Attributes`` sections of a class and its bases: {name: text}."""
    words = {}
    for base in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        block = section.split("\n\n")[0]
        for entry in textwrap.dedent(block).replace("\n    ", " ").splitlines():
            name, _, text = entry.partition(": ")
            words[name] = " ".join(text.split())
    return words


def _tidy(node):
    """Drop what only pydantic needs: titles, and formats of text."""
    if isinstance(node, dict):
        for name in ("title", "format"):
            if isinstance(node.get(name), str):
                del node[name]
        for value in node.values():
            _tidy(value)
    elif isinstance(node, list):
        for value in node:
            _tidy(value)


def generate(command):
    """The text of a command's schema."""
    kind = RESULTS[command]
    body = TypeAdapter(kind).json_schema(schema_generator=Generator, mode="validation")
    _tidy(body)
    if members := get_args(kind):
        body["description"] = " ".join(map(summary, members))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"daukit {command} --json"}
    return json.dumps(head | body, indent=2) + "\n"


if __name__ == "__main__":
    for command in RESULTS:
        (FOLDER / f"{command}.json").write_text(generate(command), encoding="utf-8")
