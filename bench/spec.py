"""What to run: recipes, the options of a run, and its cells; frozen, validated, hashed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uqseg import methods
from uqseg.errors import FileError, UsageError, unknown
from uqseg.seeds import seed_of
from uqseg.train import Training

Checked = TypeVar("Checked", bound=BaseModel)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(Frozen):
    """At most this many images of a split, drawn evenly over patients; unset: all."""

    train: int | None = Field(default=None, ge=1)
    val: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class Recipe(Frozen):
    """A training protocol: what a TOML file in baselines/recipes says."""

    description: str
    size: int = Field(128, ge=16, le=1024, description="images are size×size pixels")
    samples: int = Field(16, ge=1, description="samples an image")
    limit: Limit = Limit()
    training: dict[str, Any] = Field(description="of every method; keys of uqseg.train.Training")
    training_of: dict[str, dict[str, Any]] = Field({}, description="what a method trains differently")
    options: dict[str, dict[str, Any]] = Field({}, description="options of a method")


class Run(Frozen):
    """One `bench run`, complete: the same fields give the same scores. Stored as run.json beside its report."""

    data: str
    recipe_name: str
    recipe: Recipe
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    samples: int
    size: int
    limit: Limit
    settings: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Cell:
    """One method × options × training × repetition; `label` is what tables call the method."""

    label: str
    method: str
    options: methods.Options
    training: Training
    repetition: int

    @property
    def text(self) -> str:
        """All that the trained weights depend on besides the data: the part of the fit key that names the cell."""
        options, training = self.options.model_dump_json(), self.training.model_dump_json()
        return f"{self.method} {options} {training} {self.repetition}"

    def seed(self, data_key: str) -> int:
        """The seed of weights, batches and noise: of data, method, options and repetition, not of what runs beside."""
        return seed_of(data_key, self.method, self.options.model_dump_json(), self.repetition)


def recipe_names() -> list[str]:
    """The recipes that come with the project, sorted."""
    folder = files("baselines") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def recipe(name: str) -> Recipe:
    """The recipe called `name`; UsageError naming file, key and what is allowed for anything wrong in it."""
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    file = f"baselines/recipes/{name}.toml"
    text = (files("baselines") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return read_recipe(text, file)


def read_recipe(text: str, file: str) -> Recipe:
    """The recipe written in `text`; `file` is named in errors."""
    try:
        found = _validated(Recipe, tomllib.loads(text), file)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    _validated(Training, found.training, f"{file}: training")
    for name, values in found.training_of.items():
        _known(name, f"{file}: training_of.{name}")
        _validated(Training, _over(found.training, values), f"{file}: training_of.{name}")
    for name, values in found.options.items():
        try:
            methods.options(name, **values)
        except UsageError as error:
            raise UsageError(f"{file}: options.{name}: {error}") from error
    return found


def _known(name: str, where: str) -> None:
    try:
        methods.find(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _validated(model: type[Checked], values: Mapping[str, Any], where: str) -> Checked:
    try:
        return model(**values)
    except ValidationError as error:
        lines = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'keys'}: {e['msg'].removeprefix('Value error, ')}, got {e['input']!r}"
            for e in error.errors()
        )
        raise UsageError(f"{where}: {lines}. Allowed: {', '.join(model.model_fields)}.") from error


def _over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values`; a training's length is steps or epochs, so that naming one drops the other."""
    drop = {"steps", "epochs"} if {"steps", "epochs"} & set(values) else set()
    return {k: v for k, v in base.items() if k not in drop} | dict(values)


def split_list(text: str) -> list[str]:
    """The comma-separated items of `text`; commas inside square brackets do not separate."""
    return [item.strip() for item in re.split(r",(?![^\[]*\])", text) if item.strip()]


def value_of(text: str) -> Any:
    """The TOML value that `text` spells, or `text` itself: 3, 0.5, true, [1, 2], all."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def settings_of(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{"unet": {"width": 32}} from "unet.width=32"; the word training stands for every method's training."""
    found: dict[str, dict[str, Any]] = {}
    for text in assignments:
        match = re.fullmatch(r"([^=]+)\.(\w+)=(.+)", text)
        if match is None:
            raise UsageError(f"--set: expected method.option=value or training.key=value, got '{text}'.")
        name, option, value = match.groups()
        if name != "training":
            methods.find(name)
        found.setdefault(name, {})[option] = value_of(value)
    return found


def make_run(
    *,
    data: str,
    recipe_name: str,
    chosen: Sequence[str],
    seeds: Sequence[int],
    samples: int | None = None,
    size: int | None = None,
    limit: int | None = None,
    assignments: Sequence[str] = (),
) -> Run:
    """A checked Run; what is None comes from the recipe. `limit` is the largest number of images of each split."""
    found = recipe(recipe_name)
    labels = list(dict.fromkeys(chosen))
    if not labels:
        raise UsageError(f"--methods: expected at least one. Known: {', '.join(methods.names())}.")
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"--seeds: expected different whole numbers, got {list(seeds)}.")
    limits = found.limit
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit: expected at least 1, got {limit}.")
        limits = Limit(**{k: min(limit, v or limit) for k, v in found.limit.model_dump().items()})
    if samples is not None and samples < 1:
        raise UsageError(f"--samples: expected at least 1, got {samples}.")
    run = Run(
        data=data,
        recipe_name=recipe_name,
        recipe=found,
        methods=tuple(labels),
        seeds=tuple(seeds),
        samples=samples if samples is not None else found.samples,
        size=size if size is not None else found.size,
        limit=limits,
        settings=settings_of(assignments),
    )
    unused = sorted(set(run.settings) - {"training"} - {name_of(label) for label in labels})
    if unused:
        raise UsageError(f"--set: {', '.join(unused)} is not among the methods of this run: {', '.join(labels)}.")
    cells(run)  # every option checked before anything runs
    return run


def name_of(label: str) -> str:
    """The method's name in a label such as unet[pos_weight=99]."""
    return label.partition("[")[0]


def cells(run: Run) -> list[Cell]:
    """The run's cells, by method, then repetition."""
    return [_cell(run, label, repetition) for label in run.methods for repetition in run.seeds]


def _cell(run: Run, label: str, repetition: int) -> Cell:
    match = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", label)
    if match is None:
        raise UsageError(f"--methods: expected name or name[option=value,...], got '{label}'.")
    name, inside = match.group(1), match.group(2) or ""
    methods.find(name)
    given: dict[str, Any] = {}
    for text in split_list(inside):
        option, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--methods: expected option=value in '{label}', got '{text}'.")
        given[option.strip()] = value_of(value.strip())
    options = methods.options(name, **(run.recipe.options.get(name, {}) | run.settings.get(name, {}) | given))
    training = _over(run.recipe.training, run.recipe.training_of.get(name, {}))
    checked = _validated(Training, _over(training, run.settings.get("training", {})), f"training of {name}")
    return Cell(label, name, options, checked, repetition)


def read_run(text: str, file: str) -> Run:
    """The Run stored in a run.json; FileError where it is not one."""
    try:
        return Run(**json.loads(text))
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{file}: not the record of a run ({reason}); give the folder of a report.") from error
