"""What the sections of a page are given: where its files go, and of a report the results and their bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Plot

from bench import stats
from bench.report import plots, tables
from bench.report.blocks import Block, Fold, Picture, Table
from bench.runs.results import Results
from uqseg.files import write
from uqseg.metrics import Figure, Scores, figures
from uqseg.metrics import tables as registered_tables


@dataclass(frozen=True)
class Files:
    """The tables and pictures beside a page. pictures: png or svg; written: what has been written of them so far."""

    folder: Path
    pictures: str
    written: list[Path] = field(default_factory=list, kw_only=True)

    def csv(self, table: pd.DataFrame, name: str) -> str:
        """Write the numbers behind a table or a picture; a link to them."""
        path = self.folder / "tables" / f"{name}.csv"
        write(path, table.to_csv(index=False, float_format="%.9g").encode())
        self.written.append(path)
        return f"[{name}.csv](tables/{name}.csv)"

    def picture(self, plot: Plot, name: str, title: str) -> Picture:
        """Save a plot, whose file the page shows."""
        path = self.folder / "pictures" / f"{name}.{self.pictures}"
        plots.save(plot, path)
        self.written.append(path)
        return Picture(f"pictures/{path.name}", title)

    def remove_others(self) -> None:
        """Remove the tables and pictures that an earlier page had and this one has not."""
        for pattern in ("tables/*.csv", "pictures/*.png", "pictures/*.svg"):
            for path in set(self.folder.glob(pattern)) - set(self.written):
                path.unlink()


@dataclass(frozen=True)
class Report(Files):
    """boot: every figure of every method and yardstick on the test cases."""

    results: Results
    boot: stats.Bootstrap

    @property
    def methods(self) -> list[str]:
        """Labels of the methods, in the run's order."""
        return list(self.results.cells)

    @property
    def yardsticks(self) -> list[str]:
        """Labels of the yardsticks, in the run's order."""
        return list(self.results.yardsticks)

    @property
    def styles(self) -> dict[str, dict[str, Any]]:
        """How each method and yardstick is drawn, the same in every plot."""
        return plots.styles(self.methods, self.yardsticks)

    @property
    def reader_names(self) -> list[str]:
        """The readers as their source names them, such as slot 0; numbered where it does not."""
        data = self.results.run["data"]
        return data["reader_names"] or [f"reader {r + 1}" for r in range(data["readers"])]

    def scores(self, label: str, split: str = "test") -> list[Scores]:
        """The scores of each repetition of a method, or of a yardstick."""
        return [cell.scores[split] for cell in self.results.repetitions[label] if split in cell.scores]

    def mean(self, label: str, statistic: str) -> plots.Floats:
        """A statistic per test case, mean over the repetitions: (N,*shape)."""
        mean: plots.Floats = np.mean([scores.column(statistic) for scores in self.scores(label)], axis=0)
        return mean

    def has(self, figure: Figure) -> bool:
        """Whether any method has a value of the figure."""
        return any(np.isfinite(self.boot.values(label, figure.name)[0]) for label in self.methods)

    def titled(
        self, name: str, text: str = "", *, folded: bool = False, yardsticks: bool = True, without: Sequence[str] = ()
    ) -> list[Block]:
        """A table of the registry under its title, with its explanation; nothing where no method has a value of it.

        without: figures that are left out.
        """
        wanted = [f for f in figures(table=name) if self.has(f) and f.name not in without]
        table = self.of(wanted, None if yardsticks else [])
        if len(table.columns) == 1:
            return []
        parts: list[Block] = [Table(table), *([text] if text else [])]
        return [Fold(registered_tables()[name], parts)] if folded else [f"### {registered_tables()[name]}", *parts]

    def of(self, wanted: Sequence[Figure], yardsticks: Sequence[str] | None = None) -> pd.DataFrame:
        """A table of some figures; yardsticks: default all."""
        return tables.of_figures(self.boot, wanted, self.methods, self.yardsticks if yardsticks is None else yardsticks)
