"""What is measured: statistics of each case, what is derived from them, and figures over a data set. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from uqseg.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Scored
    from uqseg.metrics.scores import Scores

Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]
Direction = Literal["lower", "higher", "none"]
Drawn = Literal["independent", "support", "stratified"]
"""How samples were drawn: independently; as the whole finite support (one network, K members); or chosen to represent
it (level sets). It decides the correction for a finite number of samples: only independent draws have one."""
Measure = TypeVar("Measure", bound="Callable[[Scored], Tensor]")
Derive = TypeVar("Derive", bound=Callable[[Columns, Drawn], Floats])

TABLES = {
    "summary": "Which method?",
    "ambiguity": "Do the samples disagree as the readers do?",
    "limit": "GED without the effect of finitely many samples",
    "parts": "The parts of GED",
    "presence_and_place": "Whether there is a lesion, and where",
    "diversity": "How much do samples and readers differ among themselves?",
    "draws": "GED by number of samples",
    "agreement": "Is the uncertainty where the readers disagree?",
    "hits": "How many samples touch the lesion?",
    "calibration": "Do the probabilities mean what they say?",
    "presence": "Are presence and area predicted right?",
    "failure": "Does the uncertainty find the errors?",
    "aggregations": "AURC by how a map becomes one number",
    "other_aggregations": "The other areas by how a map becomes one number",
    "entropy": "How much uncertainty, and of which kind?",
    "threshold": "The mean map cut at thresholds",
}
"""Names and titles of the page's tables, in its order; a plugin may add its own."""


def ratio(top: Floats, bottom: Floats, empty: float = np.nan) -> Floats:
    """top / bottom, `empty` where bottom is 0."""
    defined = bottom != 0
    return np.where(defined, top / np.where(defined, bottom, 1), empty)


@dataclass(frozen=True)
class Statistic:
    """What is computed of each case and stored: (B,*shape); "R" in the shape is the number of readers.

    of_set: of a set of pixels, given as the one sample; what samples are scored with says nothing about it.
    several_readers: measured against the readers' majority or fraction, of which one reader can tell nothing.
    """

    name: str
    version: int
    shape: tuple[int | str, ...]
    summed: bool
    compute: Callable[[Scored], Tensor] = field(repr=False)
    of_set: bool = False
    several_readers: bool = False


@dataclass(frozen=True)
class Derived:
    """What follows for each case from other statistics, stored or derived, and from how the samples were drawn.

    several_readers: as in Statistic; what is derived from such a statistic is so too.
    """

    name: str
    of: tuple[str, ...]
    compute: Callable[[Columns, Drawn], Floats] = field(repr=False)
    several_readers: bool = False


_STATISTICS: dict[str, Statistic] = {}
_DERIVED: dict[str, Derived] = {}
_FIGURES: dict[str, Figure] = {}


def statistic(
    name: str,
    *,
    version: int = 1,
    shape: tuple[int | str, ...] = (),
    summed: bool = False,
    of_set: bool = False,
    several_readers: bool = False,
) -> Callable[[Measure], Measure]:
    """Register a function of Scored that gives a tensor (B,*shape), NaN where undefined.

    version: raise it when the function computes other values. summed: a results folder keeps only sums per patient.
    The rest as in Statistic.
    """

    def register(function: Measure) -> Measure:
        _STATISTICS[name] = Statistic(name, version, shape, summed, function, of_set, several_readers)
        return function

    return register


def derived(name: str, of: tuple[str, ...], *, several_readers: bool = False) -> Callable[[Derive], Derive]:
    """Register a NumPy function of the columns `of`, each (N,*shape), and of how the samples were drawn."""

    def register(function: Derive) -> Derive:
        _DERIVED[name] = Derived(name, of, function, several_readers)
        return function

    return register


def statistics(of_set: bool = False) -> dict[str, Statistic]:
    """All stored statistics of samples by name, or all those of a set of pixels."""
    return {name: statistic for name, statistic in _STATISTICS.items() if statistic.of_set is of_set}


def derivations() -> dict[str, Derived]:
    """All derived statistics by name."""
    return dict(_DERIVED)


def stored_under(names: tuple[str, ...]) -> tuple[str, ...]:
    """The stored statistics that the named ones, stored or derived, are computed from."""
    below = {s for n in names for s in (stored_under(_DERIVED[n].of) if n in _DERIVED else (n,))}
    return tuple(s for s in _STATISTICS if s in below)


def needs_several_readers(name: str) -> bool:
    """Whether a statistic, stored or derived, is measured against the readers' majority or fraction."""
    if name in _DERIVED:
        return _DERIVED[name].several_readers or any(map(needs_several_readers, _DERIVED[name].of))
    return name in _STATISTICS and _STATISTICS[name].several_readers


@dataclass(frozen=True)
class Figure:
    """One number about a data set, declared once with everything the pages say of it.

    of: the statistics, stored or derived, it is finished from. By default it is the mean of the only one over the
    cases where that is defined. from_sums: a function of their sums over cases (undefined ones as 0) and of the number
    of cases where they are defined, both (...,*shape). from_cases: a function of all cases at once, of columns (N,) and
    weights (K,N), to (K,); cases with an undefined value are left out. place: from_cases gives (K,J), what J figures of
    the same statistics share, and this is the one at that place. reads: the entries of its statistics' first axis that
    from_sums reads, default all.
    tables: where it stands in the report, its home first. family: figures that share a row of the definitions page.
    depends_on_samples: comparable only between equal kinds and numbers of samples.
    common_cases: methods are compared over the cases where it is defined for all of them.
    same_as, unlike: whose published numbers it can, and cannot, stand beside.
    """

    name: str
    title: str
    of: tuple[str, ...]
    direction: Direction
    tables: tuple[str, ...]
    formula: str
    reference: str
    range: tuple[float, float] = (0, 1)
    degenerate: str = ""
    same_as: str = ""
    unlike: str = ""
    family: str = ""
    depends_on_samples: bool = False
    common_cases: bool = False
    from_sums: Callable[[Columns, Columns], Floats] | None = field(default=None, repr=False, compare=False)
    from_cases: Callable[[Columns, Floats], Floats] | None = field(default=None, repr=False, compare=False)
    place: int = 0
    reads: tuple[int, ...] | None = None

    @property
    def table(self) -> str:
        """Its home: the first of the tables it stands in."""
        return self.tables[0]

    @property
    def kind(self) -> Literal["sums", "cases"]:
        """Whether it is finished from sums over cases, or needs all cases at once."""
        return "sums" if self.from_cases is None else "cases"

    @property
    def statistics(self) -> tuple[str, ...]:
        """The stored statistics behind it."""
        return stored_under(self.of)

    @property
    def version(self) -> int:
        """Raised whenever one of its statistics' versions is."""
        return 1 + sum(_STATISTICS[s].version - 1 for s in self.statistics)

    def of_sums(self, sums: Columns, counts: Columns) -> Floats:
        """Value (...) from weighted sums and numbers of defined cases of each statistic, both (...,*shape)."""
        if self.kind == "cases":
            raise TypeError(f"figure '{self.name}' is not finished from sums: call of_cases(values, weights)")
        if self.from_sums is not None:
            return self.from_sums(sums, counts)
        return ratio(np.asarray(sums[self.of[0]], float), np.asarray(counts[self.of[0]], float))

    def of_cases(self, values: Columns, weights: Floats) -> Floats:
        """Values (K,) from columns (N,) and weights of the cases (K,N), one row a resample."""
        return self.shared_of_cases(values, weights)[:, self.place]

    def shared_of_cases(self, values: Columns, weights: Floats) -> Floats:
        """Values (K,J) of this figure and of those that share its `from_cases`."""
        if self.from_cases is None:
            raise TypeError(f"figure '{self.name}' is finished from sums: call of_sums(sums, counts)")
        columns = {c: np.asarray(values[c], float) for c in self.of}
        keep = np.all([np.isfinite(x) for x in columns.values()], axis=0)
        columns = {c: x[keep] for c, x in columns.items()}
        kept = np.atleast_2d(np.asarray(weights, float))
        kept = kept if keep.all() else kept[:, keep]
        result = self.from_cases(columns, kept)
        return result if result.ndim == 2 else result[:, None]

    def value(self, scores: Scores, weights: Floats | None = None) -> float:
        """Value over all cases, each counted once or `weights` (N,) times; NaN where a statistic was not scored."""
        if not scores.has(*self.of):
            return float("nan")
        if self.kind == "cases":
            w = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
            return float(self.of_cases({c: scores.column(c) for c in self.of}, w[None])[0])
        if weights is None:
            sums, counts = ({c: x.sum(0) for c, x in part.items()} for part in scores.sums(self.of))
        else:
            columns = {c: scores.column(c) for c in self.of}
            sums = {c: np.tensordot(weights, np.nan_to_num(x), 1) for c, x in columns.items()}
            counts = {c: np.tensordot(weights, np.isfinite(x), 1) for c, x in columns.items()}
        return float(self.of_sums(sums, counts))


def declare(figure: Figure) -> Figure:
    """Add a figure to the report's tables and to the definitions page."""
    if not figure.tables or not set(figure.tables) <= set(TABLES):
        raise UsageError(f"figure '{figure.name}': expected tables out of {', '.join(TABLES)}, got {figure.tables}")
    if missing := [s for s in figure.of if s not in _STATISTICS and s not in _DERIVED]:
        raise unknown("statistic", missing[0], [*_STATISTICS, *_DERIVED])
    if figure.from_sums is None and figure.from_cases is None and len(figure.of) != 1:
        raise UsageError(f"figure '{figure.name}': a mean is that of one statistic, got {', '.join(figure.of)}")
    _FIGURES[figure.name] = figure
    return figure


def figures(table: str | None = None) -> list[Figure]:
    """All figures, or those of one table, by the order of their home tables and of their declaration."""
    if table is not None and table not in TABLES:
        raise unknown("table", table, TABLES)
    order = list(TABLES)
    chosen = (f for f in _FIGURES.values() if table is None or table in f.tables)
    return sorted(chosen, key=lambda f: order.index(f.table))


def figure(name: str) -> Figure:
    """The figure called `name`."""
    if name not in _FIGURES:
        raise unknown("figure", name, _FIGURES)
    return _FIGURES[name]


def tables() -> dict[str, str]:
    """Titles of the tables that hold a figure, by name, in the page's order."""
    return {name: title for name, title in TABLES.items() if figures(name)}


def figure_versions() -> dict[str, int]:
    """The version of every figure."""
    return {name: figure.version for name, figure in _FIGURES.items()}


def older_figures(versions: Mapping[str, int]) -> list[str]:
    """Figures whose statistics were stored in an older version; versions: {statistic: version} of stored scores."""
    old = {name for name, version in versions.items() if name in _STATISTICS and version < _STATISTICS[name].version}
    return [name for name, figure in _FIGURES.items() if old & set(figure.statistics)]
