"""What methods return where a plain tensor wouldn't say what it is."""

from typing import NamedTuple

from torch import Tensor


class ClassProbabilities(NamedTuple):
    """What a classifier's ``predict_step`` returns.

    Attributes:
        probability: ``(B, num_classes)``.
    """

    probability: Tensor
