"""Seeds come from names, and building draws nothing from the global state."""

import torch

from uqseg.seeds import generator, seed_of, seeded


def test_seed_is_a_fixed_function_of_the_names() -> None:
    assert seed_of("cell", 1) == seed_of("cell", "1")
    assert seed_of("ab", "c") != seed_of("a", "bc")
    assert 0 <= seed_of("cell") < 2**63
    assert torch.equal(torch.rand(3, generator=generator("a")), torch.rand(3, generator=generator("a")))


def test_seeded_leaves_the_global_state_as_found() -> None:
    before = torch.random.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    with seeded(3):
        assert torch.equal(first, torch.rand(2))
    assert torch.equal(before, torch.random.get_rng_state())
