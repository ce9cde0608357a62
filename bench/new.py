"""New files to begin with: a method of one's own that works as it is."""

from __future__ import annotations

import keyword
from importlib.resources import files
from pathlib import Path

from uqseg.errors import UsageError
from uqseg.files import write

VOWELS = set("aeiouy")


def class_name(name: str) -> str:
    """MySSN of my_ssn: words without a vowel are abbreviations."""
    return "".join(w.capitalize() if VOWELS & set(w) else w.upper() for w in name.lower().split("_") if w)


def new_method(name: str, folder: Path) -> tuple[Path, str]:
    """Write folder/NAME.py with a method; the file, and its class. UsageError for a name that cannot be or is taken."""
    if not name.isidentifier() or keyword.iskeyword(name) or not class_name(name).isidentifier():
        raise UsageError(f"new method: expected a name such as my_ssn (letters, digits and _), got '{name}'.")
    file = folder / f"{name}.py"
    if file.exists():
        raise UsageError(f"new method: there is already a file '{file}'; choose another name.")
    text = (files("bench") / "templates/method.py").read_text(encoding="utf-8")
    write(file, text.replace("NewMethod", class_name(name)).encode())
    return file, class_name(name)
