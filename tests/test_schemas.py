"""The shipped JSON schemas, and the JSON that results become."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemas

from daukit.cli import schema
from daukit.results import as_json


@pytest.mark.parametrize("command", schemas.RESULTS)
def test_the_shipped_schema_is_what_the_results_make_it(command):
    assert schema.read(command) == schemas.generate(command), "make schemas"


@pytest.mark.parametrize("command", schemas.RESULTS)
def test_every_key_is_described(command):
    def described(node):
        for name, entry in node.get("properties", {}).items():
            assert entry.get("description") or "$ref" in entry, name
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, dict):
                described(value)

    described(json.loads(schema.read(command)))


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
