"""The shipped JSON schemas, and the JSON that results become."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemas

from daukit.cli import schema
from daukit.results import as_json

PROMISED = json.loads((Path(__file__).parent / "data" / "json_keys_0_1_0.json").read_text(encoding="utf-8"))
"""{command: names of properties, at any depth, in the schema that daukit 0.1.0 has for it}."""


@pytest.mark.parametrize("command", schemas.RESULTS)
def test_the_shipped_schema_is_what_the_results_make_it(command):
    assert schema.read(command) == schemas.generate(command), "make schemas"


@pytest.mark.parametrize("command", schemas.RESULTS)
def test_every_key_is_described(command):
    silent = [
        name
        for node in objects(json.loads(schema.read(command)))
        for name, entry in node.get("properties", {}).items()
        if not entry.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("command", PROMISED)
def test_no_key_of_the_first_version_is_gone(command):
    """``daukit schema`` says that later versions only add keys; a generated schema would follow a renamed field."""
    nodes = list(objects(json.loads(schema.read(command))))
    keys = {
        name for node in nodes for name in (*node.get("properties", ()), *node.get("propertyNames", {}).get("enum", ()))
    }
    assert set(PROMISED[command]) - keys == set()


def objects(node):
    """All objects of a JSON document, at any depth."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(part)


@dataclass(frozen=True)
class Inner:
    path: Path
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    by_name: dict[str, Inner]
    maybe: int | None
    only_if_given: int | None = None


def test_a_result_becomes_json_with_optional_keys_only_where_they_say_something():
    inner = Inner(Path("a/b"))
    assert as_json(Outer(inner, {"x": Inner(Path("c"), ("d",))}, None)) == {
        "inner": {"path": "a/b"}, "by_name": {"x": {"path": "c", "words": ["d"]}}, "maybe": None
    }  # fmt: skip
    assert as_json(Outer(inner, {}, 1, 2))["only_if_given"] == 2
