"""What the pages in docs/ tell the reader to type works: every command has its options, and those of two pages run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from bench.cli import app
from tests.bench import synthetic
from tests.bench.conftest import bench

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks without a language that begin with the program's name."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
    return [line.removeprefix("uqseg ") for line in lines if line.startswith("uqseg ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_its_options(page: Path) -> None:
    group = typer.main.get_command(app)
    assert commands(page)
    for command in commands(page):
        name, *words = shlex.split(command)
        known = {o for p in group.commands[name].params for o in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
        assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= known, command
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_tutorial_of_a_method_leads_to_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = commands(ROOT / "docs/method.md")
    assert [command.split()[0] for command in given] == ["new", "check", "list", "run", "claim"]
    outputs = []
    for command in given:
        answer = bench(*shlex.split(command), *(["--device", "cpu", "--no-gallery"] if command[:3] == "run" else []))
        assert answer.code == 0, f"{command}: {answer.err}"
        outputs.append(answer.out)
    assert "Next: python -m bench check my_ssn.py:MySSN" in outputs[0]
    assert outputs[1].count("ok  ") == 10
    assert "| my_ssn.py:MySSN[width=4] |" in (tmp_path / "runs/first/report.md").read_text(encoding="utf-8")
    assert "verdict" in outputs[4]


def test_the_claims_of_the_page_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {name: synthetic.METHODS[name] for name in ("segnet", "unet", "ensemble", "mcdropout")}
    methods |= {"probunet": methods["mcdropout"], "mine": methods["unet"]}
    folder = synthetic.write(tmp_path / "reports/lidc-slices", methods=methods, gallery=False, source="lidc-slices")
    run = folder / "run.json"
    run.write_text(run.read_text(encoding="utf-8").replace('"simulated": true', '"simulated": false'), encoding="utf-8")
    page = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    (tmp_path / "paper.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in commands(ROOT / "docs/claims.md"):
        answer = bench(*shlex.split(command))
        assert answer.code == 0, f"{command}: {answer.err}"
    assert {file.name for file in (tmp_path / "verdicts").iterdir()} == {
        f"{name}.{ending}" for name in ("seed2020", "levels", "goals", "paper") for ending in ("md", "csv")
    }
    assert "What our paper says" in (tmp_path / "verdicts/paper.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("(n,))).sigmoid()", "(n,))).sigmoid()[:, 0]"), "draw: expected (2,4,64,64) in [0,1], got (2,64,64)"),
        (("(n,))).sigmoid()", "(n,)))"), "draw: expected (2,4,64,64) in [0,1], got numbers from -"),
        (("noise.of_cases((n,))", "torch.randn(len(images), n)"), "draw: differs for the same images and noise"),
        (("(n,))", "(n,)) * 0"), "draw: another seed gives the same samples after training"),
        (("return -likelihood /", "return -likelihood.mean() /"), "expected one value for each image, (2,), got ()"),
        (("return -likelihood /", "return -likelihood * likelihood.mean() /"), "the other images of its batch"),
        (("random_reader(read, noise)", "masks[:, 2, 0, 0].long()"), "a reader who has not read the image"),
        (("random_reader(read, noise)", "torch.full((len(masks),), 1)"), "a reader who has not read the image"),
        (("self.head = ", "self.spare = torch.nn.Linear(3, 3)\n        self.head = "), "no gradient reaches spare"),
        (("mean[:, None] +", "1 / 0 +"), "ZeroDivisionError: division by zero (broken.py, line"),
    ],
)  # fmt: skip
def test_what_a_method_does_not_keep_is_said_in_one_line(tmp_path: Path, change: tuple[str, str], words: str,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    bench("new", "method", "broken")
    text = Path("broken.py").read_text(encoding="utf-8")
    assert change[0] in text
    Path("broken.py").write_text(text.replace(*change), encoding="utf-8")
    answer = bench("check", "broken.py:Broken")
    assert answer.code == 1
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_a_file_without_its_class_is_answered_with_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench("new", "method", "my_ssn")
    assert "method 'my_ssn.py': give FILE:Class, such as my_ssn.py:MySSN" in bench("check", "my_ssn.py").err
    assert "my_ssn.py has no class 'MySNN'; choose one of MySSN" in (missing := bench("check", "my_ssn.py:MySNN").err)
    other = bench("check", "my_ssn.py:MySSNOptions").err
    assert "expected a subclass of uqseg.methods.Method, got MySSNOptions" in other
    assert "outside_" not in missing + other
    assert "such as none.py:Class" in bench("run", "--methods", "none.py", "--data", "nowhere").err


def test_a_file_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("new", "method", "unet_of_mine").out.startswith("Wrote unet_of_mine.py with the class UnetOfMine.")
    assert "there is already a file" in bench("new", "method", "unet_of_mine").err
    for name in ("3x", "class", "a-b"):
        assert bench("new", "method", name).code == 2
    assert [f.name for f in tmp_path.iterdir()] == ["unet_of_mine.py"]


def test_the_pages_python_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(images / "images/c00.png", "ct.png")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/predict.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(code[0], {})
    assert (tmp_path / "ct-uncertainty.png").stat().st_size > 0
