"""PHiSeg (Baumgartner 2019): a hierarchy of latent maps, coarse to fine, from which alone the mask is decoded."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from uqseg.methods.losses import cross_entropy, gaussian_kl, random_reader
from uqseg.methods.method import Method, Options, Widths, method
from uqseg.nets.hierarchy import GaussianMap, LatentHierarchy, Likelihood
from uqseg.noise import Noise


class PHiSegOptions(Options):
    """Options of the encoders and of their latent maps."""

    levels: Widths = Field(
        (16, 32, 64, 96, 96, 96), min_length=2, description="channels of each level, finest first (32…192 in the paper)"
    )
    latents: int = Field(
        4, ge=2, le=10, description="coarsest levels that have a latent map; the finest must be at 1/4 size"
    )
    latent: int = Field(2, ge=1, le=1000, description="channels of each latent map")
    beta: float = Field(1.0, ge=0, description="weight of the KL against the cross-entropy summed over pixels")

    @model_validator(mode="after")
    def _quarter_size(self) -> PHiSegOptions:
        if len(self.levels) - self.latents != 2:
            raise ValueError(
                f"expected two levels more than latents, got {len(self.levels)} levels, {self.latents} latents"
            )
        return self


@method("phiseg")
class PHiSeg(Method[PHiSegOptions]):
    """PHiSeg: latent maps at several scales, drawn from coarse to fine, from which the mask is decoded."""

    Options = PHiSegOptions
    version, small = 1, {"levels": (4, 4, 4, 4), "latents": 2}

    def __init__(self, options: PHiSegOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        levels, latents, latent = list(options.levels), options.latents, options.latent
        self.prior = LatentHierarchy(channels, levels, latents, latent)
        self.posterior = LatentHierarchy(channels + 1, levels, latents, latent)
        self.likelihood = Likelihood(levels[:latents], latent)
        self.terms: dict[str, float] = {}

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Negative ELBO of a random reader's mask: Σ_levels cross-entropy of the summed logits + β 4^level KL.

        The prior is run on the posterior's latents. One nat of a coarser level counts more, as it decides more pixels.
        """
        target = masks[torch.arange(len(images), device=images.device), random_reader(read, noise)]

        def draw(level: int, q: GaussianMap) -> Tensor:
            return q.mean + noise.of_cases(tuple(q.mean.shape[1:])) * (0.5 * q.log_variance).exp()

        inputs = torch.cat([images, target[:, None].to(images.dtype) - 0.5], 1)
        posterior, latents = self.posterior(self.posterior.encode(inputs), draw)
        prior, _ = self.prior(self.prior.encode(images), lambda level, _: latents[level])
        kl = [gaussian_kl(*q, *p).sum((1, 2, 3)) for q, p in zip(posterior, prior, strict=True)]
        entropy = [cross_entropy(sums.squeeze(1), target).sum((1, 2)) for sums in self.likelihood(latents)][::-1]
        self.terms = {f"kl_{k}": float(term.detach().mean()) for k, term in enumerate(kl)}
        self.terms |= {f"cross_entropy_{k}": float(term.detach().mean()) for k, term in enumerate(entropy)}
        loss: Tensor = sum(entropy) + self.options.beta * sum(4**k * term for k, term in enumerate(kl))
        return loss

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W), each of latent maps drawn from the prior, coarsest first."""
        features = self.prior.encode(images)

        def draw(level: int, p: GaussianMap) -> Tensor:
            return p.mean + noise.of_cases(tuple(p.mean.shape[1:])) * (0.5 * p.log_variance).exp()

        samples = [self.likelihood(self.prior(features, draw)[1])[-1] for _ in range(n)]
        return torch.cat(samples, 1).sigmoid_()

    def watch(self) -> dict[str, float]:
        """The ELBO's terms per level in nats per image, 0 the finest."""
        return self.terms
