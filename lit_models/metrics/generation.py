"""Scores of generated images, as functions of what an extractor saw in them; all of them computed by torchmetrics.

Features are ``(N, D)`` and logits ``(N, classes)``, of any device; scores are computed in float64 and returned as
floats. They depend on the number of images and on the extractor, so that scores are comparable with equal ones only.
"""

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from lit_models.losses.precision import in_float64
from lit_models.metrics.variety import require_features

KID_SUBSETS = 20
KID_SUBSET_SIZE = 1000


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID (Heusel et al. 2017, arXiv:1706.08500): ``‖m − m'‖² + Tr(C + C' − 2 (C C')^½)`` of the means and
    covariances of both sets of features; 0 at best. It is biased upwards for few images.

    Args:
        real: ``(N, D)``, N at least 2.
        fake: ``(M, D)``, M at least 2.

    Raises:
        RunError: There are fewer, or features aren't finite.
    """
    require_features(real, "real", 2)
    require_features(fake, "generated", 2)
    metric = FrechetInceptionDistance(_Given(real.shape[1]), sync_on_compute=False)
    real, fake = in_float64(real), in_float64(fake)
    metric.to(real.device).set_dtype(real.dtype)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, fake: Tensor, seed: int = 0) -> float:
    """KID (Bińkowski et al. 2018, arXiv:1801.01401, section 4): the squared maximum mean discrepancy under the kernel
    ``(x·y / D + 1)³``, as a mean of unbiased estimates on random subsets; around 0 at best, and below it by chance.

    Args:
        real: ``(N, D)``, N at least 2.
        fake: ``(M, D)``, M at least 2.
        seed: Seed of the subsets.

    Raises:
        RunError: There are fewer, or features aren't finite.
    """
    require_features(real, "real", 2)
    require_features(fake, "generated", 2)
    size = min(KID_SUBSET_SIZE, len(real), len(fake))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
        torch.default_generator.manual_seed(seed)  # not the GPU's, whose state isn't restored
        metric = KernelInceptionDistance(
            _Given(real.shape[1]), subsets=KID_SUBSETS, subset_size=size, sync_on_compute=False
        )
        metric.update(in_float64(real), real=True)
        metric.update(in_float64(fake), real=False)
        return float(metric.compute()[0])


def inception_score(logits: Tensor) -> float:
    """IS (Salimans et al. 2016, arXiv:1606.03498): ``exp E_x KL(p(y | x) ‖ p(y))``, from 1 to the number of
    classes; high if each image is surely of one class and all classes are equally frequent.

    It is taken over all images at once, not as a mean over ten parts of them, which is lower the fewer there are.

    Args:
        logits: ``(N, classes)`` of generated images, N at least 1.

    Raises:
        RunError: There are none, or some aren't finite.
    """
    require_features(logits, "generated", 1)
    logits = in_float64(logits)
    # A probability of exactly 0 in all images, as after a collapse to one class, would make the score NaN.
    logits = (logits - logits.max(1, keepdim=True).values).clamp(min=-600)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
        metric = InceptionScore(_Given(logits.shape[1]), splits=1, sync_on_compute=False)
        metric.update(logits)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*std.*degrees of freedom.*")
            return float(metric.compute()[0])


class _Given(nn.Module):
    """Stands where torchmetrics expects the network: its inputs are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
