"""Test-time augmentation: the sampler sees an image in the eight symmetries of the square."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from uqseg.errors import UsageError
from uqseg.noise import Noise
from uqseg.samples import Batch, Samples
from uqseg.wrappers.wrapper import Options, Wrapper, wrapper

VIEWS = 8


def turned(x: Tensor, view: int) -> Tensor:
    """x (…,H,W) in view 0 … 7: mirrored from view 4 on, then view mod 4 quarter turns."""
    return torch.rot90(x.flip(-1) if view >= 4 else x, view % 4, (-2, -1))


def turned_back(x: Tensor, view: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(view % 4), (-2, -1))
    return x.flip(-1) if view >= 4 else x


def turned_batch(batch: Batch, view: int) -> Batch:
    """The batch with images, masks and spacing turned."""
    spacing = batch.spacing.flip(1) if view % 2 else batch.spacing
    masks = None if batch.masks is None else turned(batch.masks, view)
    return replace(batch, images=turned(batch.images, view), masks=masks, spacing=spacing)


@wrapper("tta")
class TTA(Wrapper[Options]):
    """Test-time augmentation: samples from turned and mirrored views of the image, turned back.

    The distribution is the mixture of those of the views; nothing is averaged, which would blur samples whose noise
    lies in pixels. A finite support of K is asked for in each view: 8K samples. Otherwise each of n samples comes from
    a random view, the same for all cases, so that independent draws stay independent.
    """

    version, varies = 1, "input"

    @property
    def support(self) -> int | None:
        """The support inside, once for each view."""
        inner = self.sampler.describes.support
        return None if inner is None else VIEWS * inner

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """n samples over random views, or the support of every view."""
        if self.support is None:
            counts = Counter(int(VIEWS * noise.shared(k, (), "uniform")) for k in range(n))
        else:
            counts = Counter(dict.fromkeys(range(VIEWS), n))
        parts = [self.view(batch, view, counts[view], noise.named("view", view)) for view in sorted(counts)]
        if self.support is None and {part.drawn for part in parts} != {"independent"}:
            raise UsageError("wrapper 'tta': expected independent draws or a finite support inside; put it innermost")
        weights = [part.weights for part in parts if part.weights is not None]
        total = sum(counts.values())
        shares = [w * counts[view] / total for view, w in zip(sorted(counts), weights, strict=False)]
        return Samples(torch.cat([p.prob for p in parts], 1), torch.cat(shares, 1) if shares else None, parts[0].drawn)

    def predicted_presence(self, batch: Batch) -> Tensor | None:
        """The mean over the views."""
        shares = [super(TTA, self).predicted_presence(turned_batch(batch, view)) for view in range(VIEWS)]
        return None if shares[0] is None else torch.stack([s for s in shares if s is not None]).mean(0)

    def view(self, batch: Batch, view: int, n: int, noise: Noise) -> Samples:
        """Samples of one view, turned back."""
        samples = self.sampler.sample(turned_batch(batch, view), n, noise)
        return replace(samples, prob=turned_back(samples.prob, view))
