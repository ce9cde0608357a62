"""What can be asked for, with a line of description each."""

from __future__ import annotations

from typing import Any

from bench import launchers
from bench.runs.spec import recipe, recipe_names
from uqseg import methods, metrics, wrappers
from uqseg.data import sources
from uqseg.trained import shipped
from uqseg.training import Training


def described(kind: str) -> dict[str, str]:
    """All methods, wrappers, metrics, data, launchers, models or recipes."""
    if kind in ("methods", "wrappers"):
        registry: Any = methods if kind == "methods" else wrappers
        return {n: (registry.find(n).__doc__ or "").strip().partition("\n")[0] for n in registry.names()}
    if kind == "metrics":
        return {f.name: f"{f.table}, {f.direction} is better: {f.formula}" for f in metrics.figures()}
    if kind == "recipes":
        return {n: recipe(n).description for n in recipe_names()}
    return {"data": sources, "launchers": launchers.names, "models": shipped}[kind]()


def options(name: str) -> dict[str, str]:
    """Each option of a method or wrapper, or of training: its default and what it means."""
    model: Any = (
        Training if name == "training" else (wrappers if name in wrappers.names() else methods).find(name).Options
    )
    fields = model.model_fields.items()
    return {key: f"{field.get_default(call_default_factory=True)}  {field.description or ''}" for key, field in fields}


def definitions() -> list[str]:
    """The page of all metrics."""
    return metrics.markdown().split("\n")
