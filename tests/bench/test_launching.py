"""What a launcher needs and has not got is said in one line before anything is written."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import pytest

from bench.launchers import Settings
from bench.launchers.ray import _task
from bench.runs.sharing import undone_in
from tests.bench.conftest import Run, bench
from tests.bench.test_errors import refused
from tests.bench.test_sharing import planned_again
from uqseg.errors import UsageError


def words(out: Path, *more: object) -> tuple[object, ...]:
    return ("run", "--methods", "unet", "--data", "toy", "--recipe", "toy", "--out", out / "runs", *more)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only one whose programs are known."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def put(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize(("option", "module", "extra"), [("--slurm", "submitit", "slurm"), ("--ray", "ray", "ray")])
def test_a_missing_extra_is_named(
    option: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "gpu.toml").write_text("gpus = 1", encoding="utf-8")
    for value in ([], [tmp_path / "gpu.toml"])[option == "--slurm" :]:
        answer = bench(*words(tmp_path, option, *value))
        refused(answer, 2, f"--{extra}: {module} is not installed; install it with: pip install 'uqseg[{extra}]'")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('partitoin = "gpu"', "partitoin: Extra inputs are not permitted, got 'gpu'. Allowed: cluster, partition,"),
        ('gpus = "two"', "gpus: Input should be a valid integer, unable to parse string as an integer, got 'two'"),
        ("minutes = true", "minutes: Input should be of another type than true or false, got True"),
        ("minutes = 0", "minutes: Input should be greater than or equal to 1, got 0"),
        ('cluster = "cloud"', "cluster: Input should be 'slurm' or 'local', got 'cloud'"),
        ("cpus =", "not valid TOML: Invalid value (at end of document); write lines such as gpus = 1"),
        (None, "gpu.toml': No such file or directory; give a TOML file"),
    ],
)
def test_a_wrong_file_for_slurm_is_named_with_its_key(text: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "gpu.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    refused(bench(*words(tmp_path, "--slurm", file)), 2, str(file), expected)
    assert not (tmp_path / "runs").exists()


def test_without_slurm_its_commands_are_asked_for(tmp_path: Path, shell: Path) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm`")
    (tmp_path / "gpu.toml").write_text("gpus = 1", encoding="utf-8")
    refused(
        bench(*words(tmp_path, "--slurm", tmp_path / "gpu.toml")), 2, "no sbatch on this machine", 'cluster = "local"'
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nobody"])
def test_an_address_without_a_cluster_is_refused_in_moments(address: str, tmp_path: Path) -> None:
    if ":" not in address:
        pytest.importorskip("ray", reason="the extra `ray`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started, given = time.monotonic(), address.format(port=port)
    answer = bench(*words(tmp_path, "--ray", given))
    refused(answer, 2, f"cannot reach a Ray cluster at '{given}' (", "start one with `ray start --head`")
    assert time.monotonic() - started < 30
    assert not (tmp_path / "runs").exists()


def test_a_machine_that_does_not_see_folder_or_data_says_so(finished: Run, tmp_path: Path) -> None:
    folder = planned_again(finished, tmp_path / "here")
    refused(bench("work", tmp_path / "nowhere/grid", "unet-r0"), 2, "there is no run.json in", "nowhere/grid")
    record = json.loads((folder / "run.json").read_text())
    record["spec"]["data"] = f"folder:{tmp_path}/unmounted"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"there is no file or folder '.*/unmounted'; give an existing path"):
        _task(tmp_path / "nowhere/grid", (folder / "run.json").read_bytes(), ["unet-r0"], Settings("cpu"))
    assert not (tmp_path / "nowhere").exists()


def test_status_says_when_slurms_jobs_ended_without_results(finished: Run, tmp_path: Path, shell: Path) -> None:
    folder = planned_again(finished, tmp_path)
    (folder / "slurm").mkdir()
    (folder / "slurm/jobs.json").write_text('{"array": "7", "last": "8"}')
    put(shell / "squeue", "echo PENDING")
    assert "do not see" not in bench("status", "--out", tmp_path).out
    put(shell / "squeue", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    (line,) = (line for line in bench("status", "--out", tmp_path).out.splitlines() if line.startswith("ended "))
    assert f"Slurm's jobs left {len(undone_in(folder))} cells undone" in line
    assert f"see the logs in {folder / 'slurm'}; if there are none, its machines do not see this folder" in line
