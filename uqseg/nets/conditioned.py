"""1×1 layers that a latent conditions: many samples of one image from one pass of the network before them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import mask_head

CACHED = 2**20
"""Numbers that one layer can hand to the next in a processor's caches."""
WORTH_BF16 = 32
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
    its caches."""
    (B, S), (width, H, W) = shift.shape[:2], pixels.shape[1:]
    dtype = pixels.dtype if width >= WORTH_BF16 else torch.float32
    shift, scale = shift.to(dtype), None if scale is None else scale.to(dtype)
    flat = pixels.to(dtype).permute(0, 2, 3, 1).reshape(B, H * W, width)
    products = [(layer.weight[:, :, 0, 0].t().to(dtype).contiguous(), layer.bias.to(dtype)) for layer in layers]  # type: ignore[index,union-attr,operator]
    logits, few = flat.new_empty(B, S, H * W), max(16, CACHED // (S * width))
    with torch.autocast("cpu", enabled=False):
        for b, first in product(range(B), range(0, H * W, few)):
            part = slice(first, first + few)
            scaled = flat[b, part] if scale is None else flat[b, part] * scale[b, :, None]
            x = (scaled + shift[b, :, None]).flatten(0, 1)
            for weight, bias in products:
                x = torch.addmm(bias, x.relu_(), weight)
            logits[b, :, part] = x.view(S, -1)
    return logits.view(B, S, H, W)


class ConditionedHead(nn.Module):
    """Logits (B,S,H,W) from features (B,width,H,W) and latents (B,S,latent), which scale and shift the first layer."""

    def __init__(self, width: int, latent: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.of_features = nn.Conv2d(width, hidden, 1)
        self.of_latent = nn.Linear(latent, 2 * hidden, bias=False)
        self.layers = nn.ModuleList([*(nn.Conv2d(hidden, hidden, 1) for _ in range(layers - 2)), mask_head(hidden)])

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        pixels, (scale, shift) = self.of_features(features), self.of_latent(z).chunk(2, -1)
        function = decode if features.is_cuda or torch.is_grad_enabled() else decode_in_cache
        return function(pixels, shift, self.layers, 1 + scale)
