"""SegNet (Badrinarayanan 2017): an encoder and a decoder that un-pools with the encoder's pooling indices."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import Block, check_size, widths_of


class SegNet(nn.Module):
    """Features (B,width,H,W) of images (B,C,H,W), H and W divisible by 2^depth.

    channels: C; width: channels of the finest of `depth` levels, doubled at each level.
    """

    def __init__(self, channels: int, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        sizes = widths_of(width, depth)
        self.width, self.depth, self.deepest = width, depth, sizes[-1]
        self.down = nn.ModuleList(Block(i, o) for i, o in zip([channels, *sizes[:-1]], sizes, strict=True))
        self.up = nn.ModuleList(Block(i, o) for i, o in zip(sizes[::-1], [*sizes[-2::-1], width], strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """Features (B,width,H,W) of images float (B,C,H,W)."""
        return self.features(images)[1]

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the deepest level (B,deepest,h,w) and the last ones (B,width,H,W)."""
        check_size(images, self.depth)
        x, places = images, []
        for block in self.down:
            x, place = F.max_pool2d(block(x), 2, return_indices=True)
            places.append(place)
        deepest = x
        for block, place in zip(self.up, reversed(places), strict=True):
            x = block(F.max_unpool2d(x, place, [2, 2]))
        return deepest, x
