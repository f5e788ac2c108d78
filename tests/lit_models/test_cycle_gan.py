import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from datamodules import ImagePair, Maps
from lit_models import CycleGAN
from lit_models.cycle_gan import ImageBuffer
from tests.lit_models.test_pix2pix import loader, pairs
from tests.support.compare import assert_alike
from tests.support.pairs import write_maps
from tests.support.trainers import quiet_trainer, seeded_fit

pytestmark = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


def tiny(**arguments: Any) -> CycleGAN:
    torch.manual_seed(0)
    defaults = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16, "blocks": 1}
    return CycleGAN(**{**defaults, **arguments})


def plain_losses(
    model: CycleGAN, x: Tensor, y: Tensor, shown: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The discriminators' and the generators' loss, as the paper writes them, of x and y in [−1, 1]."""
    g, f = model.generator["to_target"], model.generator["to_source"]
    d_y, d_x = model.discriminator["target"], model.discriminator["source"]
    fake_y, fake_x = g(x), f(y)
    seen_y, seen_x = shown or (fake_y.detach(), fake_x.detach())
    judged = ((d_y(y) - 1) ** 2).mean() + (d_y(seen_y) ** 2).mean()
    judged = 0.5 * judged + 0.5 * (((d_x(x) - 1) ** 2).mean() + (d_x(seen_x) ** 2).mean())
    gan = ((d_y(fake_y) - 1) ** 2).mean() + ((d_x(fake_x) - 1) ** 2).mean()
    cycle = (f(fake_y) - x).abs().mean() + (g(fake_x) - y).abs().mean()
    identity = (g(y) - y).abs().mean() + (f(x) - x).abs().mean() if model.lambda_identity else 0.0
    return judged, gan + model.lambda_cycle * (cycle + model.lambda_identity * identity)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"lambda_identity": 0.0, "lambda_cycle": 3.0}, {"lambda_identity": 0.0, "source_channels": 1}],
    ids=str,
)
def test_losses(arguments: dict[str, Any]) -> None:
    model, batch = tiny(**arguments), pairs(source_channels=arguments.get("source_channels"))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    judged, generated = plain_losses(model, batch.source * 2 - 1, batch.target * 2 - 1)
    fake = model.generate(batch)
    losses = model.generator_loss(batch, fake)
    assert losses["loss"].item() == pytest.approx(generated.item(), rel=1e-5)
    assert ("generator_identity_loss" in losses) == bool(model.lambda_identity)
    assert model.eval().discriminator_loss(batch, fake).item() == pytest.approx(judged.item(), rel=1e-5)
    assert model.image_buffers[0].images is None, "evaluation leaves the buffers alone"


def test_training_equals_a_plain_loop() -> None:
    """Five steps of batches of two with buffers of three images; the plain loop keeps its images in lists."""
    sgd = {f"{player}_optimizer": lambda p: SGD(p, lr=0.01) for player in ("generator", "discriminator")}
    model = tiny(buffer_size=3, **sgd)
    plain = deepcopy(model)
    seeded_fit(model, loader(5))
    torch.manual_seed(3)
    optimizers = SGD(plain.generator.parameters(), lr=0.01), SGD(plain.discriminator.parameters(), lr=0.01)
    buffers: tuple[list[Tensor], list[Tensor]] = ([], [])
    exchanged = 0
    for batch in loader(5):
        x, y = batch.source * 2 - 1, batch.target * 2 - 1
        fakes = plain.generator["to_target"](x).detach(), plain.generator["to_source"](y).detach()
        shown = []
        for images, buffer in zip(fakes, buffers, strict=True):
            shown.append(torch.stack(plain_exchange(images, buffer, 3)))
            exchanged += int(not torch.equal(shown[-1], images))
        for player in (1, 0):
            loss = plain_losses(plain, x, y, (shown[0], shown[1]))[1 - player]
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            optimizers[player].step()
    assert exchanged > 2
    start = tiny().state_dict()
    assert_alike(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-5)
    assert not torch.equal(
        model.state_dict()["discriminator.source.layers.0.weight"], start["discriminator.source.layers.0.weight"]
    )


def plain_exchange(images: Tensor, buffer: list[Tensor], size: int) -> list[Tensor]:
    """One image after the other, with the random numbers that the buffer draws for a batch."""
    waiting = [image for image in images if len(buffer) == size or buffer.append(image)]
    drawn = torch.rand(len(waiting)) < 0.5
    places = torch.randperm(size)[: len(waiting)]
    shown = list(images[: len(images) - len(waiting)])
    for image, swap, place in zip(waiting, drawn.tolist(), places.tolist(), strict=True):
        if swap:
            shown.append(buffer[place])
            buffer[place] = image
        else:
            shown.append(image)
    return shown


class TestBuffer:
    def test_against_a_plain_loop(self) -> None:
        buffer, plain = ImageBuffer(5), []
        for step in range(40):
            images = torch.full((1 + step % 3, 1, 1, 1), 10.0 * step) + torch.arange(1 + step % 3).view(-1, 1, 1, 1)
            torch.manual_seed(step)
            shown = buffer.exchange(images)
            torch.manual_seed(step)
            expected = plain_exchange(images, plain, 5)
            assert shown.flatten().tolist() == [float(image) for image in expected]
            assert buffer.images is not None
            assert buffer.images.flatten().tolist() == [float(image) for image in plain]

    def test_distribution_is_the_authors(self) -> None:
        """With batches of one, the age of what is shown is distributed as in the authors' code."""
        torch.manual_seed(0)
        random.seed(0)
        ages: dict[str, list[float]] = {"ours": [], "theirs": []}
        buffer, theirs = ImageBuffer(5), []
        for step in range(5_000):
            ages["ours"].append(step - buffer.exchange(torch.full((1, 1, 1, 1), float(step))).item())
            if len(theirs) < 5:
                theirs.append(step)
                shown = step
            elif random.uniform(0, 1) > 0.5:
                place = random.randint(0, 4)
                shown, theirs[place] = theirs[place], step
            else:
                shown = step
            ages["theirs"].append(step - shown)
        for quantity in (lambda a: a.mean(), lambda a: (a == 0).float().mean(), lambda a: (a > 8).float().mean()):
            ours, other = (
                float(quantity(torch.tensor(ages[side], dtype=torch.float64))) for side in ("ours", "theirs")
            )
            assert ours == pytest.approx(other, rel=0.15)

    def test_what_was_shown_stays_as_it_was(self) -> None:
        buffer = ImageBuffer(1)
        first = torch.zeros(1, 1, 2, 2)
        shown = buffer.exchange(first)
        for step in range(1, 20):
            buffer.exchange(torch.full((1, 1, 2, 2), float(step)))
        assert torch.equal(shown, torch.zeros(1, 1, 2, 2))
        assert torch.equal(first, torch.zeros(1, 1, 2, 2))

    def test_none(self) -> None:
        images = torch.rand(3, 1, 2, 2)
        assert ImageBuffer(0).exchange(images) is images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("buffer_size", [0, 2, 3, 5])
def test_a_restored_buffer_fits_the_run(dtype: torch.dtype, buffer_size: int) -> None:
    """Of another precision, of another size."""
    before, after = tiny(buffer_size=3), tiny(buffer_size=buffer_size)
    for buffer in before.image_buffers:
        buffer.exchange(torch.full((3, 1, 1, 1), 7.0))
    checkpoint: dict[str, Any] = {}
    before.trainer = quiet_trainer()
    before.on_save_checkpoint(checkpoint)
    after.on_load_checkpoint(checkpoint)
    seen = set()
    for step in range(20):
        shown = after.image_buffers[0].exchange(torch.full((2, 1, 1, 1), float(step), dtype=dtype))
        assert shown.dtype == dtype
        seen |= set(shown.flatten().tolist())
        assert len(after.image_buffers[0].images) <= buffer_size
    assert 7.0 in seen or not buffer_size, "what was restored is shown"


def test_pairing_does_not_matter_to_the_generators() -> None:
    """The same loss whichever target comes with a source."""
    model, batch = tiny().eval(), pairs(3)
    other = ImagePair(batch.source, batch.target.roll(1, 0))
    losses = [model.generator_loss(one, model.generate(one))["loss"] for one in (batch, other)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_translations_are_by_the_averaged_generator() -> None:
    model, source = tiny(ema_decay=0.9), pairs().source
    seeded_fit(model, loader(2))
    average = model.generator_average.eval()
    assert torch.allclose(model.translate(source), (average["to_target"](source * 2 - 1) + 1) / 2, atol=1e-6)
    assert not torch.equal(model.translate(source), (model.generator.eval()["to_target"](source * 2 - 1) + 1) / 2)


def test_a_buffer_smaller_than_a_batch_takes_it_in_parts(tmp_path: Path) -> None:
    buffers = [ImageBuffer(2), ImageBuffer(2)]
    images = torch.arange(15.0).view(3, 5, 1, 1, 1)
    shown = []
    for buffer in buffers:
        torch.manual_seed(0)
        sizes = [5] if buffer is buffers[0] else [2, 2, 1]
        shown.append(torch.cat([buffer.exchange(part) for batch in images for part in batch.split(sizes)]))
    assert torch.equal(*shown)
    assert shown[0].unique().numel() < 15, "some are shown again"
    write_maps(tmp_path / "maps", train=6, val=3)
    seeded_fit(tiny(buffer_size=2), Maps(root=str(tmp_path), image_size=32, batch_size=4))
