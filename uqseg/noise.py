"""Noise: the one source of randomness, in training and in sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from uqseg.seeds import generator

Distribution = Literal["normal", "uniform"]
Shape = tuple[int, ...]


def _draw(shape: Shape, distribution: Distribution, source: torch.Generator) -> Tensor:
    """float32 of `shape`: standard normal, or uniform in [0,1)."""
    function = torch.randn if distribution == "normal" else torch.rand
    return function(shape, generator=source, device=source.device)


class Noise:
    """Random numbers of B cases; what a case gets depends neither on its batch nor on how cases are split.

    Made by `for_cases` (sampling) or `for_step` (training). Repeated calls go on drawing.
    """

    def __init__(
        self, draw: Callable[[Shape, Distribution], Tensor], names: tuple[object, ...], device: torch.device
    ) -> None:
        self._draw, self._names, self.device = draw, names, device
        self._sources: Sequence[torch.Generator] | None = None
        self._shared: dict[int, torch.Generator] = {}

    @classmethod
    def for_cases(cls, keys: Sequence[object], *names: object, device: str | torch.device = "cpu") -> Noise:
        """For sampling: each case has the generator of (*names, its key)."""
        return cls._of_sources([generator(*names, key, device=device) for key in keys], names, torch.device(device))

    @classmethod
    def _of_sources(cls, sources: Sequence[torch.Generator], names: tuple[object, ...], device: torch.device) -> Noise:
        def draw(shape: Shape, distribution: Distribution) -> Tensor:
            rows = [_draw(shape, distribution, source) for source in sources]
            return torch.stack(rows) if rows else torch.empty(0, *shape, device=device)

        noise = cls(draw, names, device)
        noise._sources = sources
        return noise

    @classmethod
    def for_step(
        cls, batch: int, *names: object, rows: slice | None = None, device: str | torch.device = "cpu"
    ) -> Noise:
        """For training: the generator of `names` draws for all `batch` cases of the step; `rows` of them are kept."""
        source = generator(*names, device=device)

        def draw(shape: Shape, distribution: Distribution) -> Tensor:
            return _draw((batch, *shape), distribution, source)[rows or slice(None)]

        return cls(draw, names, torch.device(device))

    def of_cases(self, shape: Shape, distribution: Distribution = "normal") -> Tensor:
        """Numbers of each case's own: float32 (B,*shape)."""
        return self._draw(shape, distribution)

    def shared(self, sample: int, shape: Shape, distribution: Distribution = "normal") -> Tensor:
        """Numbers of sample number `sample`, the same for every case and batch: float32 `shape`.

        With them one draw of a network's weights serves all images.
        """
        if sample not in self._shared:
            self._shared[sample] = generator("shared", *self._names, sample, device=self.device)
        return _draw(shape, distribution, self._shared[sample])

    def rows(self, part: slice) -> Noise:
        """The noise of some of the cases; its shared numbers begin anew, alike in every part.

        Raises ValueError for the noise of a training step, whose rows are chosen by `for_step`.
        """
        if self._sources is None:
            raise ValueError("noise: expected that of for_cases, got that of a training step, which has no rows")
        return self._of_sources(self._sources[part], self._names, self.device)

    def named(self, *names: object) -> Noise:
        """The same noise of the cases (sampling only), with shared numbers of these names' own."""
        return self._of_sources(self._sources, (*self._names, *names), self.device)
