"""One reading of the text that names a network, whoever asks."""

import pytest

from daukit.models.callables import in_words
from daukit.models.factory import find_factory
from daukit.models.shallow import shallow_dau
from daukit.models.specs import architecture_of, is_factory, split_factory


@pytest.mark.parametrize(
    ("spec", "source", "function"),
    [("package.module:build", "package.module", "build"), ("C:/a/net.py:Net", "C:/a/net.py", "Net")],
)
def test_factories_are_a_source_and_a_function(spec, source, function):
    assert is_factory(spec) and split_factory(spec) == (source, function)
    assert architecture_of(spec, {"width": 2}) == {"factory": spec, "config": {"width": 2}}
    assert in_words(spec) == architecture_of(spec)


def test_names_are_daukits_own():
    assert not is_factory("shallow_dau") and find_factory("shallow_dau") is shallow_dau
    assert architecture_of("shallow_dau") == in_words("shallow_dau") == {"name": "shallow_dau", "config": {}}
    assert find_factory("daukit.models.shallow:shallow_dau") is shallow_dau and find_factory("unknown") is None
