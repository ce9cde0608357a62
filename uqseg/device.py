"""Where and how precisely to compute: the device that a user names, its bf16, and the memory that was used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch

from uqseg.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]
"""auto: bf16 where the device computes it."""


def pick_device(name: str) -> torch.device:
    """The device called "auto", "cpu", "cuda" or "cuda:1"; UsageError where it does not exist."""
    if not isinstance(name, str):
        raise UsageError(f"device: expected auto, cpu or an available cuda device, got {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device.type} is neither")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: expected auto, cpu or an available cuda device, got '{name}' ({reason})") from error
    return device


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bf16: asked for, or "auto" on a device that has it in hardware."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def peak_memory(device: torch.device) -> int | None:
    """Bytes that were used at most: of the CUDA device, or by this process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
