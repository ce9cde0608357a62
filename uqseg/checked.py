"""Checked: base of what users write as options, recipes and descriptions; and what is wrong with it, in one line."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

LONGEST = 60  # letters of a value that is quoted


class Checked(BaseModel):
    """Frozen and typed: an unknown key, a wrong type, true for a number, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind is not Any and bool not in (kind, *get_args(kind)) and _holds_truth(value):
            raise ValueError("Input should be of another type than true or false")
        return value


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth, value)))


def faults(error: ValidationError) -> str:
    """Each key that is wrong, what is wrong with it and what it was, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'keys'}: {e['msg'].removeprefix('Value error, ')}, got {_short(e['input'])}"
        for e in error.errors()
    )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
