"""Seeds from names: no global random state is read or written anywhere."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*names: object) -> int:
    """A 63-bit seed from the SHA-256 of the names, the same on every machine and in every order of calls."""
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*names: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `seed_of(*names)`."""
    return torch.Generator(device=device).manual_seed(seed_of(*names))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Module constructors draw from torch's global generator: seed it inside, leave it as found outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
