"""The help of every command can be read on a narrow terminal, and shows what was written, brackets included."""

from __future__ import annotations

import re
from inspect import signature

import pytest
import typer

from bench.cli import app
from bench.commands.arguments import HEADINGS
from bench.runs import spec
from tests.bench.conftest import bench
from uqseg.data import load

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORTH_READING = 22  # letters on a line


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_no_text_of_an_option_is_broken_into_single_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in COMMANDS.items():
        text = bench(name, "-h").out
        assert max(map(len, text.splitlines())) <= columns
        for param in command.params:
            first = param.help.replace("\\", "")[:WORTH_READING].rpartition(" ")[0]
            assert first in text, f"{name} {param.opts}"


def test_commands_and_options_are_in_groups_with_defaults_and_examples() -> None:
    text = bench("-h").out
    places = [text.index(f"─ {heading} ─") for heading in HEADINGS]
    assert places == sorted(places)
    text = re.sub(r"[│\s]+", " ", bench("run", "-h").out)
    for words in ("name[option=value,training.lr=1e-3]", '"unet,unet[pos_weight=99]"', "[default: (the recipe's)]",
                  "─ Options for several processors ─"):  # fmt: skip
        assert words in text


def test_images_have_one_size_unless_told_otherwise() -> None:
    of_commands = [p.default for name in ("data", "score") for p in COMMANDS[name].params if p.name == "size"]
    assert [*of_commands, signature(load).parameters["size"].default] == [spec.recipe("quick").size] * 3
