"""1×1 layers that a latent conditions: many samples of one image from one pass of the network before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import mask_head

CACHED = 2**19
"""Bytes that one layer can hand to the next in a processor's caches."""
WORTH_BF16 = 64
"""Channels from which on a product in bf16 takes less time than one in float32."""


def decode(pixels: Tensor, shift: Tensor, layers: Iterable[nn.Module], scale: Tensor | None = None) -> Tensor:
    """Logits (B,S,H,W): 1×1 `layers`, a ReLU before each, on pixels (B,width,H,W) · scale + shift (B,S,width)."""
    B, S = shift.shape[:2]
    x = pixels[:, None]
    if scale is not None:
        x = x * scale[..., None, None]
    x = (x + shift[..., None, None]).flatten(0, 1)
    for layer in layers:
        x = layer(F.relu_(x))
    return x.reshape(B, S, *x.shape[-2:])


def decode_in_cache(pixels: Tensor, shift: Tensor, layers: Iterable[nn.Module], scale: Tensor | None = None) -> Tensor:
    """`decode` on a processor, a few pixels of all samples at a time: what passes between the layers then never leaves
    its caches. The backward pass computes it again."""
    (B, S), (width, H, W) = shift.shape[:2], pixels.shape[1:]
    dtype = pixels.dtype if width >= WORTH_BF16 else torch.float32
    flat = pixels.to(dtype).permute(0, 2, 3, 1).reshape(B, H * W, width)
    scale = torch.ones_like(shift) if scale is None else scale
    weights = [part.to(dtype) for layer in layers for part in (layer.weight[:, :, 0, 0].t(), layer.bias)]  # type: ignore[index]
    with torch.autocast("cpu", enabled=False):
        logits: Tensor = _InCache.apply(flat, scale.to(dtype), shift.to(dtype), *weights)  # type: ignore[no-untyped-call]
    return logits.view(B, S, H, W)


class _InCache(torch.autograd.Function):
    """Logits (B,S,P) of pixels (B,P,width), scale and shift (B,S,width), and a weight and a bias for each layer."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, scale: Tensor, shift: Tensor, *weights: Tensor) -> Tensor:
        """Logits (B,S,P), a few pixels at a time; their activations are not kept."""
        ctx.save_for_backward(flat, scale, shift, *weights)
        logits = flat.new_empty(len(flat), shift.shape[1], flat.shape[1])
        for b, part in _InCache.pieces(flat, shift):
            activations = _InCache.activations(flat[b, part], scale[b], shift[b], weights[:-2])
            logits[b, :, part] = torch.addmm(weights[-1], activations[-1], weights[-2]).view(
                -1, logits[b, :, part].shape[1]
            )
        return logits

    @staticmethod
    def pieces(flat: Tensor, shift: Tensor) -> Iterator[tuple[int, slice]]:
        """Images, and slices of so few of their pixels that all samples' activations stay in the cache."""
        few = max(16, CACHED // (shift.shape[1] * shift.shape[2] * shift.element_size()))
        return product(range(len(flat)), (slice(first, first + few) for first in range(0, flat.shape[1], few)))

    @staticmethod
    def activations(pixels: Tensor, scale: Tensor, shift: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """What goes into each layer: (S·p,width) for pixels (p,width)."""
        x = [torch.addcmul(shift[:, None], pixels, scale[:, None]).relu_().flatten(0, 1)]
        for weight, bias in zip(weights[::2], weights[1::2], strict=True):
            x.append(torch.addmm(bias, x[-1], weight).relu_())
        return x

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all inputs from that of the logits (B,S,P), for which activations are computed again."""
        flat, scale, shift, *weights = ctx.saved_tensors
        to_flat = torch.empty_like(flat)
        to_scale, to_shift, *to_weights = (torch.zeros_like(t, dtype=torch.float32) for t in (scale, shift, *weights))
        for b, part in _InCache.pieces(flat, shift):
            pixels = flat[b, part]
            x = _InCache.activations(pixels, scale[b], shift[b], weights[:-2])
            g = upper[b, :, part].reshape(-1, 1)
            for layer in range(len(x) - 1, -1, -1):
                to_weights[2 * layer] += x[layer].t() @ g
                to_weights[2 * layer + 1] += g.sum(0)
                g = torch.ops.aten.threshold_backward(g @ weights[2 * layer].t(), x[layer], 0)
            g = g.view(len(shift[b]), *pixels.shape)
            to_shift[b] += g.sum(1)
            to_scale[b] += (g * pixels).sum(1)
            to_flat[b, part] = (g * scale[b, :, None]).sum(0)
        return to_flat, *(
            g.to(t.dtype) for g, t in zip((to_scale, to_shift, *to_weights), (scale, shift, *weights), strict=True)
        )


class ConditionedHead(nn.Module):
    """Logits (B,S,H,W) from features (B,width,H,W) and latents (B,S,latent), which scale and shift the first layer."""

    def __init__(self, width: int, latent: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.of_features = nn.Conv2d(width, hidden, 1)
        self.of_latent = nn.Linear(latent, 2 * hidden, bias=False)
        self.layers = nn.ModuleList([*(nn.Conv2d(hidden, hidden, 1) for _ in range(layers - 2)), mask_head(hidden)])

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """Logits (B,S,H,W) from features (B,width,H,W) and latents z (B,S,latent)."""
        pixels, (scale, shift) = self.of_features(features), self.of_latent(z).chunk(2, -1)
        function = decode if features.is_cuda else decode_in_cache
        return function(pixels, shift, self.layers, 1 + scale)
