"""Augmentation of a batch on its device: flips, rotation, small affine and intensity changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from uqseg.noise import Noise

SCALE = 0.15  # relative
SHEAR = 0.1
SHIFT = 0.06  # share of the image
GAIN = 0.15
OFFSET = 0.1  # of the range −1…1


def augment(images: Tensor, masks: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Images float (B,C,H,W) and masks bool (B,R,H,W) moved alike by one random affine map per image.

    Any rotation, flips, scale, shear and shift; then a random gain and offset of the intensity. What lies outside
    the image repeats its border in the image and is background in the masks.
    """
    B, (H, W) = len(images), images.shape[-2:]
    u = noise.of_cases((8,), "uniform") * 2 - 1
    angle, scale = math.pi * u[:, 0], 1 + SCALE * u[:, 1]
    flip = torch.where(u[:, 2] < 0, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            # Each side is from −1 to 1, whatever its length.
            torch.stack([cos * flip, (-sin + SHEAR * u[:, 3]) * (H / W), SHIFT * u[:, 4]], 1),
            torch.stack([sin * flip * (W / H), cos, SHIFT * u[:, 5]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [B, 1, H, W], align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved_masks = F.grid_sample(masks.to(images.dtype), grid, align_corners=False) >= 0.5
    gain, offset = 1 + GAIN * u[:, 6], OFFSET * u[:, 7]
    return moved * gain[:, None, None, None] + offset[:, None, None, None], moved_masks
