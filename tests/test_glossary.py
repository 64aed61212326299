"""One word, one meaning: the glossary's words are used, and options and JSON keys keep to them."""

import json
import re
from collections import defaultdict

import pytest
from pages import ROOT, TEXTS, parameters, table

GLOSSARY = TEXTS["glossary.md"]
TABLES = ("The layer", "Files and networks", "Receptive fields", "Pruning, plots and surgery")
WORDS = {row[0]: row[2] for heading in TABLES for row in table(GLOSSARY, heading)}
OPTIONS = {
    name: (values.split(", "), word)
    for names, values, word, _ in table(GLOSSARY, "Options")
    for name in re.findall(r"--?[\w-]+", names)
}
"""{option: (the words for its value, the word that every help text of it has)}."""

SCHEMAS = sorted((ROOT / "daukit" / "cli" / "schemas").glob("*.json"))


def named_options():
    """{option: {command: its parameter}}."""
    found = defaultdict(dict)
    for command, own in parameters().items():
        for one in own:
            for name in one.names:
                if name.startswith("-"):
                    found[name][command] = one
    return found


def test_every_word_of_the_glossary_is_used():
    pages = "".join(text for name, text in TEXTS.items() if name != "glossary.md")
    helps = " ".join(one.help for own in parameters().values() for one in own)
    schemas = " ".join(path.read_text(encoding="utf-8") for path in SCHEMAS)
    text = " ".join(f"{pages} {helps} {schemas}".split())
    assert not [word for word in WORDS if not re.search(rf"\b{word}s?\b", text, re.IGNORECASE)]


def test_every_word_has_one_meaning():
    rows = [row for heading in TABLES for row in table(GLOSSARY, heading)]
    assert len({row[0] for row in rows}) == len(rows) == len({row[2] for row in rows})
    assert all(WORDS.values())


def test_every_option_that_commands_share_is_in_the_glossary():
    shared = {name for name, own in named_options().items() if len(own) > 1}
    assert shared <= set(OPTIONS)
    assert set(OPTIONS) <= set(named_options())


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_means_the_same_in_every_command(option):
    values, word = OPTIONS[option]
    own = named_options()[option]
    for command, one in own.items():
        assert word.lower() in f"{one.metavar} {one.help}".lower(), (command, one.help)
        assert one.metavar is None or one.metavar in values, (command, one.metavar)


def keys(schema):
    """Names of properties at any depth of a JSON schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from keys(part)


def test_options_and_keys_keep_away_from_words_of_other_packages():
    banned, allowed = set(), set()
    for words, _, exceptions in table(GLOSSARY, "Words that options and JSON keys avoid"):
        banned |= {form for word in words.split(", ") for form in (word, f"{word}s")}
        allowed |= set(re.findall(r"`([^`]+)`", exceptions))
    assert {"offset", "shift", "gauss", "component"} <= banned
    named = {f"{command} {name}": name for name, own in named_options().items() for command in own}
    for path in SCHEMAS:
        named |= {f"{path.name}: {key}": key for key in keys(json.loads(path.read_text(encoding="utf-8")))}
    found = {place for place, name in named.items() if banned & {name, *re.split(r"[-_]", name.strip("-"))}}
    assert len(named) > 300
    assert found == allowed
