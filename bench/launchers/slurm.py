"""Slurm, through submitit: one array of tasks, then a last job that writes the report."""

from __future__ import annotations

import shutil
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bench.launchers import Settings, groups, launcher, need
from bench.runs.results import read_run, write_json
from bench.runs.spec import validated
from uqseg.checked import Checked
from uqseg.errors import FileError, UsageError, message_of

MOST = 1000  # tasks of an array: Slurm's own limit, unless it is configured otherwise


class Options(Checked):
    """What a task asks Slurm for: the keys of the TOML file."""

    cluster: Literal["slurm", "local"] = Field("slurm", description="local: processes of this machine, to try it out")
    partition: str | None = Field(None, description="partition, as `sinfo` lists them")
    minutes: int = Field(240, ge=1, description="time limit; a task that reaches it goes on from its checkpoint")
    gpus: int = Field(0, ge=0, description="GPUs of a task: 1 to train on one")
    cpus: int = Field(1, ge=1, description="processors of a task, and threads of a cell")
    memory_gb: float = Field(8, gt=0, description="memory of a task")
    at_once: int = Field(100, ge=1, description="tasks that run at the same time at most")
    timeouts: int = Field(10, ge=0, description="how often a task may reach its time limit")
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = Field([], description="lines of shell before each task, such as module load cuda")


def read_options(file: Path) -> Options:
    """The options in a TOML file. UsageError naming file and key, or that submitit or Slurm is not installed."""
    try:
        options = validated(Options, tomllib.loads(file.read_text(encoding="utf-8")), str(file))
    except OSError as error:
        raise UsageError(f"--slurm: cannot read '{file}': {error.strerror}; give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}; write lines such as gpus = 1") from error
    need("submitit", "slurm")
    if options.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UsageError(
            "--slurm: there is no sbatch on this machine; give the command where Slurm is, or write "
            f"cluster = \"local\" into '{file}' to try it here."
        )
    return options


@dataclass(frozen=True)
class Task:
    """Some cells of a run, as Slurm's job does them."""

    folder: Path
    cells: tuple[str, ...]
    settings: Settings

    def __call__(self) -> None:
        """Do the cells, in a process of Slurm's job."""
        from bench.runs.sharing import take

        take(self.folder, self.cells, self.settings)

    def checkpoint(self) -> Any:
        """What submitit has done in this task's place when it was preempted: the same, from the last checkpoint."""
        return need("submitit", "slurm").helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class Last:
    """The end of a run: its gallery, its report, and an error that names the cells that failed."""

    folder: Path
    settings: Settings

    def __call__(self) -> None:
        """End the run. Raises FileError where cells failed, so that Slurm's job fails too."""
        from bench import report
        from bench.runs.carry_out import finish
        from bench.runs.work import read_job

        job = read_job(self.folder, self.settings.trust)
        seconds = time.time() - (self.folder / "slurm" / "jobs.json").stat().st_mtime
        failed = finish(job, self.settings, seconds, anew=True)
        if self.settings.report:
            report.write(self.folder, pictures=self.settings.pictures)
        if failed:
            raise FileError(f"{len(failed)} of {len(job.entries)} cells failed: {'; '.join(failed)}")


@launcher("slurm")
def run_on_slurm(folder: Path, cells: Sequence[str], settings: Settings) -> bool:
    """Tasks of a Slurm cluster, which --slurm FILE.toml describes; the report is written by a last job."""
    submitit, options, folder = need("submitit", "slurm"), read_options(Path(settings.target)), folder.resolve()
    local = options.cluster == "local"
    remote = replace(settings, log=print, progress=False)
    tasks = groups(read_run(folder), cells, options.at_once if local else MOST)
    try:
        executor = _executor(submitit, folder, options)
        with executor.batch():
            jobs = [executor.submit(Task(folder, tuple(task), remote)) for task in tasks]
        if local:
            for job in jobs:
                job.exception()  # waits; what failed is kept with its cell
            return False
        array = jobs[0].job_id.partition("_")[0]
        after = {"slurm_additional_parameters": {"dependency": f"afterany:{array}"}}
        executor.update_parameters(name=f"report-{folder.name}", **after)
        last = executor.submit(Last(folder, remote))
    except (RuntimeError, submitit.core.utils.FailedJobError, OSError) as error:
        reason = message_of(error)[-300:]
        raise UsageError(f"--slurm: Slurm takes no job ({reason}); check '{settings.target}' against sinfo.") from error
    write_json(folder / "slurm" / "jobs.json", {"array": array, "last": last.job_id})
    settings.log(f"Sent to Slurm: array {array} of {len(tasks)} tasks, then {last.job_id} for the report.")
    settings.log(f"Watch: uqseg status --watch --out {folder.parent}")
    return True


def _executor(submitit: Any, folder: Path, options: Options) -> Any:
    """submitit's executor, which keeps each task's log and result in the run's folder slurm/."""
    executor = submitit.AutoExecutor(
        folder=folder / "slurm", cluster=options.cluster, slurm_max_num_timeout=options.timeouts
    )
    given = {f"slurm_{name}": value for name in ("partition", "account", "qos", "constraint", "setup")
             if (value := getattr(options, name))}  # fmt: skip
    executor.update_parameters(
        name=folder.name,
        timeout_min=options.minutes,
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        mem_gb=options.memory_gb,
        slurm_array_parallelism=options.at_once,
        **given,
    )
    return executor
