"""Files that somebody else made run no code, write nowhere else, and say nothing to the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.console import show
from bench.runs import results, spec
from tests.bench import synthetic
from tests.bench.conftest import bench, options, results_in, write_set
from uqseg import load_model
from uqseg.errors import FileError, UsageError
from uqseg.methods import build
from uqseg.training import save_method

NET = """
from pathlib import Path
Path(r"{sign}").touch()
from uqseg.methods.unet import SingleUNet
class Net(SingleUNet):
    \"\"\"A method from outside.\"\"\"
"""


def code(folder: Path) -> tuple[str, Path]:
    """The label of a method in a file that leaves a sign when it is run, and the sign."""
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(NET.format(sign=folder / "ran"))
    return f"{folder / 'net.py'}:Net", folder / "ran"


def test_weights_run_no_code_that_the_caller_does_not_name(tmp_path: Path) -> None:
    label, sign = code(tmp_path / "code")
    save_method(build("unet", width=4, depth=2), tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())
    for hostile in (label, "antigravity:fly", "elsewhere/net.py:Other", "os.path:join"):
        (tmp_path / "model.json").write_text(json.dumps(model | {"method": hostile}))
        for trust in ((), "some.module:Net", ["net.py:Another"]):
            with pytest.raises(UsageError, match=r"would run code from outside .* --trust"):
                load_model(tmp_path, trust=trust)
    assert not sign.exists()
    assert "antigravity" not in sys.modules
    # The file lies in another folder than where the weights were trained: the caller's is meant.
    (tmp_path / "model.json").write_text(json.dumps(model | {"method": "/home/of/another/net.py:Net"}))
    assert type(load_model(tmp_path, trust=label)).__name__ == "Net"
    assert sign.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"options": {"width": 4, "depth": 60}}, "its options ask for|cannot use .*model.json"),
        ({"options": {"width": 4096, "depth": 2}}, "its options ask for"),
        ({"options": {"width": "wide"}}, "valid integer"),
        ({"options": [1]}, "cannot use .*model.json"),
        ({"channels": 0}, "channels: expected a whole number"),
        ({"channels": "1"}, "channels: expected a whole number"),
        ({"method": 3}, "cannot use .*model.json|unknown method '3'"),
        ({"method": None}, "cannot use .*model.json|unknown method"),
    ],
)
def test_hostile_descriptions_of_weights_are_one_line(change: dict[str, object], expected: str, tmp_path: Path) -> None:
    save_method(build("unet", width=4, depth=2), tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(model | change))
    with pytest.raises(FileError, match=expected) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's results, whose record names a plugin and a method of theirs."""
    root = tmp_path_factory.mktemp("foreign")
    label, _ = code(root / "code")
    folder = synthetic.write(root / "runs" / "theirs", gallery=False, patients=6)
    run = json.loads((folder / "run.json").read_text())
    run["spec"] = {"data": "toy", "methods": [label], "settings": {}, "plugins": [str(root / "code" / "net.py")]}
    (folder / "run.json").write_text(json.dumps(run | {"command": "bench run"}))
    return folder


@pytest.mark.parametrize("command", ["report", "compare", "claims", "publish", "status", "verify", "clean"])
def test_commands_that_read_a_run_run_nothing_of_it(command: str, foreign: Path, tmp_path: Path) -> None:
    words = {
        "report": [foreign],
        "compare": [foreign, foreign, "--to", tmp_path],
        "claims": [foreign, "--to", tmp_path],
        "publish": [foreign, "--to", tmp_path / "copy"],
    }.get(command, ["--out", foreign.parent])
    answer = bench(command, *words)
    assert answer.code in (0, 1, 2)
    assert "Traceback" not in answer.err
    assert not (foreign.parent.parent / "code" / "ran").exists()


def test_a_worker_runs_only_code_that_it_was_told_to_trust(tmp_path: Path) -> None:
    label, sign = code(tmp_path / "code")
    images, out = write_set(tmp_path / "set"), tmp_path / "runs"
    words = [*options(images, out, label), "--set", f"{label}.width=4"]
    answer = bench(*words)
    assert answer.code == 0, answer.err
    folder = results_in(out)
    cell = next(path.name for path in (folder / "cells").iterdir() if "Net" in path.name)
    (folder / "cells" / cell / "cell.json").unlink()
    sign.unlink()
    alone = [sys.executable, "-m", "bench", "work", str(folder), cell, "--device", "cpu"]
    refused = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"--trust {label}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not sign.exists()
    trusting = subprocess.run([*alone, "--trust", label], capture_output=True, text=True, check=False)
    assert trusting.returncode == 0, trusting.stderr
    assert sign.exists()


def test_what_of_a_run_comes_from_outside_is_read_off_its_labels() -> None:
    run = spec.Run(
        data="toy", recipe_name="toy", recipe=spec.recipe("toy"), seeds=(0,), samples=1, size=32, limit=spec.Limit(),
        methods=("unet[width=4]", "my.module:Net[width=4]+levels", '"a b/net.py:Net"+other.module:Wrap'),
        plugins=("plugin.py",),
    )  # fmt: skip
    assert spec.outside(run) == ("plugin.py", "my.module:Net", "a b/net.py:Net", "other.module:Wrap")


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "a/b", "..", ".hidden", "", "a\nb"])
def test_a_record_names_no_folder_outside_its_own(name: str, foreign: Path) -> None:
    run = json.loads((foreign / "run.json").read_text())
    for part in ("folder", "fit"):
        copy = json.loads(json.dumps(run))
        copy["cells"][0][part] = name
        (foreign.parent / "bad").mkdir(exist_ok=True)
        (foreign.parent / "bad" / "run.json").write_text(json.dumps(copy))
        with pytest.raises(FileError, match="expected names of folders"):
            results.read_run(foreign.parent / "bad")
    (foreign.parent / "bad" / "run.json").unlink()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raise RuntimeError('broken\\nin two lines')", "RuntimeError: broken in two lines"),
        ("import sys; print('leaving'); sys.exit(3)", "it ends the process when it is imported (exit 3)"),
        ("print('hello'); 1 / 0", "ZeroDivisionError: division by zero"),
        ("print('hello')", "has no class 'Net'"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("class Net: pass", "expected a subclass of uqseg.methods.Method"),
        ("raise MemoryError", "MemoryError"),
        ("class Odd(BaseException): pass\nraise Odd('x')", "Odd: x"),
    ],
)
def test_a_module_that_fails_when_it_is_imported_is_one_line(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for label in (f"{tmp_path / 'failing_module.py'}:Net", "failing_module:Net"):
        answer = bench("run", "--methods", label, "--data", "nowhere")
        assert answer.code == 2
        assert answer.out == ""
        assert answer.err.startswith("error: method ")
        assert answer.err.count("\n") == 1, answer.err
        assert expected in answer.err
        sys.modules.pop("failing_module", None)


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("case \x1b[31mred\x1b[0m\r\x07 \x9b2J \u202egnp.exe a\nb \udce9 é 128×128 \u4e2d")
    printed = capsys.readouterr().out
    assert printed == (r"case \x1b[31mred\x1b[0m\r\x07 \x9b2J \u202egnp.exe a\nb \udce9 é 128×128 " + "\u4e2d\n")
