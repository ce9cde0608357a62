"""Somebody's predictions in a run: the test cases that all of them have, on which every method is then scored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.runs import spec
from bench.runs.lacking import remarks
from bench.runs.splits import Splits
from uqseg.data import AnnotatedSet
from uqseg.errors import UsageError
from uqseg.predictions import Predictions, open_predictions

LEAST = 0.9  # share of the test cases that all predictions have, below which they are not compared unasked


def to_score(
    data: str,
    folder: Path,
    label: str,
    kind: str | None,
    samples: int | None,
    size: int,
    limit: int | None,
    plugins: tuple[str, ...],
) -> spec.Run:
    """The run that trains nothing and scores one folder of predictions; samples: 1 until their number is known."""
    method = spec.of_kind(f'{label}=predictions:"{folder}"', kind)
    if spec.predicted(method) is None:
        raise UsageError(f"--label: expected a name without = : / \\ [ ], got '{label}'.")
    for option, value in (("--samples", samples), ("--limit", limit)):
        if value is not None and value < 1:
            raise UsageError(f"{option}: expected at least 1, got {value}.")
    recipe = spec.Recipe(description="somebody's predictions are scored, nothing is trained", training={})
    return spec.Run(
        data=data,
        recipe_name="score",
        recipe=recipe,
        methods=(method,),
        seeds=(0,),
        samples=samples or 1,
        size=size,
        limit=spec.Limit(train=limit, val=limit, test=limit),
        plugins=plugins,
    )


def open_all(run: spec.Run, splits: Splits, label: str | None = None) -> dict[str, Predictions]:
    """The predictions that a run names, or those of one label, of the test cases."""
    theirs = [predicted for text in run.methods if (predicted := spec.predicted(text))]
    return {
        predicted.label: open_predictions(*predicted[:2], splits.test, predicted.kind)
        for predicted in theirs
        if label in (None, predicted.label)
    }


def on_common_cases(
    splits: Splits, predictions: Mapping[str, Predictions], allow_few: bool
) -> tuple[Splits, dict[str, Predictions]]:
    """The splits with the test cases that all predictions have, and the predictions of these.

    Raises UsageError where they are fewer than LEAST of all, unless that is allowed, or none.
    """
    cases = [str(case) for case in splits.test.cases]
    common = [case for case in cases if all(case in each.files for each in predictions.values())]
    lacking = "; ".join(remarks({label: each.left_out for label, each in predictions.items()}))
    if not common or (len(common) < LEAST * len(cases) and not allow_few):
        raise UsageError(
            f"predictions: {len(common)} of {len(cases)} test cases have usable predictions "
            f"({lacking}); every method would be scored on these alone: predict the others"
            + (", or ask with --common" if common else "")
        )
    return without(splits, set(cases) - set(common)), {label: each.only(common) for label, each in predictions.items()}


def without(splits: Splits, left_out: Collection[str]) -> Splits:
    """The splits without some test cases."""
    if not left_out:
        return splits
    return replace(splits, test=splits.test.take(np.flatnonzero(~np.isin(splits.test.cases, list(left_out)))))


def cut_off(test: AnnotatedSet) -> Iterator[str]:
    """A line that says so where only the centre of the images is scored."""
    size = test.images.shape[2]
    side = 0 if "fit" not in test.table else test.table[["original_height", "original_width"]].max().max()
    if side > size and (test.table["fit"] == "crop").all():
        yield f"images have up to {side:g} pixels a side, of which the centre {size}×{size} is scored; see --size"
