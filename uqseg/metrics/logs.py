"""What figures need of the logarithms of probabilities, each computed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from uqseg.metrics.maps import blocks

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
    pieces = blocks(samples)
    buffers = [torch.empty_like(samples[pieces[0]]) for _ in range(4)]  # new memory for each block would take longer
    for b, every, at in pieces:
        p, y, w = samples[b, every, at], masks[b, :, at], share[b]
        log_yes, log_no, q, gain = (x[:, : p.shape[1]] for x in buffers)
        torch.sub(1, p, out=q)
        torch.clamp_min(p, TINY, out=log_yes).log_()
        torch.clamp_min(q, TINY, out=log_no).log_()
        torch.mul(p, log_yes, out=gain).add_(q.mul_(log_no)).add_(entropy[b, at])  # 0 where all samples are equal
        torch.mv(gain.T, w, out=information[b, at])
        torch.mv(log_yes.clamp_(LOW, HIGH).T, w, out=yes[b, at])
        torch.mv(log_no.clamp_(LOW, HIGH).T, w, out=no[b, at])
        marked = y.view(torch.uint8).amax(0).nonzero()[:, 0]  # numbers much faster than bool
        log_no_there = log_no.index_select(1, marked)
        odds = log_yes.index_select(1, marked).sub_(log_no_there)
        likelihood[b] += odds.double() @ y.index_select(1, marked).double().T
        # Where nobody marks anything, log(1 - p) is all; in float32 its sum is as exact as its terms, which are all
        # negative, but not where the odds take most of it away.
        likelihood[b] += (log_no_there.double().sum(1) + log_no.index_fill_(1, marked, 0).sum(1))[:, None]
    return Logs(yes, no, likelihood, information)
