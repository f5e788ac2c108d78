"""The experiments that `scripts/reproduce.py` runs, a file each."""

from experiments import (
    autoencoders_transfer,
    center_loss,
    conditional_gan,
    darts,
    darts_statistics,
    gans_cifar10,
    gans_lfw,
    gans_mnist,
    layerwise_mlp,
    pix2pix,
    protonet,
    resnet18,
    translation_grid,
    triplet_losses,
    vae,
    wgan_n_critic,
)
from experiments.declaration import Analysis, Budget, Data, Experiment, Figure, Step

__all__ = ["EXPERIMENTS", "Analysis", "Budget", "Data", "Experiment", "Figure", "Step"]

EXPERIMENTS: dict[str, Experiment] = {
    module.__name__.rpartition(".")[2]: module.EXPERIMENT
    for module in (
        gans_mnist,
        wgan_n_critic,
        gans_cifar10,
        conditional_gan,
        triplet_losses,
        gans_lfw,
        pix2pix,
        translation_grid,
        vae,
        autoencoders_transfer,
        protonet,
        layerwise_mlp,
        darts,
        darts_statistics,
        resnet18,
        center_loss,
    )
}
"""In the order of the README's table."""
