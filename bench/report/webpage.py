"""The page for a browser: one file that asks no server and no network, with its style, script and pictures inside."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd
from markdown_it import MarkdownIt

from bench.report.blocks import Block, Fold, Live, Picture, Table, anchor
from bench.report.tables import LEFT_OUT, fitting, one_line

TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def page(title: str, blocks: Sequence[Block], folder: Path, origin: str = "") -> str:
    """The page of the blocks, whose pictures lie in `folder`. title: what the browser calls it, a plain text.

    origin: the key of what it was made of, which it carries along.
    """
    style, script = asset("page.css"), asset("page.js") + asset("explorer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    (_, intro), *sections = _sections(blocks)
    links = "\n".join(f'<li><a href="#{anchor(head)}">{_inline(head)}</a></li>' for head, _ in sections)
    contents = f'<nav aria-label="Contents"><ol>\n{links}\n</ol></nav>' if sections else ""
    body = "\n".join(
        f'<details open class="section" id="{anchor(head)}"><summary><h2>{_inline(head)}</h2></summary>\n'
        f"{_html(part, folder)}\n</details>"
        for head, part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="origin" content="{origin}">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(one_line(title))}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<div class="tools" id="tools"></div>
{contents}
<main id="content">
{_html(intro, folder)}
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def asset(name: str) -> str:
    """A file of the page that is the same for all pages."""
    return (resources.files("bench.report") / "assets" / name).read_text(encoding="utf-8")


def choice(title: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """HTML of several tables of which one is shown: a list to choose from by its name, a plain text."""
    options = "".join(f'<option value="{i}">{html.escape(one_line(name))}</option>' for i, name in enumerate(tables))
    parts = "\n".join(
        f'<div data-choice="{i}"{" hidden" if i else ""}>\n{_table(Table(table))}\n</div>'
        for i, table in enumerate(tables.values())
    )
    return f'<div class="choice"><label>{html.escape(title)} <select>{options}</select></label>\n{parts}\n</div>'


def _sections(blocks: Sequence[Block]) -> list[tuple[str, list[Block]]]:
    """What stands before the first heading of a section, under "", then each heading with what follows it."""
    parts: list[tuple[str, list[Block]]] = [("", [])]
    for block in blocks:
        if isinstance(block, str) and block.startswith("## "):
            head, _, block = block.removeprefix("## ").partition("\n")
            parts.append((head, []))
        parts[-1][1].append(block)
    return parts


def _html(blocks: Sequence[Block], folder: Path) -> str:
    return "\n".join(_of(block, folder) for block in blocks)


def _of(block: Block, folder: Path) -> str:
    match block:
        case Table():
            return _table(block)
        case Picture():
            return _picture(block, folder)
        case Fold():
            return f"<details>\n<summary>{block.title}</summary>\n{_html(block.body, folder)}\n</details>"
        case Live():
            return block.html
        case _:
            return str(MARKDOWN.render(block))


def _inline(text: object) -> str:
    return str(MARKDOWN.renderInline(str(text)))


def _picture(picture: Picture, folder: Path) -> str:
    file = folder / picture.path
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img src="data:{TYPES[file.suffix]};base64,{data}" alt="{html.escape(picture.title)}"></p>'


def _table(table: Table) -> str:
    """A table, too wide ones in several that fit, which scroll on narrower screens; what is undefined is explained."""
    parts = [_part(Table(cells, table.keys)) for cells in fitting(table.cells, table.keys)]
    return "\n".join([*parts, *([f"<p>{LEFT_OUT}</p>"] if any("†" in part for part in parts) else [])])


def _part(table: Table) -> str:
    """A table that can be sorted; the best and its ties are shaded."""
    columns = [str(name) for name in table.cells.columns]
    heads = "".join(f'<th scope="col">{_breakable(name)}</th>' for name in columns)
    rows = "\n".join(
        "<tr>" + "".join(_cell(str(text), i < table.keys) for i, text in enumerate(row)) + "</tr>"
        for row in table.cells.itertuples(index=False)
    )
    label = html.escape(", ".join(name for name in columns if name))
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="Table: {label}"><table class="sortable">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _cell(text: str, is_key: bool) -> str:
    if is_key:
        return f'<th scope="row">{_breakable(text)}</th>'
    mark = ' class="best"' if text.startswith("**") else ' class="tie"' if "≈" in text else ""
    return f"<td{mark}>{_breakable(text)}</td>"


def _breakable(text: str) -> str:
    """Labels may break between their options and before their wrappers, intervals may not."""
    return re.sub(r"(?:(?<=[\[,])(?=[a-z])|(?=\+[a-z]))(?![^<]*>)", "<wbr>", _inline(text))
