"""The explorer of the browser's page: the cases of the gallery as small PNGs in JSON, which explorer.js draws."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from bench.report import subgroups
from bench.report.context import Report
from bench.report.gallery import DEVIATION, OUTLINES, PROBABILITY, crop, moments, pixels
from bench.runs.results import RULES, Gallery

MOST = 30  # cases
BYTES = 7_000_000  # of all cases: with the other pictures the page stays below 10 MB
SIDE = 256  # pixels; of larger images every second, third, ... is shown
DASHES = ("", "6 3", "6 3 1 3", "2 3")  # of the readers' outlines, SVG


def panel(report: Report) -> str:
    """HTML of the explorer and its data; the results must have a gallery."""
    kept = report.results.gallery
    assert kept is not None
    facts = report.results.run["data"]
    cases = _fitting(report, kept)
    data = {
        "cases": cases,
        "left_out": len(kept.cases) - len(cases),
        "step": _step(kept),
        "methods": [{"label": label, "samples": s.shape[1]} for label, s in kept.samples.items()],
        "readers": [
            {"name": name, "colour": to_hex(OUTLINES[r % len(OUTLINES)]), "dash": DASHES[(r + r // len(OUTLINES)) % 4]}
            for r, name in enumerate(report.reader_names)
        ],
        "rules": {rule: RULES.get(rule, "chosen by rule") for rule in kept.rules},
        "simulated": facts["simulated"],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<div id="explorer"><noscript>The explorer of cases needs JavaScript, which is switched off.</noscript></div>\n'
        f'<script type="application/json" id="cases">{text}</script>'
    )


def _step(kept: Gallery) -> int:
    return int(-(-max(kept.images.shape[2:]) // SIDE))


def _fitting(report: Report, kept: Gallery) -> list[dict[str, Any]]:
    """As many cases as the page has room for; those that have a rule come first in a gallery."""
    cases: list[dict[str, Any]] = []
    total = 0
    for case in _cases(report, kept):
        total += len(json.dumps(case))
        if len(cases) == MOST or total > BYTES:
            break
        cases.append(case)
    return cases


def _cases(report: Report, kept: Gallery) -> Iterator[dict[str, Any]]:
    table = report.results.cases
    test = table[table["split"] == "test"].reset_index(drop=True)
    groups = [(f"{trait}: {level}", rows) for trait, levels in subgroups.groups_of(test).items()
              for level, rows in levels.items()]  # fmt: skip
    scores = report.scores(report.methods[0])[0]
    apart = dict(zip(scores.cases.tolist(), scores.column("ged_readers").tolist(), strict=True))
    step = _step(kept)
    every = np.s_[..., ::step, ::step]
    for place, name in enumerate(kept.cases):
        image, masks = kept.images[place][every], kept.masks[place][every]
        rows, columns = crop(masks[kept.read[place]], image.shape[1:])
        samples = {label: s[place][every] / 255.0 for label, s in kept.samples.items()}
        shares = masks[kept.read[place]][None].astype(float)
        maps = [(shares[0], None), *((s, kept.weights.get(label)) for label, s in samples.items())]
        drawn = [moments(s, None if w is None else w[place]) for s, w in maps]
        row = int(np.flatnonzero(test["case"] == name)[0])
        yield {
            "name": name,
            "rules": [rule for rule, case in kept.rules.items() if case == name],
            "groups": [text for text, chosen in groups if chosen[row]],
            "dispute": round(apart[name], 3),
            "size": [*image.shape[1:]],
            "window": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            "read": np.flatnonzero(kept.read[place]).tolist(),
            "weights": [kept.weights[n][place].round(3).tolist() if n in kept.weights else None for n in samples],
            "image": _png(Image.fromarray(pixels(image))),
            "masks": _strip(masks),
            "samples": _strip(np.concatenate([s >= 0.5 for s in samples.values()])),
            "mean": _coloured([mean for mean, _ in drawn], PROBABILITY),
            "deviation": _coloured([deviation for _, deviation in drawn], DEVIATION),
        }


def _strip(masks: NDArray[np.bool_]) -> str:
    """Masks (K,H,W) below each other, one bit a pixel."""
    return _png(Image.fromarray(masks.reshape(-1, masks.shape[-1])))


def _coloured(maps: Sequence[NDArray[Any]], look: dict[str, Any]) -> str:
    """Maps (H,W) below each other, one byte a pixel, in the colours of the gallery."""
    scaled = np.clip(np.concatenate(maps) / look["vmax"], 0, 1)
    picture = Image.fromarray(np.round(scaled * 255).astype(np.uint8)).convert("P")
    colours = mpl.colormaps[look["cmap"]](np.arange(256), bytes=True)[:, :3]
    picture.putpalette(colours.tobytes())
    return _png(picture)


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
