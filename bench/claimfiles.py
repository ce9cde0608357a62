"""Files of claims: what a TOML file says, in which a name in braces stands for methods of the run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bench.claims import Evidence, Group
from bench.expressions import Claim, parse
from uqseg.checked import Checked
from uqseg.errors import FileError, UsageError

FOLDER = Path(str(files("baselines"))) / "claims"


class _Group(Checked):
    text: str
    parts: tuple[str, ...] = Field(min_length=1)


class _File(Checked):
    title: str
    methods: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {}, description="under a name the labels that it may stand for"
    )
    claims: tuple[_Group, ...]


def names() -> list[str]:
    """The files that come with the project, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str, evidence: Evidence) -> tuple[str, list[Group]]:
    """Title and claims of a file that comes with the project, or of any TOML file, for a run.

    A part with {method} stands for one of each method of the run, with {sampler} for one of each with several samples
    that is not made of level sets; {NAME} is the first label under NAME in the table `methods` that the run has.
    FileError naming what is wrong.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        content = _File(**tomllib.loads(path.read_text(encoding="utf-8-sig")))
        stand_for: dict[str, Sequence[str]] = {
            "method": evidence.methods or ["any method"],
            "sampler": evidence.samplers or ["a method of several samples"],
        }
        for key, labels in content.methods.items():
            stand_for[key] = [next((n for n in labels if n in evidence.methods), labels[0])]
        return content.title, [
            Group(each.text, tuple(claim for part in each.parts for claim in _claims(part, stand_for)))
            for each in content.claims
        ]
    except UsageError as error:
        raise FileError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        known = ", ".join(names())
        raise FileError(f"cannot read {path} ({error}); give a TOML file or one of {known}.") from error


def _claims(part: str, stand_for: Mapping[str, Sequence[str]]) -> list[Claim]:
    """The claims that a part makes of all that its names in braces stand for."""
    name = re.search(r"\{(\w*)\}", part)
    if name is None:
        return [parse(part)]
    if name[1] not in stand_for:
        raise UsageError(
            f"claim: {name[0]} stands for nothing: expected {{method}}, {{sampler}} or a name under methods."
        )
    return [claim for label in stand_for[name[1]] for claim in _claims(part.replace(name[0], label), stand_for)]
