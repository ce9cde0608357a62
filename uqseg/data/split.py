"""Which patient belongs to which split, and how a few images are drawn evenly over the patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.errors import FileError
from uqseg.seeds import seed_of

SPLITS = ("train", "val", "test")
ALSO = {"valid": "val", "validation": "val"}  # other names of a split
MOST = 10  # patients named in an error


def _uniform(*names: object) -> float:
    """A number in [0,1) from the names."""
    return seed_of(*names) / 2**63


def split_of(patient: str) -> str:
    """ "train", "val" or "test" (60, 20 and 20 % of patients), by the patient's name alone."""
    u = _uniform("split", patient)
    return "train" if u < 0.6 else "val" if u < 0.8 else "test"


def split_named(name: str) -> str:
    """The split that a folder or a table calls `name`, "" for none."""
    lower = name.lower()
    return lower if lower in SPLITS else ALSO.get(lower, "")


def evenly(patients: Sequence[str], limit: int | None, seed: int) -> NDArray[np.intp]:
    """Ascending index of at most `limit` of the N rows, drawn evenly over their patients.

    Round robin: the patients take turns in an order drawn with `seed`, each giving one of its rows at random.
    What is drawn does not depend on the order of patients, and a smaller limit draws a subset of a larger one.
    """
    names = pd.Series(list(patients), dtype=object)
    if limit is None or limit >= len(names):
        return np.arange(len(names), dtype=np.intp)
    place = names.groupby(names).cumcount()
    draw = pd.Series([_uniform("row", seed, p, k) for p, k in zip(names, place, strict=True)])
    turn = draw.groupby(names).rank(method="first").to_numpy()
    order_of = {p: _uniform("patient", seed, p) for p in names.unique()}
    order = np.lexsort((names.map(order_of).to_numpy(dtype=float), turn))
    return np.sort(order[:limit]).astype(np.intp)


def refuse_leaks(table: pd.DataFrame, origin: str) -> None:
    """FileError where cases (columns patient, case, split) of one patient lie in several splits; `origin` names them.

    It is never put right here: what a method has learnt from would be scored.
    """
    leaks = []
    for patient, part in table.groupby("patient", sort=True):
        first = part.drop_duplicates("split")
        if len(first) > 1:
            cases = ", ".join(f"{c} in {s}" for c, s in zip(first["case"], first["split"], strict=True))
            leaks.append(f"{patient} ({cases})")
    if leaks:
        listed = "; ".join(leaks[:MOST]) + (" …" if len(leaks) > MOST else "")
        raise FileError(
            f"{origin}: expected each patient in one split, got {len(leaks)} in several: {listed}; "
            f"give all cases of a patient the same split"
        )
