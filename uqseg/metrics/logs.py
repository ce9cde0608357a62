"""What figures need of the logarithms of probabilities, each computed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**16
"""Samples times pixels that are worked on at a time: they stay in a processor's cache."""
TINY = torch.finfo(torch.float32).tiny
LOW, HIGH = (float(torch.tensor(p).log()) for p in (1e-6, 1 - 1e-6))


class Logs(NamedTuple):
    """Of p clipped to [1e-6, 1 - 1e-6]: Σ w_s log p_s and Σ w_s log(1 - p_s), float32 (B,P) each, and
    log Π_pixels p_s(y_r), float64 (B,S,R). Of p as it is: H(p̄) - Σ w_s H(p_s) in nats, float32 (B,P)."""

    yes: Tensor
    no: Tensor
    likelihood: Tensor
    information: Tensor


def logs(samples: Tensor, masks: Tensor, weights: Tensor, entropy: Tensor) -> Logs:
    """Logs of samples float32 (B,S,P) that weigh float64 (B,S), of masks bool (B,R,P), with H(p̄) float32 (B,P)."""
    B, S, P = samples.shape
    yes, no, information = (samples.new_empty(B, P) for _ in range(3))
    likelihood, share = weights.new_zeros(B, S, masks.shape[1]), weights.float()
    step = min(P, max(1, BLOCK // S))
    buffers = [samples.new_empty(S * step) for _ in range(4)]  # new memory for each block would take longer
    for b, at in ((b, slice(start, start + step)) for b in range(B) for start in range(0, P, step)):
        p, y = samples[b, :, at], masks[b, :, at]
        log_yes, log_no, q, gain = (x[: p.numel()].view(p.shape) for x in buffers)
        torch.sub(1, p, out=q)
        torch.clamp_min(p, TINY, out=log_yes).log_()
        torch.clamp_min(q, TINY, out=log_no).log_()
        torch.mul(p, log_yes, out=gain).add_(q.mul_(log_no)).add_(entropy[b, at])  # 0 where all samples are equal
        information[b, at] = share[b] @ gain
        yes[b, at] = share[b] @ log_yes.clamp_(LOW, HIGH)
        no[b, at] = share[b] @ log_no.clamp_(LOW, HIGH)
        marked = y.view(torch.uint8).amax(0).nonzero()[:, 0]  # numbers much faster than bool
        odds = log_yes.index_select(1, marked).sub_(log_no.index_select(1, marked))
        likelihood[b] += odds.double() @ y.index_select(1, marked).double().T
        likelihood[b] += log_no.sum(1, dtype=torch.float64)[:, None]  # where nobody marks anything, it is all
    return Logs(yes, no, likelihood, information)
