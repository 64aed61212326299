"""The documents as tests read them: fences, prose, tables and commands; and the options that commands really have."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import typer

from daukit.cli.main import app

ROOT = Path(__file__).parent.parent
FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("examples/*/*.md")),
]
TEXTS = {
    path.name if path.parent in (ROOT, ROOT / "docs") else path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in FILES
}
"""Pages by name: those of docs/ by their own."""


@dataclass(frozen=True)
class Fence:
    """A block of code: the words behind the opening backticks, and what stands between the lines of backticks."""

    language: str
    body: str


def fences(text):
    """The blocks of code of a page, in order."""
    found, language, body = [], None, []
    for line in text.splitlines():
        if not line.startswith("```"):
            body.append(line)
        elif language is None:
            language, body = line[3:], []
        else:
            found.append(Fence(language, "".join(f"{line}\n" for line in body)))
            language = None
    assert language is None, "a fence is not closed"
    return found


def code(text, language):
    return [fence.body for fence in fences(text) if fence.language == language]


def commands(text):
    """The ``daukit`` commands of a page in order, as lists of words; continued lines are one."""
    lines = "".join(code(text, "")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("daukit ")]


def table(text, heading, number=0):
    """Rows of the ``number``-th table below a heading, as lists of cells, without the two lines at its top."""
    (section,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[number].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@dataclass(frozen=True)
class Parameter:
    """An argument or option as its command has it.

    Attributes:
        names: of an option, all of them; of an argument, the word that stands for it.
        metavar: the word for its value, if the command gives one.
        default: "required", "on" and "off", or as the parser has it; None where there is none or the command finds it.
        help: what ``--help`` says.
    """

    names: frozenset[str]
    metavar: str | None
    default: object
    help: str


def parameters():
    """{command: its parameters}, but for hidden ones."""
    program = typer.main.get_command(app)
    return {
        name: [_parameter(one) for one in command.params if not getattr(one, "hidden", False)]
        for name, command in program.commands.items()
    }


def _parameter(one):
    option = one.param_type_name == "option"
    default = "required" if one.required else one.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    names = [*one.opts, *one.secondary_opts] if option else [one.metavar or one.name.upper()]
    return Parameter(frozenset(names), one.metavar if option else None, default, one.help or "")
