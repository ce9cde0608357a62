"""Whether a results folder holds the same run, and what differs between two runs. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.runs import results
from uqseg.errors import DamagedError, FileError, UsageError


def joined(folder: Path, record: Mapping[str, Any], threads: int | None = None) -> dict[str, Any]:
    """The record with the threads that the run in `folder`, if there is one, was planned with.

    Raises UsageError where others are asked for.
    """
    try:
        planned = results.read_run(folder).get("threads", record["threads"])
    except (UsageError, FileError):  # none, or a damaged one
        return dict(record)
    if threads not in (None, planned):
        raise UsageError(
            f"--threads: '{folder}' was planned with {planned} for each cell, got {threads}; leave it out, or choose "
            "another --name."
        )
    return {**record, "threads": planned}


def check_same(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise UsageError naming what differs where `folder` holds another run, or anything else."""
    if (folder / "run.json").exists():
        try:
            before = results.read_run(folder)
        except DamagedError as error:
            if _cells_are_of(folder, record):
                return
            raise FileError(
                f"{error}; what lies beside it is not known to be of this run, choose another --name"
            ) from error
        if changes := differences(before["spec"], record["spec"]) or _content_changes(before, record):
            few = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
            raise UsageError(f"'{folder}' holds another run ({few}); choose another --name.")
    elif folder.is_dir() and any(folder.iterdir()) and not _cells_are_of(folder, record):
        raise UsageError(f"'{folder}' is not empty and holds no run; choose another --name.")


def _cells_are_of(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the cells in `folder` show that it holds the run of `record`: then a lost run.json is written anew."""
    known = [entry["scores"] for entry in results.entries_of(record).values()]
    files = [file for file in folder.glob("cells/*/cell.json") if results.is_readable(results.read_object, file)]
    return bool(files) and all(results.read_object(file).get("scores") in known for file in files)


def changed_since(out: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """For runs below `out` of the same spec: which data and code have changed since."""
    for file in sorted(out.glob("*/run.json")):
        try:
            before = results.read_run(file.parent)
            changes = _content_changes(before, record) if before["spec"] == record["spec"] else []
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged or of another format: of no run that is asked for now
        for change in changes:
            yield f"since {file.parent.name}: {change}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """Lines such as "settings.unet.width 8 → 4", a dash for what is absent."""
    lines = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) or isinstance(new, dict):
            lines += differences(old or {}, new or {}, f"{path}{key}.")
        elif old != new:
            texts = (
                "–" if value is None else value if isinstance(value, str) else json.dumps(value) for value in (old, new)
            )
            lines.append(f"{path}{key} {' → '.join(texts)}")
    return lines


def identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same: the request, and the keys of data and samplers."""
    return record["spec"], [(entry["label"], entry["scores"]) for entry in (*record["cells"], *record["yardsticks"])]


def _content_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Changes that no word of the spec shows: other data of the same name, other code of the same method."""
    splits = before["data"]["splits"], after["data"]["splits"]
    changes = [
        f"the {s} cases of {after['data']['text']} have changed: images, masks, patients, spacing or how many"
        for s in splits[1]
        if splits[0][s]["key"] != splits[1][s]["key"]
    ]
    if changes:
        return changes
    old = {(e["label"], e["repetition"]): e["scores"] for e in before["cells"]}
    changed = [e for e in after["cells"] if old.get((e["label"], e["repetition"]), e["scores"]) != e["scores"]]
    lines = [
        f"the files of {e['label']} have changed, or how they were drawn"
        if "predictions" in e
        else f"the code of {e['label']} has changed"
        for e in changed
    ]
    return list(dict.fromkeys(lines))
