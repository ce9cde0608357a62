"""What to run: recipes, the options of a run, and its cells; frozen and validated."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import Field

from uqseg import methods, wrappers
from uqseg.checked import Checked
from uqseg.errors import FileError, UsageError, message_of, unknown
from uqseg.methods import Options
from uqseg.outside import load_file
from uqseg.prediction import MOST as MOST_SAMPLES
from uqseg.samples import Drawn
from uqseg.seeds import seed_of
from uqseg.training import Training

M = TypeVar("M", bound=Checked)
MOST_REPETITIONS = 10_000
PREDICTED = re.compile(r"(?:([^=:\[\]/\\]+)=)?predictions(?:\[kind=(\w*)\])?:(.+)")


class Limit(Checked):
    """At most this many images of a split, drawn evenly over patients; unset: all."""

    train: int | None = Field(default=None, ge=1)
    val: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class Recipe(Checked):
    """A training protocol: what a TOML file in baselines/recipes, or anywhere, says."""

    description: str
    size: int = Field(128, ge=16, le=1024, description="images are size×size pixels")
    samples: int = Field(16, ge=1, le=MOST_SAMPLES, description="samples per image")
    limit: Limit = Limit()
    training: dict[str, Any] = Field(description="of every method; keys of uqseg.training.Training")
    training_of: dict[str, dict[str, Any]] = Field({}, description="what a method trains differently")
    options: dict[str, dict[str, Any]] = Field({}, description="options of a method")


class Run(Checked):
    """One `uqseg run`, complete: the same fields give the same scores. Stored in run.json."""

    data: str
    recipe_name: str
    recipe: Recipe
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    samples: int
    size: int
    limit: Limit
    settings: dict[str, dict[str, Any]] = Field({})
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One label × repetition. label: what tables call it; method: as it was typed; wrappers: names with options."""

    label: str
    method: str
    options: Options
    training: Training
    wrappers: tuple[tuple[str, Options], ...]
    repetition: int

    def seed(self, source: str) -> int:
        """The seed of weights, batches and noise: of source, method, options that are not defaults, and repetition."""
        changed = json.dumps(self.options.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return seed_of(source, method_name(self.method), changed, self.repetition)


def method_name(method: str) -> str:
    """The name of a method whatever folder its file lies in: Class of path/to/file.py:Class."""
    return method.rpartition(":")[2]


def run_plugins(plugins: Sequence[str]) -> None:
    """Run each file once, so that its decorators register what it adds."""
    for plugin in plugins:
        load_file(plugin)


class Predicted(NamedTuple):
    """A label of somebody's predictions: what tables call them, their folder, and how they were drawn if said."""

    label: str
    folder: Path
    kind: Drawn | None


def predicted(label: str) -> Predicted | None:
    """What NAME=predictions[kind=KIND]:DIR stands for, NAME and KIND being optional; None for another label."""
    match = PREDICTED.fullmatch(label)
    if match is None:
        return None
    name, text, path = match.groups()
    kind = next((known for known in get_args(Drawn) if known == text), None)
    if kind != text:
        raise unknown("kind", text, get_args(Drawn))
    folder = Path(path.strip('"')).expanduser()
    return Predicted(name or f"predictions:{folder.resolve().name}", folder, kind)


def of_kind(label: str, kind: str | None) -> str:
    """A label of predictions that says how they were drawn, where it does not say so already; any other as it is."""
    theirs = predicted(label)
    if theirs is None or theirs.kind is not None or kind is None:
        return label
    head, path = label.split("predictions:", 1)
    return f"{head}predictions[kind={kind}]:{path}"


def outside(run: Run) -> tuple[str, ...]:
    """The plugins of a run, and its methods and wrappers that are not of this project; nothing is imported."""
    trained = [label for label in run.methods if not predicted(label)]
    names = [_part(label, part)[0] for label in trained for part in split(label, "+")]
    return (*run.plugins, *(name for name in dict.fromkeys(names) if ":" in name))


def recipe_names() -> list[str]:
    """The recipes that come with the project, sorted."""
    folder = files("baselines") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def recipe(name: str) -> Recipe:
    """The recipe called `name`, or in the file NAME.toml; UsageError naming file, key and what is allowed."""
    if name.endswith(".toml"):
        try:
            return read_recipe(Path(name).read_text(encoding="utf-8-sig"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--recipe: cannot read '{name}': {error}; give a TOML file or a known name.") from error
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    text = (files("baselines") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return read_recipe(text, f"baselines/recipes/{name}.toml")


def read_recipe(text: str, file: str) -> Recipe:
    """The recipe written in `text`; `file` is named in errors."""
    try:
        recipe = validated(Recipe, tomllib.loads(text), file)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    validated(Training, recipe.training, f"{file}: training")
    for name, values in recipe.training_of.items():
        _known(name, f"{file}: training_of.{name}")
        validated(Training, _over(recipe.training, values), f"{file}: training_of.{name}")
    for name, values in recipe.options.items():
        try:
            methods.options(name, **values)
        except UsageError as error:
            raise UsageError(f"{file}: options.{name}: {error}") from error
    return recipe


def _known(name: str, place: str) -> None:
    try:
        methods.find(name)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def validated(model: type[M], values: Mapping[str, Any], place: str) -> M:
    """A model of the values read from `place`; UsageError naming keys that are unknown or of a wrong kind."""
    try:
        return model(**values)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values`; a training's length is steps or epochs, so that naming one drops the other."""
    drop = {"steps", "epochs"} if {"steps", "epochs"} & set(values) else set()
    return {k: v for k, v in base.items() if k not in drop} | dict(values)


def split(text: str, separator: str = ",") -> list[str]:
    """The items of `text` between separators; one inside brackets or quotes does not separate."""
    items, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter == "[") - (letter == "]")
        if letter == separator and not depth and not quoted:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def whole_numbers(text: str) -> list[int]:
    """[0, 1, 2, 7] from "0-2,7"."""
    numbers: list[int] = []
    for part in split(text):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise UsageError(f"--seeds: expected whole numbers and ranges such as 0,1,2 or 0-4, got '{text}'.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= MOST_REPETITIONS:
            raise UsageError(f"--seeds: expected numbers below {MOST_REPETITIONS}, got '{text}'.")
        numbers += range(first, last + 1)
    return numbers


def value_of(text: str) -> Any:
    """The TOML value that `text` spells, or `text` itself: 3, 0.5, true, [1, 2], all."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def settings_of(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{"unet": {"width": 32}} from "unet.width=32"; the word training stands for every method's training."""
    settings: dict[str, dict[str, Any]] = {}
    for text in assignments:
        match = re.fullmatch(r"([^=]+)\.(\w+)=(.+)", text)
        if match is None:
            raise UsageError(f"--set: expected method.option=value or training.key=value, got '{text}'.")
        name, option, value = match.groups()
        if name != "training":
            methods.find(name)
        settings.setdefault(name, {})[option] = value_of(value)
    return settings


def make_run(
    *,
    data: str,
    recipe_name: str,
    labels: Sequence[str],
    seeds: Sequence[int],
    samples: int | None = None,
    size: int | None = None,
    limit: int | None = None,
    assignments: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> Run:
    """A checked Run; what is None comes from the recipe. `limit` is the largest number of images of each split."""
    protocol = recipe(recipe_name)
    labels = list(dict.fromkeys(x for label in labels for x in (methods.names() if label == "all" else [label])))
    if not labels:
        raise UsageError(f"--methods: expected at least one. Known: {', '.join(methods.names())}.")
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"--seeds: expected different whole numbers, got {list(seeds)}.")
    limits = protocol.limit
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit: expected at least 1, got {limit}.")
        limits = Limit(**{k: min(limit, v or limit) for k, v in protocol.limit.model_dump().items()})
    if samples is not None and not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"--samples: expected at least 1 and at most {MOST_SAMPLES}, got {samples}.")
    run = Run(
        data=data,
        recipe_name=Path(recipe_name).stem if recipe_name.endswith(".toml") else recipe_name,
        recipe=protocol,
        methods=tuple(labels),
        seeds=tuple(seeds),
        samples=samples if samples is not None else protocol.samples,
        size=size if size is not None else protocol.size,
        limit=limits,
        settings=settings_of(assignments),
        plugins=tuple(plugins),
    )
    unused = sorted(set(run.settings) - {"training"} - {cell.method for cell in cells(run)})
    if unused:
        raise UsageError(f"--set: {', '.join(unused)} is not among the methods of this run: {', '.join(labels)}.")
    names = [shown_label(label) for label in labels]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--methods: two of them would both be called {', '.join(doubled)}; rename a file.")
    return run


def shown_label(label: str) -> str:
    """A label as tables show it: of a class in a file, and of predictions, without the folders of this machine."""
    if theirs := predicted(label):
        return theirs.label
    head, bracket, rest = label.partition("[")
    return re.sub(r'"?[^"+]*[/\\]([^/\\"]+\.py:\w+)"?', r"\1", head) + bracket + rest


def cells(run: Run) -> list[Cell]:
    """The run's cells that train, by label, then repetition; every option checked."""
    return [_cell(run, label, repetition) for label in run.methods if not predicted(label) for repetition in run.seeds]


def _cell(run: Run, label: str, repetition: int) -> Cell:
    if re.search(r"(^|\+)\s*(\+|$)", label):
        raise UsageError(f"--methods: expected a name before and after each +, got '{label}'.")
    (name, given), *chain = [_part(label, part) for part in split(label, "+")]
    methods.find(name)
    of_training = {k.removeprefix("training."): v for k, v in given.items() if k.startswith("training.")}
    of_label = {k: v for k, v in given.items() if not k.startswith("training.")}
    options = methods.options(name, **(run.recipe.options.get(name, {}) | run.settings.get(name, {}) | of_label))
    training = _over(run.recipe.training, run.recipe.training_of.get(name, {}))
    for values in (run.settings.get("training", {}), of_training):
        training = _over(training, values)
    checked = validated(Training, training, f"training of {label if of_training else name}")
    for wrapper, _ in chain[:-1]:
        if wrappers.find(wrapper).gives == "set":
            raise UsageError(f"--methods: '{label}' wraps the one set of pixels of +{wrapper}; put +{wrapper} last.")
    wrapped = tuple((wrapper, _of_wrapper(label, wrapper, values, run.samples)) for wrapper, values in chain)
    return Cell(shown_label(label), name, options, checked, wrapped, repetition)


def _of_wrapper(label: str, name: str, given: Mapping[str, Any], samples: int) -> Options:
    """The options of a wrapper. What it learns from samples holds for as many as it was calibrated with: those of the
    run."""
    options = wrappers.options(name, **given)
    if "samples" not in type(options).model_fields:
        return options
    if given.get("samples", samples) != samples:
        raise UsageError(
            f"--methods: '{label}' calibrates +{name} with another number of samples than the {samples} of the run, "
            f"for which it would not hold; leave samples={given['samples']} out, or give --samples."
        )
    return options.model_copy(update={"samples": samples})


def _part(label: str, text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a part of a label: ("unet", {"width": 32}) of unet[width=32]."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", text)
    if match is None:
        raise UsageError(f"--methods: expected name or name[option=value,...], got '{label}'.")
    given: dict[str, Any] = {}
    for item in split(match[2] or ""):
        option, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--methods: expected option=value in '{label}', got '{item}'.")
        given[option.strip()] = value_of(value.strip())
    return match[1].strip('" '), given


def read_spec(values: Any, file: str) -> Run:
    """The Run stored in a run.json; FileError where it is not one."""
    try:
        return Run(**values)
    except (ValueError, TypeError) as error:
        reason = message_of(error)[:200]
        raise FileError(f"{file}: not the record of a run ({reason}); give the results folder of a run.") from error
