"""Matching samples and readers: optimal transport and optimal assignment."""

from math import lcm

import numpy as np

from uqseg.metrics.registry import Floats


def transport(gain: Floats, rows: Floats, columns: Floats) -> float:
    """Largest Σ π_ij gain_ij over couplings π ≥ 0 with the given row and column sums (each 1 in total)."""
    from scipy.optimize import linear_sum_assignment, linprog  # a half second that only scoring needs

    gain, rows, columns = gain[rows > 0][:, columns > 0], rows[rows > 0], columns[columns > 0]
    n, m = gain.shape
    length = lcm(n, m)
    if 1 in (n, m):
        return float(rows @ gain @ columns)
    if np.ptp(rows) < 1e-12 and np.ptp(columns) < 1e-12 and length <= 1024:
        matrix = np.repeat(np.repeat(gain, length // n, 0), length // m, 1)
        return float(matrix[linear_sum_assignment(matrix, maximize=True)].mean())
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))[:-1]])  # the last follows
    solution = linprog(-gain.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns])[:-1], method="highs")
    if solution.x is None:
        raise RuntimeError(f"optimal transport of {n} samples and {m} readers failed: {solution.message}")
    return float(np.clip(gain.ravel() @ solution.x, 0, 1))


def assign(gain: Floats, columns: Floats) -> float:
    """Largest Σ_j columns_j gain_ij with another row i for every column j of weight above 0; NaN with too few rows."""
    from scipy.optimize import linear_sum_assignment

    gain, columns = gain[:, columns > 0], columns[columns > 0]
    if len(gain) < len(columns):
        return float("nan")
    weighted = gain * columns
    return float(weighted[linear_sum_assignment(weighted, maximize=True)].sum())
