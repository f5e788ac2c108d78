"""pix2pix and CycleGAN at the papers' sizes."""

from dataclasses import replace

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import MAPS
from experiments.declaration import Budget, Experiment, Step
from experiments.translation_grid import map_figures

EXPERIMENT = Experiment(
    title="Satellite photographs to maps",
    steps=(
        Step("256", "pix2pix, 256x256", "pix2pix", "pix2pix_maps", MAPS, checkpoint="last"),
        Step("128", "pix2pix, 128x128", "pix2pix", "pix2pix_maps_128", MAPS, checkpoint="last"),
        Step(
            "128_small",
            "pix2pix, 128x128, small ResNet",
            "pix2pix",
            "pix2pix_maps_128_small",
            MAPS,
            checkpoint="last",
            smaller=True,
        ),
        Step("cyclegan", "CycleGAN, 256x256", "cycle_gan", "cyclegan_maps", MAPS, checkpoint="last"),
    ),
    # Records from before that argument are of full photographs squeezed to 128 pixels.
    figures=tuple(
        replace(figure, argument="data.evaluation")
        for step in ("256", "128", "128_small", "cyclegan")
        for figure in map_figures(step)
    ),
    budgets={
        "smoke": Budget(
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", "--model.discriminator_feature_maps=4")},
            only=("128",),
        ),
        "cpu": Budget(
            {
                "128": ("--model.feature_maps=32", "--model.discriminator_feature_maps=32", "--trainer.max_epochs=48"),
                "128_small": ("--trainer.precision=bf16-mixed",),
            },
            only=("128", "128_small"),
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
)
