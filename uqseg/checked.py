"""Checked: base of what users write as options, recipes and descriptions; and what is wrong with it, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from uqseg.errors import UsageError

LONGEST = 60  # letters of a value that is quoted


class Checked(BaseModel):
    """Frozen and typed: an unknown key, a wrong type, true for a number, NaN and infinity are a UsageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers know the keywords of each class

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                faults = _faults(error)
                if "Allowed: " not in faults:  # a part of it has not said so of its own keys
                    faults += f". Allowed: {', '.join(type(self).model_fields) or 'none'}."
                raise UsageError(faults) from error

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"Input should be true or false, got {_short(value)}")
        if kind is not Any and bool not in (kind, *get_args(kind)) and _holds_truth(value):
            raise ValueError(f"Input should be of another type than true or false, got {_short(value)}")
        return value


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth, value)))


def _faults(error: ValidationError) -> str:
    """Each key that is wrong, what is wrong with it and what it was, in one line."""
    lines = []
    for e in error.errors():
        key = ".".join(map(str, e["loc"]))
        own = e["type"] == "value_error"  # a validator's words, which say themselves what came
        text = e["msg"].removeprefix("Value error, ") + ("" if own else f", got {_short(e['input'])}")
        lines.append(f"{key}: {text}" if key else text)
    return "; ".join(lines)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
