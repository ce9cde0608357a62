"""What a page is made of: pieces that are written as Markdown and as HTML, so that both pages say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.report import tables


@dataclass(frozen=True)
class Table:
    """Cells are Markdown texts; the first `keys` columns say what a row is about."""

    cells: pd.DataFrame
    keys: int = 1


@dataclass(frozen=True)
class Picture:
    """A file beside the page, such as pictures/ranks.png, and what it shows."""

    path: str
    title: str


@dataclass(frozen=True)
class Fold:
    """What most readers pass over, behind a line to click on. title: HTML."""

    title: str
    body: Sequence[Block]


@dataclass(frozen=True)
class Live:
    """What needs a script: `html` in a browser, and `still` in its place in Markdown."""

    html: str
    still: Sequence[Block] = ()


Block = str | Table | Picture | Fold | Live
"""A text is Markdown, of one or more paragraphs; a section begins with one that is its heading, "## ..."."""


def markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown, as GitHub shows it."""
    return "\n\n".join(text for block in blocks if (text := _markdown(block)))


def _markdown(block: Block) -> str:
    match block:
        case Table():
            return tables.markdown(block.cells, block.keys)
        case Picture():
            return f"![{block.title}]({block.path})"
        case Fold():
            return tables.fold(block.title, markdown(block.body))
        case Live():
            return markdown(block.still)
        case _:
            return block.strip()


def anchor(heading: str) -> str:
    """What a link to the heading of a section ends in, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
