from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from datamodules.loading import augment
from tests.support.fixtures import Patch

# Every random function, as one of an image and a generator.
RANDOM: dict[str, Callable[[Tensor, Generator | None], Tensor]] = {
    "random_crop": lambda image, g: augment.random_crop(image, 12, generator=g),
    "random_crop, padded": lambda image, g: augment.random_crop(image, 16, padding=3, generator=g),
    "random_crop, reflected": lambda image, g: augment.random_crop(image, (16, 10), 3, "reflect", generator=g),
    "random_horizontal_flip": lambda image, g: augment.random_horizontal_flip(image, generator=g),
    "random_quarter_turn": lambda image, g: augment.random_quarter_turn(image, generator=g),
    "cutout": lambda image, g: augment.cutout(image, 6, generator=g),
    "paired_crop_flip": lambda image, g: torch.cat(augment.paired_crop_flip(image, image, 12, generator=g), 1),
    "gaussian_noise": lambda image, g: augment.gaussian_noise(image, 0.2, generator=g),
    "color_jitter": lambda image, g: augment.color_jitter(image, 0.4, 0.4, 0.4, generator=g),
    "random_resized_crop": lambda image, g: augment.random_resized_crop(image, 12, generator=g),
}


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def images(batch: int, size: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=rng(seed))


def coordinates(batch: int, size: int) -> Tensor:
    """Images whose two channels say the row and the column of each pixel, from 1."""
    steps = torch.arange(1.0, size + 1)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij")).expand(batch, 2, size, size)


def assert_uniform(values: Tensor, outcomes: int) -> None:
    counts = torch.bincount(values, minlength=outcomes)
    assert len(counts) == outcomes
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_gives_the_same_images_again_and_another_seed_others(name: str) -> None:
    image = images(32)
    first = RANDOM[name](image, rng(1))
    torch.rand(7)  # the default generator plays no part
    assert torch.equal(first, RANDOM[name](image, rng(1)))
    assert not torch.equal(first, RANDOM[name](image, rng(2)))


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_generator_the_runs_seed_decides(name: str) -> None:
    image = images(32)
    torch.manual_seed(3)
    first = RANDOM[name](image, None)
    second = RANDOM[name](image, None)
    torch.manual_seed(3)
    assert torch.equal(first, RANDOM[name](image, None))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", RANDOM)
def test_images_of_a_batch_are_changed_each_in_its_own_way(name: str) -> None:
    same = images(1).expand(40, 3, 16, 16)
    changed = RANDOM[name](same, rng())
    expected = 2 if name == "random_horizontal_flip" else 4 if name == "random_quarter_turn" else 20
    assert len(changed.flatten(1).unique(dim=0)) >= expected


@pytest.mark.parametrize("name", RANDOM)
def test_the_range_is_kept_and_the_input_left_alone(name: str) -> None:
    image = images(64)
    before = image.clone()
    changed = RANDOM[name](image, rng())
    assert torch.equal(image, before)
    assert changed.dtype == torch.float32
    assert changed.shape[0] == 64
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", RANDOM)
def test_the_layout_in_memory_makes_no_difference(name: str) -> None:
    image = images(16)
    assert torch.equal(RANDOM[name](image.to(memory_format=torch.channels_last), rng()), RANDOM[name](image, rng()))


@pytest.mark.parametrize("name", RANDOM)
def test_no_value_is_needed_on_the_host(name: str) -> None:
    # A meta tensor has no values: reading one, or a shape that depends on one, is an error.
    assert RANDOM[name](images(4).to("meta"), None).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("name", RANDOM)
def test_no_wait_for_the_gpu(name: str) -> None:
    image = images(64).cuda()
    generator = Generator("cuda").manual_seed(0)
    RANDOM[name](image, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert RANDOM[name](image, generator).is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- crops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "tv_mode"), [("constant", "constant"), ("reflect", "reflect")])
def test_crop_moves_the_pixels_that_torchvision_moves(mode: str, tv_mode: str) -> None:
    image = images(50, 10)
    top, left = torch.randint(7, (2, 50), generator=rng())
    padded = torch.nn.functional.pad(image, (3,) * 4, mode=mode)
    ours = augment.crop(padded, top, left, (10, 9))
    for i in range(50):
        expected = tv.crop(tv.pad(image[i], [3], padding_mode=tv_mode), int(top[i]), int(left[i]), 10, 9)
        assert torch.equal(ours[i], expected)


def test_random_crop_is_uniform_over_all_places() -> None:
    cropped = augment.random_crop(coordinates(5000, 8), 8, padding=2, generator=rng()).long()
    # The pixel in row 4 of the result is in row 4 + top - 2 of the image, and its value is the row counted from 1.
    top, left = (cropped[:, axis, 4, 4] - 1 - 4 + 2 for axis in (0, 1))
    assert_uniform(top * 5 + left, 25)


def test_random_crop_is_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    per_image = transforms.RandomCrop(8, padding=2)
    theirs = torch.stack([per_image(image) for image in coordinates(1500, 8)])
    ours = augment.random_crop(coordinates(1500, 8), 8, padding=2, generator=rng())
    counts = [torch.bincount((x[:, 0, 4, 4] * 5 + x[:, 1, 4, 4]).long() - 18, minlength=25) for x in (ours, theirs)]
    assert stats.chi2_contingency(torch.stack(counts).numpy()).pvalue > 0.001


def test_padding_is_black() -> None:
    cropped = augment.random_crop(torch.ones(100, 1, 4, 4), 4, padding=4, generator=rng())
    assert set(cropped.unique().tolist()) == {0.0, 1.0}


def test_windows_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="Windows of 20x20 don't fit into images of 16x16"):
        augment.random_crop(images(2), 20)


# --- flips and turns --------------------------------------------------------------------------------------------------


def test_flip_moves_the_pixels_of_the_chosen_images_only() -> None:
    image, chosen = images(50), torch.rand(50, generator=rng()) < 0.5
    ours = augment.horizontal_flip(image, chosen)
    for i in range(50):
        assert torch.equal(ours[i], tv.horizontal_flip(image[i]) if chosen[i] else image[i])


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_flip_has_the_probability_it_says(p: float) -> None:
    flipped = augment.random_horizontal_flip(coordinates(4000, 4), p, generator=rng())[:, 1, 0, 0] == 4
    assert stats.binomtest(int(flipped.sum()), 4000, p).pvalue > 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_quarter_turn_moves_the_pixels_that_torchvision_moves(dtype: torch.dtype) -> None:
    image, turns = (images(50) * 255).to(dtype), torch.randint(4, (50,), generator=rng())
    ours = augment.quarter_turn(image, turns)
    for i in range(50):
        assert torch.equal(ours[i], tv.rotate(image[i], 90.0 * int(turns[i])))


def test_quarter_turn_takes_any_number_of_leading_dimensions() -> None:
    image, turns = images(24).view(2, 3, 4, 3, 16, 16), torch.randint(4, (2, 3, 4), generator=rng())
    ours = augment.quarter_turn(image, turns)
    assert torch.equal(ours.flatten(0, 2), augment.quarter_turn(image.flatten(0, 2), turns.flatten()))


def test_random_quarter_turn_is_uniform() -> None:
    turned = augment.random_quarter_turn(coordinates(4000, 2), generator=rng())[:, :, 0, 0].long()
    assert_uniform((turned[:, 0] - 1) * 2 + turned[:, 1] - 1, 4)


def test_only_squares_are_turned() -> None:
    with pytest.raises(ValueError, match="not 8x16"):
        augment.random_quarter_turn(torch.zeros(2, 1, 8, 16))


# --- cutout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.0, torch.tensor([0.2, 0.5, 0.8])])
def test_cover_fills_a_square_and_changes_nothing_else(fill: float | Tensor) -> None:
    image = images(50)
    top, left = torch.randint(-4, 16, (2, 50), generator=rng())
    ours = augment.cover(image, top, left, 5, fill)
    for i in range(50):
        expected = image[i].clone()
        rows, columns = (slice(max(0, int(start[i])), int(start[i]) + 5) for start in (top, left))
        expected[:, rows, columns] = fill if isinstance(fill, float) else fill[:, None, None]
        assert torch.equal(ours[i], expected)


@pytest.mark.parametrize(("size", "first"), [(4, -2), (5, -2)])
def test_cutout_centers_are_uniform_over_the_image(size: int, first: int) -> None:
    # A square of 4 around row y covers y - 2 .. y + 1, as in the authors' code, cut off at the border.
    n, side = 6400, 8
    covered = augment.cutout(torch.ones(n, 1, side, side), size, generator=rng())[:, 0] == 0
    windows = {}
    for center in range(side):
        window = range(max(0, center + first), min(side, center + first + size))
        windows[tuple(int(row in window) for row in range(side))] = center
    rows = torch.tensor([windows[tuple(mask)] for mask in covered.any(2).int().tolist()])
    columns = torch.tensor([windows[tuple(mask)] for mask in covered.any(1).int().tolist()])
    assert torch.equal(covered, covered.any(2)[:, :, None] & covered.any(1)[:, None, :])
    assert_uniform(rows * side + columns, side * side)


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_both_halves_of_a_pair_get_the_same_window_and_flip() -> None:
    source = images(200, 20)
    target = 1 - source[:, :2]
    ours, theirs = augment.paired_crop_flip(source, target, 16, generator=rng())
    assert ours.shape == (200, 3, 16, 16)
    assert theirs.shape == (200, 2, 16, 16)
    assert torch.equal(theirs, 1 - ours[:, :2])


def test_paired_windows_and_flips_are_uniform() -> None:
    place = coordinates(5000, 8)
    cropped, _ = augment.paired_crop_flip(place, place, 4, generator=rng())
    flipped = (cropped[:, 1, 0, 0] > cropped[:, 1, 0, 3]).long()
    top, left = cropped[:, 0, 0, 0].long() - 1, cropped[:, 1, 0].amin(1).long() - 1
    assert_uniform(flipped * 25 + top * 5 + left, 50)
    expected = coordinates(1, 8)[0]
    for i in range(50):
        window = expected[:, top[i] : top[i] + 4, left[i] : left[i] + 4]
        assert torch.equal(cropped[i], window.flip(-1) if flipped[i] else window)


def test_pairs_need_not_be_flipped() -> None:
    place = coordinates(500, 8)
    cropped, _ = augment.paired_crop_flip(place, place, 4, flip=False, generator=rng())
    assert (cropped[:, 1, 0, 0] < cropped[:, 1, 0, 3]).all()


def test_halves_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="halves of a pair differ in size"):
        augment.paired_crop_flip(images(2, 16), images(2, 18), 8)


# --- noise and color -------------------------------------------------------------------------------------------------


def test_noise_is_normal_and_independent() -> None:
    image = images(100, 16)
    noise = (augment.gaussian_noise(image, 0.3, clip=False, generator=rng()) - image).double() / 0.3
    assert stats.kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 0.001
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1:].mean()) < 0.02


def test_noise_is_clipped_to_the_range() -> None:
    image = images(10)
    unclipped = augment.gaussian_noise(image, 0.5, clip=False, generator=rng())
    assert unclipped.min() < 0
    assert torch.equal(augment.gaussian_noise(image, 0.5, generator=rng()), unclipped.clamp(0, 1))


def test_colors_are_adjusted_as_by_torchvision() -> None:
    image = images(60)
    factors = torch.empty(60, 3).uniform_(0.2, 1.8, generator=rng())
    order = torch.rand(60, 3, generator=rng(1)).argsort(1)
    ours = augment.adjust_color(image, factors, order)
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for i in range(60):
        expected = image[i]
        for kind in order[i].tolist():
            expected = adjust[kind](expected, float(factors[i, kind]))
        torch.testing.assert_close(ours[i], expected, atol=2e-6, rtol=0)


def test_gray_images_have_no_saturation() -> None:
    image = images(20, channels=1)
    assert torch.equal(augment.color_jitter(image, saturation=0.9, generator=rng()), image)
    factors, order = torch.full((20, 3), 0.5), torch.arange(3).expand(20, 3)
    expected = torch.stack([tv.adjust_contrast(tv.adjust_brightness(x, 0.5), 0.5) for x in image])
    torch.testing.assert_close(augment.adjust_color(image, factors, order), expected)


@pytest.mark.parametrize(("strength", "low"), [(0.4, 0.6), (1.5, 0.0)])
def test_jitter_factors_are_uniform(strength: float, low: float) -> None:
    image = torch.full((4000, 1, 1, 1), 0.25)  # not clipped at up to four times its brightness
    factors = augment.color_jitter(image, brightness=strength, generator=rng()).flatten() / 0.25
    assert stats.kstest(factors.numpy(), stats.uniform(low, 1 + strength - low).cdf).pvalue > 0.001


def test_jitter_order_is_uniform(monkeypatch: Patch) -> None:
    drawn = []
    monkeypatch.setattr(augment, "adjust_color", lambda image, factors, order: drawn.append((factors, order)) or image)
    augment.color_jitter(images(6000, 2), 0.4, 0.4, 0.4, generator=rng())
    factors, order = drawn[0]
    assert torch.equal(order.sort(1).values, torch.arange(3).expand(6000, 3))
    assert_uniform((order[:, 0] * 2 + (order[:, 1] > order[:, 2])).long(), 6)
    assert abs(torch.corrcoef(factors.T) - torch.eye(3)).max() < 0.05


# --- random resized crop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 16, 40])
def test_windows_are_resized_as_by_torchvision(size: int) -> None:
    image = images(60, 20)
    height, width = torch.randint(1, 21, (2, 60), generator=rng())
    top = (torch.rand(60, generator=rng(1)) * (21 - height)).long()
    left = (torch.rand(60, generator=rng(2)) * (21 - width)).long()
    ours = augment.resized_crop(image, top, left, height, width, size)
    for i in range(60):
        window = (int(top[i]), int(left[i]), int(height[i]), int(width[i]))
        expected = tv.resized_crop(image[i], *window, [size, size], antialias=True)
        torch.testing.assert_close(ours[i], expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (64, 64, (0.08, 1.0), (3 / 4, 4 / 3)),
        (48, 80, (0.5, 1.0), (3 / 4, 4 / 3)),
        (60, 20, (0.9, 1.0), (3 / 4, 4 / 3)),  # no try fits: the central window
        (20, 60, (0.9, 1.0), (0.9, 1.2)),
    ],
)
def test_windows_are_distributed_as_torchvisions(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    image = torch.empty(3000, 1, height, width)
    ours = torch.stack(augment._random_windows(image, scale, ratio, rng()), 1).long()
    torch.manual_seed(0)
    params = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([params(image[0], list(scale), list(ratio)) for _ in range(3000)])
    assert (ours >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    if len(theirs.unique(dim=0)) == 1:
        assert torch.equal(ours, theirs)
    else:
        for statistic in (*range(4), lambda w: w[:, 2] * w[:, 3], lambda w: w[:, 3] / w[:, 2]):
            pair = [w[:, statistic] if isinstance(statistic, int) else statistic(w) for w in (ours, theirs)]
            assert stats.ks_2samp(pair[0].numpy(), pair[1].numpy()).pvalue > 0.001
