"""Probabilistic U-Net (Kohl 2018): a U-Net whose last layers see a latent drawn from a learned prior.

Options: a mixture as prior (Bhat 2022), balance of the KL's gradients (Hafner 2021), all readers in every step, and a
hurdle: whether a reader marks anything is then a Bernoulli of its own, and the latent learns outlines alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.losses import Readers, cross_entropy, gaussian_kl, random_reader, reader_weights, readers_who_drew
from uqseg.methods.method import Method, Options, Widths, method
from uqseg.nets.conditioned import decode, decode_in_cache
from uqseg.nets.latent import LatentEncoder, Mixture
from uqseg.nets.pooled import PooledHead
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise

COLLAPSED = 0.01
"""KL in nats below which a latent dimension carries nothing."""


class ProbUNetOptions(Options):
    """Options of the networks, of the latent space and of the loss."""

    levels: Widths = Field((16, 32, 64, 64), min_length=2, description="channels of each level, finest first")
    convolutions: int = Field(2, ge=1, le=10, description="3×3 convolutions per block (3 in the paper)")
    latent: int = Field(6, ge=1, le=1000, description="dimensions of the latent space")
    beta: float = Field(1.0, ge=0, description="weight of the KL against the cross-entropy summed over pixels")
    head: int = Field(
        3, ge=2, le=20, description="1×1 convolutions after the latent joins; one alone would nest the samples"
    )
    prior: Literal["gaussian", "mixture"] = Field("gaussian", description="the prior: one Gaussian, or `components`")
    components: int = Field(4, ge=2, le=100, description="Gaussians of a mixture prior")
    balance: float | None = Field(
        None, gt=0, lt=1, description="share of the KL that moves the prior, the rest moves the posterior; none: both"
    )
    readers: Readers = Field("one", description="masks in a step: of one random reader, or of all")
    hurdle: bool = Field(
        False, description="presence as a Bernoulli of its own; outlines from masks that mark something"
    )


@method("probunet")
class ProbUNet(Method[ProbUNetOptions]):
    """Probabilistic U-Net: a latent drawn from a learned prior decides among the masks readers would draw."""

    Options = ProbUNetOptions
    version, small = 1, {"levels": (4, 8, 8)}

    def __init__(self, options: ProbUNetOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        levels, width = list(options.levels), options.levels[0]
        components = options.components if options.prior == "mixture" else 1
        self.network = UNet(channels, levels=levels, convolutions=options.convolutions)
        self.prior = LatentEncoder(channels, levels, options.latent, options.convolutions, components)
        self.posterior = LatentEncoder(channels + 1, levels, options.latent, options.convolutions)
        # The first 1×1 layer is linear in [features; z]: one term per image, and one vector per sample.
        self.of_features = nn.Conv2d(width, width, 1)
        self.of_latent = nn.Linear(options.latent, width, bias=False)
        self.head = nn.ModuleList([*(nn.Conv2d(width, width, 1) for _ in range(options.head - 2)), mask_head(width)])
        if options.hurdle:
            self.presence = PooledHead(levels[-1] + width, 1)
        self.kl: list[float] = []

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Negative ELBO: cross-entropy summed over pixels + β KL(posterior ‖ prior); of all readers, their mean.

        With `hurdle` − log Bernoulli(marks anything), and the ELBO of those masks alone that mark something.
        """
        o = self.options
        deepest, features = self.network.features(images)
        image, slot, draws = self.pairs(read, noise)
        share = (1 / torch.bincount(image, minlength=len(images)))[image]  # of a pair in its image's loss
        loss = features.new_zeros(len(images), dtype=torch.float32)
        if o.hurdle:
            drew = readers_who_drew(masks, read) if o.readers == "all" else masks[image, slot].any(2).any(1).float()
            loss = cross_entropy(self.presence(deepest, features).squeeze(1), drew)
            marked = masks[image, slot].flatten(1).any(1)
            share = share * marked
            if marked.sum() > 1:  # fewer are no batch to normalise: the others go with them, and count nothing
                image, slot, draws, share = image[marked], slot[marked], draws[marked], share[marked]
        target = masks[image, slot]
        inputs = torch.cat([images[image], target[:, None].to(images.dtype) - 0.5], 1)
        posterior, prior = self.posterior(inputs), self.prior(images).rows(image)
        z = posterior.mean[:, 0] + draws * (0.5 * posterior.log_variance[:, 0]).exp()
        pixels = self.of_features(features)
        logits = decode(
            pixels if o.readers == "one" and not o.hurdle else pixels[image], self.of_latent(z)[:, None], self.head
        )
        elbo = cross_entropy(logits.squeeze(1), target).sum((1, 2)) + o.beta * self.divergence(posterior, prior, z)
        return loss.index_add(0, image, elbo * share)

    def pairs(self, read: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """Images and slots of the masks in this step (P,), with standard normal numbers (P,latent)."""
        if self.options.readers == "all":
            image, slot = reader_weights(read, noise).nonzero(as_tuple=True)
            return image, slot, noise.of_cases((read.shape[1], self.options.latent))[image, slot]
        image = torch.arange(len(read), device=read.device)
        return image, random_reader(read, noise), noise.of_cases((self.options.latent,))

    def divergence(self, posterior: Mixture, prior: Mixture, z: Tensor) -> Tensor:
        """KL(posterior ‖ prior) in nats (P,): exact between Gaussians, else estimated at z, a draw of the posterior.

        With `balance` a share of it moves the prior alone and the rest the posterior alone.
        """

        def kl(q: Mixture, p: Mixture, z: Tensor) -> Tensor:
            if p.mean.shape[1] > 1:
                return (q.log_density(z) - p.log_density(z))[:, None]
            return gaussian_kl(q.mean[:, 0], q.log_variance[:, 0], p.mean[:, 0], p.log_variance[:, 0])

        balance = self.options.balance
        if balance is None:
            divergence = kl(posterior, prior, z)
        else:
            to_prior, to_posterior = kl(posterior.detach(), prior, z.detach()), kl(posterior, prior.detach(), z)
            divergence = balance * to_prior + (1 - balance) * to_posterior
        self.kl = divergence.detach().mean(0).tolist()
        return divergence.sum(1)

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W), each of a latent drawn from the prior; with `hurdle` some are empty."""
        deepest, features = self.network.features(images)
        prior, draws = self.prior(images), noise.of_cases((n, self.options.latent))
        if self.options.prior == "gaussian":
            component = torch.zeros(len(images), n, dtype=torch.long, device=images.device)
        else:
            u, ends = noise.of_cases((n,), "uniform"), prior.log_weights.exp().cumsum(1)
            component = torch.searchsorted(ends, u).clamp_max(ends.shape[1] - 1)
        rows = torch.arange(len(images), device=images.device)[:, None]
        z = prior.mean[rows, component] + draws * (0.5 * prior.log_variance[rows, component]).exp()
        function = decode if images.is_cuda else decode_in_cache
        prob = function(self.of_features(features), self.of_latent(z), self.head).float().sigmoid_()
        if not self.options.hurdle:
            return prob
        # An outline marks something: where none of its pixels reaches one half, those above half of the largest do.
        peak = prob.amax((2, 3), keepdim=True)
        outline = torch.where(peak < 0.5, prob / peak.clamp_min(1e-12), prob)
        marks: Tensor = noise.of_cases((n,), "uniform") < self.presence(deepest, features).sigmoid()
        return outline * marks[..., None, None]

    def presence_of(self, images: Tensor) -> Tensor | None:
        """The probability (B,) that a reader draws anything, with option `hurdle`; else None."""
        if not self.options.hurdle:
            return None
        return self.presence(*self.network.features(images)).squeeze(1).sigmoid()  # type: ignore[no-any-return]

    def watch(self) -> dict[str, float]:
        """The KL of each latent dimension in nats."""
        return {f"kl_{k}": value for k, value in enumerate(self.kl)}

    def warning(self) -> str | None:
        """That the latent space has collapsed, where the last KL says so."""
        if self.kl and max(self.kl) < COLLAPSED:
            return (
                f"the latent space has collapsed: the KL of every dimension is below {COLLAPSED} nats, so all samples "
                f"are alike; lower the option beta (now {self.options.beta}) or train longer"
            )
        return None
