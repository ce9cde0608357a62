"""SegNet: one network without skip connections, one probability map."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from uqseg.methods.method import method
from uqseg.methods.unet import PresenceNetwork, PresenceOptions
from uqseg.nets.segnet import SegNet


class SegNetOptions(PresenceOptions):
    """Options of a single network, whose depth counts poolings."""

    depth: int = Field(4, ge=1, le=10, description="number of poolings")


@method("segnet")
class SingleSegNet(PresenceNetwork[SegNetOptions]):
    """SegNet: one encoder and decoder that un-pools with the pooling indices, one probability map."""

    Options = SegNetOptions
    version, small = 1, {"width": 4, "depth": 3}

    def make_network(self) -> Any:
        """A SegNet instead of the U-Net."""
        return SegNet(self.channels, self.options.width, self.options.depth)
