"""One training over several processes, as `torchrun` starts them: each takes its rows of every batch.

The batch, its noise and the statistics of batch normalisation are those of one process, so that the weights are, too,
but for rounding: sums are taken in another order, and a pixel at the border of an augmented mask may fall on its other
side.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from uqseg.methods import Method


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together; alone, everything here does nothing."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> Ranks:
        """Of torch.distributed, where its group of processes is initialised."""
        if dist.is_available() and dist.is_initialized():
            return Ranks(dist.get_rank(), dist.get_world_size())
        return Ranks()

    def rows(self, batch: int) -> slice:
        """The rows of a batch that this process takes: as many as the others, or one more."""
        return slice(batch * self.rank // self.size, batch * (self.rank + 1) // self.size)

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size > 1:
            numbers = numbers.clone()
            dist.all_reduce(numbers)
            numbers /= self.size
        return numbers

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true in any process."""
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's tensors."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)


class _Loss(nn.Module):
    """A method's loss as the forward pass that DistributedDataParallel asks for."""

    def __init__(self, method: Method[Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, *batch: Any) -> Tensor:
        """The method's loss (B,) of images, masks, read and noise."""
        return self.method.loss(*batch)


@contextmanager
def together(method: Method[Any], ranks: Ranks) -> Iterator[Any]:
    """The loss of `method`, whose backward pass leaves the mean gradient of all processes in each of them."""
    if ranks.size == 1:
        yield method.loss
        return
    norms = [layer for layer in method.modules() if type(layer) is nn.BatchNorm2d]
    for layer in norms:
        layer.__class__ = BatchNorm2d
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # older torch has no other name
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of single weights: nothing to gain
            yield nn.parallel.DistributedDataParallel(
                _Loss(method), broadcast_buffers=False, find_unused_parameters=True
            )
    finally:
        for layer in norms:
            layer.__class__ = nn.BatchNorm2d


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the rows of all processes, on any device; torch's refuses the processor."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B,C,H,W) normalised, in training by mean and variance over all processes' rows."""
        if not self.training:
            return super().forward(x)
        numbers = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(numbers, (0, 2, 3), correction=0)
        n, var, mean = numbers.new_tensor([numbers[:, 0].numel()], dtype=torch.float64), var.double(), mean.double()
        sums, squares, count = _Sum.apply(torch.cat([n * mean, n * (var + mean.square()), n])).split(  # type: ignore[no-untyped-call]
            [len(mean), len(mean), 1]
        )
        mean = sums / count
        var = (squares / count - mean.square()).clamp_min(0)
        self._track(mean.detach(), (var * count / (count - 1)).detach())
        centre, scale, bias = (
            each.to(numbers.dtype)[:, None, None] for each in (mean, (var + self.eps).rsqrt() * self.weight, self.bias)
        )
        return torch.addcmul(bias, numbers - centre, scale).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Take the batch's mean and unbiased variance into the running ones, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        for running, now in ((self.running_mean, mean), (self.running_var, var)):
            running.lerp_(now.to(running.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Its gradient is the sum of theirs: each one's loss depends on it."""

    @staticmethod
    def forward(context: Any, numbers: Tensor) -> Tensor:
        """The sum over the processes, the same in each."""
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """The sum of the processes' gradients."""
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
