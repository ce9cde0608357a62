"""Seeds from names: no global random state is read or written anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def digest_of(*names: object) -> bytes:
    """The SHA-256 of the names: 32 bytes, the same on every machine."""
    return hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()


def seed_of(*names: object) -> int:
    """A 63-bit seed from the SHA-256 of the names, the same on every machine and in every order of calls."""
    return int.from_bytes(digest_of(*names)[:8], "big") >> 1


def generator(*names: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `seed_of(*names)`."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*names))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Module constructors draw from torch's global generator: seed it inside, restore its state afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
