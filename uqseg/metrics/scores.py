"""Scores: statistics of the cases that one sampler was scored on, in memory and as files. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uqseg.errors import FileError, unknown
from uqseg.metrics.registry import Drawn, Floats, derivations, needs_several_readers, statistics

Names = NDArray[np.str_]
FORMAT = b"uqseg"
EXACT = 2**24
"""Whole numbers up to here are exact in float32."""
ROWS = 2**17
"""Rows of a Parquet file that are packed at once, to bound the memory."""


@dataclass(frozen=True)
class Scores:
    """Statistics of N cases of P patients, NaN where undefined.

    values: by name (N,*shape), float64. patient_sums: of statistics that are kept only as sums per patient, the sums
    and the numbers of cases where they are defined, (P,*shape) each, patients sorted. samples, drawn: how many samples
    were scored, and of which kind. averaged: the values, derived ones too, are means of several scorings (the yardstick
    `human`), so nothing is derived from them.
    """

    cases: Names
    patients: Names
    values: dict[str, Floats]
    samples: int
    drawn: Drawn
    patient_sums: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    averaged: bool = False
    _cache: dict[str, Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def patient_names(self) -> Names:
        """The patients (P,), sorted, in the order of all sums."""
        return np.unique(self.patients)

    def has(self, *names: str) -> bool:
        """Whether all of these can be given, as columns or as sums."""
        known, rules = {*self.values, *self.patient_sums}, {} if self.averaged else derivations()
        if self.averaged and any(map(needs_several_readers, names)):  # stored by earlier versions, against one reader
            return False
        return all(name in known or (name in rules and self.has(*rules[name].of)) for name in names)

    def column(self, name: str) -> Floats:
        """A statistic of each case, stored or derived: (N,*shape)."""
        if name in self.values:
            return self.values[name]
        if name in self.patient_sums:
            raise KeyError(f"'{name}' is kept only as sums per patient: call sums(['{name}'])")
        if name not in self._cache:
            self._cache[name] = self._derive(name)
        return self._cache[name]

    def _derive(self, name: str) -> Floats:
        rules = derivations()
        if name not in rules and name not in statistics():
            raise unknown("statistic", name, [*statistics(), *rules])
        if not self.has(name):
            raise KeyError(f"'{name}' was not scored, nor all that it is derived from")
        return rules[name].compute({c: self.column(c) for c in rules[name].of}, self.drawn)

    def sums(self, names: Iterable[str]) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Sums over the cases of each patient (undefined ones as 0), and how many are defined: (P,*shape) each."""
        order = np.argsort(self.patients, kind="stable")
        starts = np.unique(self.patients[order], return_index=True)[1]
        sums, counts = {}, {}
        for name in names:
            if name in self.patient_sums:
                sums[name], counts[name] = self.patient_sums[name]
                continue
            x = self.column(name)[order]
            sums[name] = np.add.reduceat(np.nan_to_num(x), starts, axis=0) if len(x) else x
            counts[name] = np.add.reduceat(np.isfinite(x).astype(float), starts, axis=0) if len(x) else x
        return sums, counts

    def equals(self, other: Scores, within: float = 0.0) -> bool:
        """Whether the same cases have the same values, of samples of the same kind and number.

        within: how far values may differ, as a share of them or, below 1, by themselves.
        """
        x, y = (
            {n: (v,) for n, v in s.values.items() if s.has(n)} | {n: v for n, v in s.patient_sums.items() if s.has(n)}
            for s in (self, other)
        )
        alike = np.array_equal(self.cases, other.cases) and x.keys() == y.keys()
        alike &= (self.samples, self.drawn) == (other.samples, other.drawn)
        pairs = (pair for n in x for pair in zip(x[n], y[n], strict=True)) if alike else ()
        return alike and all(v.shape == w.shape and np.allclose(v, w, within, within, equal_nan=True) for v, w in pairs)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp] | Sequence[int]) -> Scores:
        """Some of the cases. Sums per patient are kept where these are all cases of their patients."""
        kept = np.arange(len(self))[np.asarray(rows) if len(rows) else []]
        patients = self.patients[kept]
        complete = np.array_equal(np.flatnonzero(np.isin(self.patients, patients)), np.sort(kept))
        some = np.isin(self.patient_names, patients)
        sums = {n: (s[some], c[some]) for n, (s, c) in self.patient_sums.items()} if complete else {}
        values = {n: x[kept] for n, x in self.values.items()}
        return replace(self, cases=self.cases[kept], patients=patients, values=values, patient_sums=sums)

    def renamed(self, cases: Mapping[str, str], patients: Mapping[str, str]) -> Scores:
        """The same scores under other, equally distinct names of cases and patients."""
        order = np.argsort([patients[p] for p in self.patient_names])
        return replace(
            self,
            cases=np.array([cases[c] for c in self.cases]),
            patients=np.array([patients[p] for p in self.patients]),
            patient_sums={n: (s[order], c[order]) for n, (s, c) in self.patient_sums.items()},
        )

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Scores of several sets of cases, one after the other; a patient may be in several."""
        first = parts[0]
        for part in parts[1:]:
            if (part.samples, part.drawn, part.averaged) != (first.samples, first.drawn, first.averaged):
                raise ValueError(
                    f"parts: expected {first.samples} {first.drawn} samples, got {part.samples} {part.drawn}"
                )
            if set(part.values) != set(first.values) or set(part.patient_sums) != set(first.patient_sums):
                raise ValueError("parts: expected the same statistics in each")
        patients = np.concatenate([p.patients for p in parts])
        names = np.unique(patients)
        sums: dict[str, tuple[Floats, Floats]] = {}
        for name, pair in first.patient_sums.items():
            total, count = (np.zeros((len(names), *x.shape[1:])) for x in pair)
            for part in parts:
                rows = np.searchsorted(names, part.patient_names)
                total[rows] += part.patient_sums[name][0]
                count[rows] += part.patient_sums[name][1]
            sums[name] = total, count
        return replace(
            first,
            cases=np.concatenate([p.cases for p in parts]),
            patients=patients,
            values={n: np.concatenate([p.values[n] for p in parts]) for n in first.values},
            patient_sums=sums,
        )


def write_scores(folder: Path, scores: Mapping[str, Scores]) -> None:
    """Write scores by split into folder: scores.parquet has a row for each case, sums.parquet one for each patient.

    Statistics declared as summed are kept as sums per patient alone; the others as float32, or as float64 where they
    count more than that can hold. What a split was not scored with is null.
    """
    import pyarrow as pa

    summed = {s.name for s in statistics().values() if s.summed}
    cases, sums, facts = [], [], {}
    for split, part in scores.items():
        kept = {n: x for n, x in part.values.items() if n not in summed}
        names = {"case": part.cases, "patient": part.patients}
        columns = {k: pa.array(v.astype(object), pa.string()) for k, v in names.items()}
        columns["split"] = pa.array([split] * len(part), pa.string())
        cases.append(pa.table(columns | {n: _lists(as_stored(x)) for n, x in kept.items()}))
        binned = [n for n in (*part.values, *part.patient_sums) if n in summed]
        totals, counts = part.sums(binned)
        columns = {"patient": pa.array(part.patient_names.astype(object), pa.string())}
        columns["split"] = pa.array([split] * len(part.patient_names), pa.string())
        for n in binned:
            columns[n] = _lists(totals[n])
            columns[f"{n}:cases"] = pa.array(counts[n].reshape(len(counts[n]), -1).max(1).astype(np.int32))
        sums.append(pa.table(columns))
        shapes = {n: x.shape[1:] for n, x in (*kept.items(), *totals.items())}
        facts[split] = {"samples": part.samples, "drawn": part.drawn, "averaged": part.averaged, "shapes": shapes}
    for name, tables in (("scores", cases), ("sums", sums)):
        table = pa.concat_tables(tables, promote_options="permissive")
        table = table.replace_schema_metadata({FORMAT: json.dumps(facts).encode()})
        _write(table, folder / f"{name}.parquet")


def as_stored(x: Floats) -> NDArray[Any]:
    """A statistic in the type that its column has: float32, or float64 where it counts more than that can hold."""
    return x if np.nanmax(np.abs(x), initial=0) > EXACT else x.astype(np.float32, copy=False)


def _lists(x: NDArray[Any]) -> Any:
    """An array (N,*shape) as an Arrow column, of fixed-size lists unless it has one number a row."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(x).ravel())
    return flat if x.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(x.shape[1:])))


def _write(table: Any, path: Path) -> None:
    from pyarrow import parquet

    texts = [n for n in ("case", "patient", "split") if n in table.column_names]
    try:
        parquet.write_table(
            table, path, row_group_size=ROWS, compression="zstd", compression_level=9, use_dictionary=texts
        )
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def read_scores(folder: Path) -> dict[str, Scores]:
    """The scores by split that `write_scores` wrote. FileError where a file is missing or corrupt."""
    from pyarrow import ArrowException, parquet

    path = folder
    try:
        path = folder / "scores.parquet"
        cases = parquet.read_table(path)
        path = folder / "sums.parquet"
        sums = parquet.read_table(path)
        return {
            split: _of_split(cases, sums, split, f) for split, f in json.loads(cases.schema.metadata[FORMAT]).items()
        }
    except (OSError, ArrowException, ValueError, KeyError, TypeError) as error:
        raise FileError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


def _of_split(cases: Any, sums: Any, split: str, facts: Mapping[str, Any]) -> Scores:
    values, totals = _columns(cases, split, facts["shapes"]), _columns(sums, split, facts["shapes"])
    pairs = {n: x for n, x in totals.items() if f"{n}:cases" in totals}
    counts = {n: totals[f"{n}:cases"].astype(float).reshape(-1, *[1] * (x.ndim - 1)) for n, x in pairs.items()}
    names, patients = (values.pop(n).astype(np.str_) for n in ("case", "patient"))
    return Scores(
        names,
        patients,
        {n: x.astype(np.float64) for n, x in values.items()},
        facts["samples"],
        facts["drawn"],
        {n: (x, np.broadcast_to(counts[n], x.shape).copy()) for n, x in pairs.items()},
        facts["averaged"],
    )


def _columns(table: Any, split: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
    """The columns of one split that are not null, as arrays of their shapes."""
    rows = table.filter([s == split for s in table["split"].to_pylist()])
    columns = {}
    for name in (n for n in rows.column_names if n != "split"):
        column = rows[name].combine_chunks()
        if column.null_count < len(column) or not len(column):
            shape = shapes.get(name, ())
            flat = (column.flatten() if shape else column).to_numpy(zero_copy_only=False)
            columns[name] = flat.reshape(len(column), *shape)
    return columns
