"""Files are complete or absent, and a published folder is complete."""

import hashlib
from pathlib import Path

import pytest

from uqseg.errors import FileError
from uqseg.files import publish, read_json, sha256, write


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        write(path / name, text.encode())
    return path


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write(path, b"[1]")
    write(path, b"[1, 2]")
    assert read_json(path) == [1, 2]
    assert sha256(path) == hashlib.sha256(b"[1, 2]").hexdigest()
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write .*file/b"):
        write(tmp_path / "file" / "b", b"")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text("[1, ")
    for name, function in (("half.json", read_json), ("none.json", read_json), ("none.json", sha256)):
        with pytest.raises(FileError, match=rf"cannot read .*{name}"):
            function(tmp_path / name)


def test_publishing_moves_a_folder_to_its_place(tmp_path: Path) -> None:
    partial, final = folder(tmp_path / "partial", a="new"), tmp_path / "store" / "final"
    publish(partial, final)
    assert (final / "a").read_text() == "new"
    assert not partial.exists()


def test_a_valid_folder_is_kept_and_another_moved_aside(tmp_path: Path) -> None:
    final = folder(tmp_path / "final", a="old")
    publish(folder(tmp_path / "partial", a="new"), final)
    assert (final / "a").read_text() == "old"
    assert not (tmp_path / "partial").exists()
    publish(folder(tmp_path / "partial", a="new", b="more"), final)
    assert (final / "b").read_text() == "more"
    publish(folder(tmp_path / "partial", a="newest"), final, valid=lambda path: False)
    assert (final / "a").read_text() == "newest"
    aside = sorted(path for path in tmp_path.iterdir() if ".broken-" in path.name)
    assert [(path / "a").read_text() for path in aside] == ["old", "new"]
