"""Other people's packages doing what this project does: each imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

PACKAGES = ("monai", "torchmetrics", "scikit-learn")
MODULES = {"scikit-learn": "sklearn"}


def missing(package: str) -> str | None:
    """Why `package` cannot be used here, or None."""
    try:
        import_module(MODULES.get(package, package))
        version(package)
    except (ImportError, PackageNotFoundError, AttributeError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def monai_unet(channels: Sequence[int]) -> nn.Module:
    """MONAI's BasicUNet of one input and one output channel: two convolutions 3×3 a level, `channels` of each of five
    levels, finest first."""
    from monai.networks.nets import BasicUNet

    features = (*channels, channels[0])
    network: nn.Module = BasicUNet(2, 1, 1, features=features, norm=("batch", {}), act="relu", upsample="deconv")
    return network


def monai_training_step(network: nn.Module) -> Callable[[Tensor, Tensor], None]:
    """A step of Adam on images (B,1,H,W) against masks float (B,1,H,W)."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step(images: Tensor, masks: Tensor) -> None:
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(images), masks).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def monai_dice(samples: Tensor, readers: Tensor) -> Tensor:
    """Dice (B,S,R) of hypotheses bool (B,S,H,W) with readers bool (B,R,H,W): MONAI's DiceMetric on all pairs."""
    from monai.metrics import compute_dice

    B, S, R = len(samples), samples.shape[1], readers.shape[1]
    a = samples[:, :, None].expand(-1, -1, R, -1, -1).flatten(0, 2)[:, None]
    b = readers[:, None].expand(-1, S, -1, -1, -1).flatten(0, 2)[:, None]
    dice: Tensor = compute_dice(a.float(), b.float(), ignore_empty=False)
    return dice.view(B, S, R)


def torchmetrics_ece(prob: Tensor, masks: Tensor) -> Tensor:
    """Expected calibration error, 15 bins, of prob (B,H,W) for the masks bool (B,R,H,W) of all readers and pixels."""
    from torchmetrics.functional.classification import binary_calibration_error

    repeated = prob[:, None].expand_as(masks)
    return binary_calibration_error(repeated.flatten(), masks.flatten().long(), n_bins=15, norm="l1")


def torchmetrics_iou(samples: Tensor, readers: Tensor) -> Tensor:
    """IoU (B,S,R) of hypotheses with readers, a call for each pair."""
    from torchmetrics.functional.classification import binary_jaccard_index

    pairs = [[[binary_jaccard_index(s, r.long()) for r in rs] for s in ss.long()] for ss, rs in zip(samples, readers)]  # noqa: B905
    return torch.tensor(pairs)


def sklearn_iou(samples: Tensor, readers: Tensor) -> NDArray[np.float64]:
    """IoU (B,S,R) of hypotheses with readers, a call for each pair."""
    from sklearn.metrics import jaccard_score

    a, b = samples.flatten(2).numpy(), readers.flatten(2).numpy()
    return np.array([[[jaccard_score(r, s, zero_division=1) for r in b[i]] for s in a[i]] for i in range(len(a))])


def sklearn_average_precision(scores: Tensor, positive: Tensor) -> NDArray[np.float64]:
    """Average precision (B,) over pixels of scores (B,N) for positive bool (B,N), a call for each image."""
    from sklearn.metrics import average_precision_score

    return np.array([average_precision_score(p.numpy(), s.numpy()) for s, p in zip(scores, positive, strict=True)])
