"""What README.md tells the reader to type exists: commands, options and imports."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

import uqseg
from bench.cli import app

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def lines() -> list[str]:
    """Every line of the fenced blocks that are no Python, continued lines joined, and every `code` in the text."""
    text = "\n".join(body for kind, body in FENCED if kind not in ("python", "toml")).replace("\\\n", " ")
    return text.splitlines() + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.M | re.S))


def test_every_command_has_its_options() -> None:
    group = typer.main.get_command(app)
    commands = [m[1] for line in lines() if (m := re.match(r"(?:uqseg|python -m bench) (\S.*)", line))]
    assert len(commands) > 10
    for command in commands:
        name, *words = shlex.split(command, comments=True)
        assert name in group.commands, f"README names the command {name}"  # type: ignore[attr-defined]
        known = {o for p in group.commands[name].params for o in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= {*known, "-h", "--help", "--debug"}, f"README: {command}"


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {word for line in lines() for word in re.findall(r"^make ([\w-]+)", line)}
    assert {"bench", "test"} <= asked <= targets


@pytest.mark.parametrize("code", [body for kind, body in FENCED if kind == "python"])
def test_every_snippet_imports_what_exists(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for name in node.names:
                assert importlib.import_module(name.name)
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_every_local_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (ROOT / target).exists(), target
    assert FENCED


def test_the_citation_and_the_newest_changes_are_of_this_version() -> None:
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changed = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == changed[:1] == [uqseg.__version__]
