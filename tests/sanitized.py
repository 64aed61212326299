"""Run pytest on a library built with sanitizers: ``python tests/sanitized.py FOLDER PYTEST-ARGUMENTS``."""

import sys

import pytest

import daukit

# The folder of the sanitized library comes first where the native backend looks for one.
daukit.__path__.insert(0, sys.argv[1])
from daukit.ops import library  # noqa: E402

if not library.load()._name.startswith(sys.argv[1]):
    sys.exit(f"{sys.argv[1]} holds no library: {library.load()._name} was loaded")
sys.exit(pytest.main(sys.argv[2:]))
