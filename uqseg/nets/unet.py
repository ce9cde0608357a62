"""U-Net (Ronneberger 2015): encoder, decoder and skip connections; width, depth and places of dropout are options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Placement = Literal["none", "inner", "all"]
Drop = Callable[[Tensor], Tensor]


def widths_of(width: int, depth: int) -> list[int]:
    """Channels of each level: `width`, doubled at every level."""
    return [width * 2**level for level in range(depth)]


def check_size(images: Tensor, poolings: int) -> None:
    """Raise ValueError unless H and W can be halved `poolings` times."""
    height, width = images.shape[-2:]
    step = 2**poolings
    if height % step or width % step:
        raise ValueError(
            f"images: expected height and width divisible by {step} (this network halves them {poolings} times), "
            f"got {height}×{width}; crop or pad the images, or choose a smaller depth"
        )


def mask_head(width: int) -> nn.Conv2d:
    """The 1×1 layer from features to one logit; it starts at 1 % foreground (Lin 2017), near what masks hold."""
    head = nn.Conv2d(width, 1, 1)
    nn.init.constant_(head.bias, math.log(0.01 / 0.99))  # type: ignore[arg-type]
    return head


def channels_last(x: Tensor) -> Tensor:
    """x (B,C,H,W) with channels innermost and no gaps. The gradient of a concatenation is a view with gaps, from which
    the backward pass of the interpolation would take four times as long."""
    return x.contiguous(memory_format=torch.channels_last)


class Block(nn.Sequential):
    """Convolutions 3×3, each with normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, convolutions: int = 2) -> None:
        layers: list[nn.Module] = []
        for k in range(convolutions):
            layers += [
                nn.Conv2d(outputs if k else inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),  # nothing else needs what it gets
            ]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B,outputs,H,W) from x (B,inputs,H,W); evaluated without gradients, with the normalisation folded in."""
        if self.training or torch.is_grad_enabled():
            return super().forward(x)  # type: ignore[no-any-return,no-untyped-call]
        for weight, bias in self.folded():
            x = F.relu_(F.conv2d(x, weight, bias, padding=1))
        return x

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution with its normalisation multiplied in, as evaluation needs them: the
        normalisation then costs no pass over the features."""
        layers: list[nn.Module] = list(self)
        pairs = []
        for conv, norm in zip(layers[::3], layers[1::3], strict=True):
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator]
            pairs.append((conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale))  # type: ignore[operator]
        return pairs


class UNet(nn.Module):
    """Features (B,width,H,W) of images (B,C,H,W), H and W divisible by 2^(depth−1).

    channels: C; width: channels of the finest level, doubled at each of `depth` levels (or `levels` names them all);
    width 64 and depth 5 is the classical network (64…1024). dropout: after the blocks of no level, of the two deepest
    encoder levels ("inner"), or of all levels ("all").
    """

    def __init__(
        self,
        channels: int,
        width: int = 16,
        depth: int = 5,
        *,
        dropout: Placement = "none",
        levels: list[int] | None = None,
        convolutions: int = 2,
    ) -> None:
        super().__init__()
        sizes = levels or widths_of(width, depth)
        self.width, self.deepest, self.depth, self.dropout = sizes[0], sizes[-1], len(sizes), dropout
        inputs = [channels, *sizes[:-1]]
        self.down = nn.ModuleList(Block(i, o, convolutions) for i, o in zip(inputs, sizes, strict=True))
        self.up = nn.ModuleList(
            Block(deep + skip, skip, convolutions) for deep, skip in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )

    def drops_at(self, level: int) -> bool:
        """Whether dropout follows the encoder block of `level` (0 is the finest)."""
        return self.dropout == "all" or (self.dropout == "inner" and level >= self.depth - 2)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """Features (B,width,H,W) of images float (B,C,H,W); `drop` is applied where the network drops."""
        return self.tail(*self.trunk(images), drop)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the deepest level (B,deepest,h,w) and the last (B,width,H,W) of a network without dropout."""
        skips, start = self.trunk(images)
        return skips[-1], self.tail(skips, start, None)

    def trunk(self, images: Tensor) -> tuple[list[Tensor], int]:
        """The encoder as far as no dropout changes it: its skips, finest first, and the next level to compute."""
        check_size(images, self.depth - 1)
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
            if self.drops_at(level):
                return skips, level + 1
        return skips, self.depth

    def tail(self, skips: list[Tensor], start: int, drop: Drop | None) -> Tensor:
        """The rest of the network from the trunk's skips; `drop` is applied at every place of dropout."""

        def dropped(x: Tensor, level: int) -> Tensor:
            return drop(x) if drop is not None and self.drops_at(level) else x

        skips = [*skips[:-1], dropped(skips[-1], start - 1)]
        for level in range(start, self.depth):
            skips.append(dropped(self.down[level](F.max_pool2d(skips[-1], 2)), level))
        x = skips[-1]
        for level, block in zip(range(self.depth - 2, -1, -1), self.up, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if x.requires_grad:
                x.register_hook(channels_last)  # type: ignore[no-untyped-call]
            x = dropped(block(torch.cat([skips[level], x], 1)), level)
        return x

    def tails(self, skips: list[Tensor], start: int, drops: Iterable[Drop]) -> Iterator[Tensor]:
        """`tail` in evaluation, once for each of `drops`: what they share is computed once.

        A decoder block's first convolution is linear in [skip; deeper features]: where no dropout touches the skip,
        its part is the same in every pass.
        """
        folded = [block.folded() for block in self.up]  # type: ignore[operator]
        shared = []  # finest first
        for skip, ((weight, bias), *_) in zip(skips[:-1], reversed(folded), strict=False):
            shared.append(F.conv2d(skip, weight[:, : skip.shape[1]], bias, padding=1))

        def one(drop: Drop) -> Tensor:
            deep = {start - 1: drop(skips[-1])}
            for level in range(start, self.depth):
                x = self.down[level](F.max_pool2d(deep[level - 1], 2))
                deep[level] = drop(x) if self.drops_at(level) else x
            x = deep[self.depth - 1]
            for level, ((weight, bias), *others) in zip(range(self.depth - 2, -1, -1), folded, strict=True):
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
                if level < len(shared):
                    x = F.conv2d(x, weight[:, shared[level].shape[1] :], padding=1).add_(shared[level])
                else:
                    x = F.conv2d(torch.cat([deep[level], x], 1), weight, bias, padding=1)
                for kernel, shift in others:
                    x = F.conv2d(x.relu_(), kernel, shift, padding=1)
                x = drop(x.relu_()) if self.drops_at(level) else x.relu_()
            return x

        return map(one, drops)
