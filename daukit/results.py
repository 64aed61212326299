"""Results: frozen dataclasses that Python callers get and commands print.

The JSON of a result has its fields as keys. A field with a default is optional: its key is there only where the value
is another one. ``tests/schemas.py`` derives the schemas that ``daukit schema`` prints from these classes and from the
``Attributes`` sections of their docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result = TypeVar("Result", bound="DataclassInstance")

Progress = Callable[[float, str], None]
"""Called now and then with the share that is done, within [0, 1], and a few words on what is going on."""


@dataclass(frozen=True)
class Within:
    """Bounds of a number, for its schema.

    Attributes:
        minimum: least value.
        maximum: greatest value.
    """

    minimum: float | None = None
    maximum: float | None = None

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {**handler(core_schema), **{name: value for name, value in bounds.items() if value is not None}}


Count = Annotated[int, Within(0)]
Size = Annotated[int, Within(1)]
Share = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0)]


def result_of(kind: type[Result], source: object, **own: Any) -> Result:
    """Make a result of the attributes of ``source`` that its fields are called after, except for its ``own`` ones."""
    taken = {field.name: getattr(source, field.name) for field in fields(kind) if field.name not in own}
    return kind(**taken, **own)


def as_json(value: Any) -> Any:
    """The value as JSON has it: dataclasses and mappings become objects, sequences lists, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value) if _is_kept(f, getattr(value, f.name))}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return fspath(value) if isinstance(value, PathLike) else value


def _is_kept(field: Field[Any], value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is MISSING or value != default
