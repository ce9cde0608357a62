"""Curves of a training as it goes on, in TensorBoard, Weights & Biases or MLflow: the lines of its history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from uqseg.errors import UsageError, unknown

Hook = Callable[[Mapping[str, Any]], None]
PLACES = {"tensorboard": "tensorboard:DIR", "wandb": "wandb or wandb:PROJECT", "mlflow": "mlflow or mlflow:EXPERIMENT"}


def check(place: str | None) -> None:
    """Raise UsageError where `place` is not one of PLACES, its package is not installed, or it does not take curves."""
    if place is None:
        return
    name, _, rest = place.partition(":")
    if name not in PLACES:
        raise unknown("--log", name, PLACES.values())
    if name == "tensorboard" and not rest:
        raise UsageError("--log: tensorboard needs a folder: tensorboard:DIR.")
    try:
        if name == "tensorboard":
            from torch.utils import tensorboard  # noqa: F401
        elif name == "wandb":
            import wandb

            if wandb.setup().settings.mode == "online":
                wandb.login()
        else:
            import mlflow

            mlflow.set_experiment(rest or "uqseg")
    except ImportError as error:
        raise UsageError(f"--log: {name} is not installed: pip install 'uqseg[{name}]'.") from error
    except Exception as error:  # whatever a tool says that is not set up, or cannot be reached
        remedy = {"wandb": "log in, or set WANDB_MODE=offline", "mlflow": "set MLFLOW_TRACKING_URI"}[name]
        raise UsageError(f"--log: {name} takes no curves ({' '.join(str(error).split())[:200]}); {remedy}.") from error


@contextmanager
def curves(place: str | None, title: str, facts: Mapping[str, Any]) -> Iterator[Hook | None]:
    """A function that shows a line of a history (step, loss, lr, val, ...) at `place`; None where that is None.

    title: of the training; facts: its options, which W&B and MLflow keep beside the curves.
    """
    name, _, rest = (place or "").partition(":")
    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(f"{rest}/{title}") as writer:

            def show(line: Mapping[str, Any]) -> None:
                for key, value in _numbers(line).items():
                    writer.add_scalar(key, value, line["step"])
                writer.flush()

            yield show
    elif name == "wandb":
        import wandb

        with wandb.init(project=rest or "uqseg", name=title, config=dict(facts)) as run:
            yield lambda line: run.log(_numbers(line), step=line["step"])
    elif name == "mlflow":
        import mlflow

        mlflow.set_experiment(rest or "uqseg")
        with mlflow.start_run(run_name=title):
            mlflow.log_params(dict(facts))
            yield lambda line: mlflow.log_metrics(_numbers(line), step=line["step"])
    else:
        yield None


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if key != "step" and isinstance(value, int | float)}
