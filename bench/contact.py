"""Contact sheets: some cases of a data set with the outlines of all readers, to see what one is about to use."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.gallery import line, outlined
from bench.report.plots import canvas, plain, save
from uqseg.data import AnnotatedSet
from uqseg.data.split import evenly
from uqseg.errors import FileError

COLUMNS = 6
INCHES = 1.75  # per case
LONGEST = 32  # letters of a case's name


def write(data: AnnotatedSet, count: int, path: Path) -> None:
    """A PNG of at most `count` cases, drawn evenly over patients by name, in the order of the set."""
    sheet = data.take(evenly(data.table["patient"].tolist(), count, 0))
    kind = "simulated images, " if data.simulated else ""
    figure = draw(sheet, f"{data.name}: {kind}{len(sheet)} of {len(data):,} cases, drawn evenly over patients")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    except (OSError, ValueError) as error:  # matplotlib refuses an unknown ending with a ValueError
        raise FileError(f"cannot write {path}: {error}; name a .png in another folder with --out") from error


def draw(sheet: AnnotatedSet, title: str) -> Figure:
    """All cases of a set under a title, each with the outlines of its readers."""
    columns = min(COLUMNS, len(sheet))
    rows = -(-len(sheet) // columns)
    figure, axes = canvas(columns, max(INCHES * columns, 4.5), 0.7 + (INCHES + 0.3) * rows, rows)
    for ax, case, image, masks, read in zip(axes, sheet.cases, sheet.images, sheet.masks, sheet.read, strict=False):
        outlined(ax, image, masks, read)
        marked = int(masks.any((1, 2)).sum())
        ax.set_title(f"{plain(_short(case))}\n{marked} of {int(read.sum())} marked", fontsize=6, pad=3)
    for ax in axes[len(sheet) :]:
        ax.set_axis_off()
    figure.suptitle(title, fontsize=9)
    styles = [(style["colors"], style["linestyles"]) for style in map(line, range(sheet.readers))]
    figure.legend(
        [Line2D([], [], color=colour, linestyle=dash, linewidth=1.5) for colour, dash in styles],
        [plain(name) for name in sheet.reader_names],
        loc="outside lower center",
        ncols=min(sheet.readers, 5),
        fontsize=7,
        facecolor="0.25",
        labelcolor="white",
    )
    return figure


def _short(name: str) -> str:
    """A name that fits above its image: the end tells cases apart."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
