import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_models.support.tiling import apply_at_any_size, mirrored, ramp, starts


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (32, 32), (33, 40), (64, 20), (70, 200), (130, 131)])
def test_pixelwise_functions_know_no_tiles(size: tuple[int, int]) -> None:
    """Whatever depends on the pixel only comes out as without tiles, of the image's size."""
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Size] = []

    def function(piece: Tensor) -> Tensor:
        seen.append(piece.shape[-2:])
        return 2 * piece[:, :2] - 1

    result = apply_at_any_size(function, image, multiple=16, tile=64, overlap=16)
    assert torch.allclose(result, 2 * image[:, :2] - 1, atol=1e-6)
    assert all(side % 16 == 0 and side <= 64 for shape in seen for side in shape)
    assert len(seen) == len(starts(max(size[0], 16), 64, 16)) * len(starts(max(size[1], 16), 64, 16))


def test_small_images_are_enlarged_to_what_the_function_takes() -> None:
    image = torch.rand(1, 1, 3, 21)
    seen: list[torch.Size] = []

    def function(piece: Tensor) -> Tensor:
        seen.append(piece.shape[-2:])
        return piece

    assert torch.equal(apply_at_any_size(function, image, 4, 64, 16, smallest=10), image)
    assert seen == [(12, 24)]


def test_an_image_that_fits_goes_through_untouched() -> None:
    image = torch.rand(1, 3, 32, 48)
    assert torch.equal(apply_at_any_size(torch.square, image, 16, 64, 16), image.square())


def test_seams_are_blended() -> None:
    """Tiles that come out with different brightness go over into each other without a step."""
    calls = iter(range(100))
    image = torch.zeros(1, 1, 64, 300)
    result = apply_at_any_size(lambda piece: piece + next(calls) % 2, image, 16, 64, 32)
    steps = result.diff(dim=-1).abs()
    assert result.min() < 0.2
    assert result.max() > 0.8
    assert steps.max() < 0.1


@pytest.mark.parametrize(("size", "before", "length"), [(5, 3, 12), (4, 9, 30), (1, 2, 6), (7, 0, 7)])
def test_mirrored_is_numpys_reflect(size: int, before: int, length: int) -> None:
    row = torch.arange(size)
    pads = (before, length - size - before)
    expected = np.pad(row.numpy(), pads, mode="reflect" if size > 1 else "edge")
    image = row.expand(1, 1, 2, size).clone()
    assert mirrored(image, 0, 2, before, length)[0, 0, 0].tolist() == expected.tolist()
    assert mirrored(image.mT, before, length, 0, 2)[0, 0, :, 1].tolist() == expected.tolist()


def test_starts_cover_and_overlap() -> None:
    for length in range(64, 400):
        found = starts(length, 64, 16)
        assert found[0] == 0
        assert found[-1] == length - 64 or length == 64
        assert all(b - a <= 48 for a, b in itertools.pairwise(found))
    assert (ramp(64, 16) > 0).all()
    assert ramp(64, 16)[16:48].eq(1).all()
