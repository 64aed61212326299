"""One file is one model: ``save``, ``load``, and ``read``/``write``/``open`` for work on files without any model class.

The format is docs/checkpoint-format.md: a safetensors file whose metadata key ``daukit`` holds a JSON header.
"""

from daukit.checkpoint.contents import Checkpoint, LayerUnits
from daukit.checkpoint.file import CheckpointFile, open, read, stored_bytes, stored_digest, write
from daukit.checkpoint.folder import write_folder
from daukit.checkpoint.given import Given, derives, taken, takes_any
from daukit.checkpoint.header import SCHEMA, Header, history_entry
from daukit.checkpoint.model import build_model, from_model, load, read_any, save
from daukit.checkpoint.rewriting import is_daukit_file

__all__ = [
    "SCHEMA",
    "Checkpoint",
    "CheckpointFile",
    "Given",
    "Header",
    "LayerUnits",
    "build_model",
    "derives",
    "from_model",
    "history_entry",
    "is_daukit_file",
    "load",
    "open",
    "read",
    "read_any",
    "save",
    "stored_bytes",
    "stored_digest",
    "taken",
    "takes_any",
    "write",
    "write_folder",
]
