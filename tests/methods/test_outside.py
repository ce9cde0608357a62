"""Methods from anybody's module or file, and the hash of the text that they are made of."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import discs
from uqseg import load_model, predict
from uqseg.errors import UsageError
from uqseg.methods import build, find, source_hash
from uqseg.training import save_method

METHOD = """
import torch
from uqseg.methods import Method
from layers import VALUE

class Constant(Method):
    "The same number everywhere."

    def __init__(self, options, **keywords):
        super().__init__(options, **keywords)
        self.logit = torch.nn.Parameter(torch.zeros(()))

    def loss(self, images, masks, read, noise):
        return self.logit.square().expand(len(images))

    def draw(self, images, n, noise):
        return torch.full((len(images), n, *images.shape[2:]), VALUE)
"""


def write(folder: Path, value: float) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "layers.py").write_text(f"VALUE = {value}\n")
    (folder / "mine.py").write_text(METHOD)
    return f"{folder / 'mine.py'}:Constant"


def value(label: str) -> float:
    return float(predict(build(label), discs(2).images, 3).prob.unique())


def test_a_file_beside_another_of_the_same_name_keeps_its_own_modules(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 0.25), write(tmp_path / "b", 0.75)
    before = list(sys.path), set(sys.modules)
    assert (value(first), value(second), value(first)) == (0.25, 0.75, 0.25)
    assert find(first) is find(first)
    assert sys.path == before[0]
    assert "layers" not in sys.modules


def test_the_hash_follows_every_file_that_the_class_is_made_of(tmp_path: Path) -> None:
    label = write(tmp_path, 0.25)
    first = source_hash(find(label))
    assert len(first) == 64
    (tmp_path / "unrelated.py").write_text("VALUE = 3\n")
    assert source_hash(find(label)) == first
    write(tmp_path, 0.5)
    imported_changed = source_hash(find(label))
    assert value(label) == 0.5
    (tmp_path / "mine.py").write_text(METHOD + "# a remark\n")
    assert len({first, imported_changed, source_hash(find(label))}) == 3
    write(tmp_path, 0.25)
    assert source_hash(find(label)) == first


def test_the_hash_is_the_same_in_another_folder_and_empty_for_this_tree(tmp_path: Path) -> None:
    a, b = (find(write(tmp_path / name, 0.25)) for name in "ab")
    assert a is not b
    assert source_hash(a) == source_hash(b)
    assert source_hash(find("unet")) == ""


def test_a_class_of_a_package_has_the_hash_of_what_it_imports_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "outer_pkg"
    write(package, 0.25)
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(METHOD.replace("from layers", "from .layers"))
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for text in ("VALUE = 0.25\n", "VALUE = 0.75\n"):
        (package / "layers.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("outer_pkg")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        hashes.append(source_hash(find("outer_pkg.mine:Constant")))
    assert hashes[0] != hashes[1]


def test_a_trained_method_of_a_file_is_loaded_by_its_label(tmp_path: Path) -> None:
    label = write(tmp_path / "a", 0.25)
    save_method(build(label), tmp_path / "fit")
    loaded = load_model(tmp_path / "fit", trust=label)
    assert loaded.label() == label
    assert torch.equal(predict(loaded, discs(1).images, 2).prob.unique(), torch.tensor([0.25]))


def test_a_subclass_does_not_take_the_name_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "wider.py").write_text(
        "from uqseg.methods.unet import SingleUNet\nclass Wider(SingleUNet):\n    'Wider.'\n"
    )
    label = f"{tmp_path / 'wider.py'}:Wider"
    assert build(label).label() == label
    assert len(source_hash(find(label))) == 64


def test_a_file_that_cannot_be_loaded_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import layers_that_nobody_has\n")
    (tmp_path / "typo.py").write_text("class Mine(:\n")
    for name, reason in (("broken", "layers_that_nobody_has"), ("typo", "SyntaxError"), ("none", "there is no file")):
        with pytest.raises(UsageError, match=reason) as error:
            find(f"{tmp_path / name}.py:Mine")
        assert f"{name}.py" in str(error.value)
        assert "\n" not in str(error.value)
