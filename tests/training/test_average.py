"""The average of the weights, and the hooks that methods have in the loop."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import discs
from uqseg.methods import Method, Options, build
from uqseg.noise import Noise
from uqseg.training import Training, fit, load_method
from uqseg.training.loop import _Run

NAMES = ["unet", "deepensemble", "bcnn", "swag", "laplace", "masksembles"]


class Ramp(Method[Options]):
    """Its weight grows by the learning rate at each step of Adam; notes what its hooks are calls."""

    def __init__(self, options: Options, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.zeros(()))
        self.calls: list[object] = []

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        return -self.logit.expand(len(images))

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        self.calls.append(self.logit.item())
        return self.logit.sigmoid().expand(len(images), n, *images.shape[2:])

    def before_steps(self, images: int, steps: int) -> None:
        self.calls.append((images, steps))

    def finish(self, train: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        self.calls.append(sum(len(images) for images, _, _ in train))
        self.calls.append(self.logit.item())


def test_the_averaged_weights_are_validated_kept_and_finished() -> None:
    method = Ramp(Options(), channels=1, readers=4)
    recipe = Training(
        steps=3, batch=4, lr=0.1, weight_decay=0, schedule="constant", optimizer="adam", ema=0.9, validate_every=3
    )
    fit(method, discs(10), val=discs(2), recipe=recipe, progress=False, device="cpu")
    average = 0.1  # weights 0.1, 0.2, 0.3; decays 2/11 and 3/12
    for weight, decay in ((0.2, 2 / 11), (0.3, 3 / 12)):
        average = decay * average + (1 - decay) * weight
    tried = 0.0  # a method from outside is asked for a draw before anything else
    assert method.calls == [tried, (10, 3), pytest.approx(average), 10, pytest.approx(average)]
    assert method.logit.item() == pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_training_with_average_resumes_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Training(steps=12, batch=5, validate_every=4, ema=0.9, checkpoint_every=1e9, precision="fp32")
    data, val = discs(12), discs(6, seed=1)

    def run(out: Path) -> dict[str, Tensor]:
        method = build(name, seed=1, **type(build(name)).small)
        return fit(method, data, val=val, recipe=recipe, out=out, progress=False, device="cpu").state_dict()

    uncut, step = run(tmp_path / "uncut"), _Run.step

    def interrupted(self: _Run, lr: float) -> tuple[Tensor, Tensor]:
        if self.state.step == 10:
            raise KeyboardInterrupt
        return step(self, lr)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(uncut[k], resumed[k]) for k in uncut)
    loaded = load_method(tmp_path / "cut").state_dict()
    assert all(torch.equal(uncut[k], loaded[k]) for k in uncut)
