"""Three methods of image translation on paired, loosely paired and unpaired data."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import MAPS
from experiments.declaration import Budget, Experiment, Figure, Step

TRANSLATORS = {
    "gan": ("plain GAN of images to images", "pix2pix", "gan_translator_maps_64"),
    "pix2pix": ("pix2pix", "pix2pix", "pix2pix_maps_64"),
    "cyclegan": ("CycleGAN", "cycle_gan", "cyclegan_maps_64"),
}
PAIRINGS = {"paired": "paired", "loose": "loosely paired", "unpaired": "unpaired"}


def pairings_of(kind: str) -> dict[str, str]:
    """The kinds of data, first the one that the method is made for."""
    return dict(reversed(PAIRINGS.items())) if kind == "cyclegan" else PAIRINGS


def map_figures(step: str) -> tuple[Figure, ...]:
    """How near the maps come to the true ones."""
    return (
        Figure(step, "pixels of the right kind / %", "test/map_accuracy", kind="percent"),
        Figure(step, "L1", "test/l1", main=False),
        # Records from before that argument have SSIM with mirrored borders.
        Figure(step, "SSIM", "test/ssim", main=False, argument="data.evaluation"),
    )


EXPERIMENT = Experiment(
    title="Photographs to maps at 64x64: three methods on paired, loosely paired and unpaired data",
    steps=tuple(
        Step(
            *(f"{kind}_{pairing}", f"{method}, {name} data", page, config, MAPS),
            arguments=(f"--data.pairing={pairing}",),
            checkpoint="last",
        )
        for kind, (method, page, config) in TRANSLATORS.items()
        for pairing, name in pairings_of(kind).items()
    ),
    figures=tuple(
        figure for kind in TRANSLATORS for pairing in pairings_of(kind) for figure in map_figures(f"{kind}_{pairing}")
    ),
    budgets={
        "smoke": Budget(
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", "--model.discriminator_feature_maps=4")},
            only=("gan_paired", "pix2pix_loose", "cyclegan_unpaired"),
        ),
        "cpu": Budget({"*": ("--trainer.max_epochs=10",)}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
)
