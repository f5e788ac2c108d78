"""Normalization by what is there: by statistics of the given images, never by running means of earlier ones."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["batch", "instance"]


class BatchStatisticsNorm2d(nn.BatchNorm2d):
    """Batch normalization as in pix2pix (Isola et al. 2017, section 3.3): in evaluation, too, by statistics of the
    images that are given, there of each image by itself.

    The paper tests with batches of one image. So each image's result depends on nothing but the image, whatever batch
    it comes in; and after training with batches of one it is just what training saw.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            return super().forward(input)
        return functional.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


def normalization(norm: Norm, channels: int) -> nn.Module:
    """The layer: "batch" for :class:`BatchStatisticsNorm2d`, "instance" for instance normalization without parameters
    (Ulyanov et al. 2016)."""
    return BatchStatisticsNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)
