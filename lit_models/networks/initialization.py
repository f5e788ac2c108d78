"""The initial weights of DCGAN (Radford, Metz & Chintala 2015), and of most GANs since."""

from torch import nn


def initialize(module: nn.Module) -> None:
    """Convolutions and dense layers from N(0, 0.02²) (section 4), batch-norm scales from N(1, 0.02²), biases zero."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
