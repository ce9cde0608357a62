"""dataset.toml: what somebody says of the images and masks of a folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from uqseg.checked import Checked
from uqseg.errors import FileError, UsageError


class Settings(Checked):
    """What dataset.toml may say."""

    invert: bool = Field(False, description="masks are 0 where the reader marked")
    mask_threshold: float | None = Field(
        None, description="marked where a mask is at least this; none: only 0/1 or 0/255 masks are taken"
    )
    label: float | None = Field(None, description="marked where a mask has this number, one of several labels")
    ignore: float | None = Field(None, description="a number in masks that counts as not marked, such as a void of 255")
    fit: Literal["crop", "resize"] = Field(
        "crop", description="crop: centre crop or zero padding, nothing is stretched; resize: stretched to the square"
    )
    window: tuple[float, float] | None = Field(
        None, description="values shown as 0 and 255 of images of more than 8 bits; none: each image's own extremes"
    )
    slices: bool = Field(
        False, description="a file with several slices is as many cases, name_z000 and on, of a patient"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window: expected two ascending numbers, got {list(self.window)}")
        if self.label is not None and self.mask_threshold is not None:
            raise ValueError("label and mask_threshold: expected one of the two")
        return self


def read_settings(file: Path | None) -> Settings:
    """What dataset.toml says; the defaults where there is no such file. FileError naming file and key."""
    if file is None:
        return Settings()
    try:
        return Settings(**tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except UsageError as error:
        raise FileError(f"{file}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read {file}: {error}; write it as TOML or remove it") from error
