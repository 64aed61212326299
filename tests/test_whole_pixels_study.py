"""The table of examples/whole-pixels is what its log says."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "examples" / "whole-pixels"


def test_the_table_is_that_of_the_log():
    command = [sys.executable, FOLDER / "summarize.py", FOLDER / "study.jsonl"]
    table = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert "| bilinear | 2 |" in table
    assert table in (FOLDER / "README.md").read_text(encoding="utf-8")
