"""The package can be imported where a system lacks modules that only some systems have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys
import torch  # imports them itself where they exist
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for root in ("uqseg", "bench", "baselines"):
    for module in pkgutil.walk_packages(importlib.import_module(root).__path__, root + "."):
        if "test_" not in module.name:
            importlib.import_module(module.name)
"""


def test_everything_imports_without_fcntl_and_resource() -> None:
    answer = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
