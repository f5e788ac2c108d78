"""Every method by its configuration, within a second or two an epoch."""

from pathlib import Path

import yaml

from tests.support.small_data import SMALL_CHECKPOINTS, SMALL_DATA
from tests.support.tiny import CONFIGS

FEW = (
    *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"),
    *("--trainer.log_every_n_steps=1", "--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--checkpoint.monitor=null"),
)
NO_CALLBACKS = "--trainer.callbacks=null"
SCORES = (
    '--trainer.callbacks=[{"class_path": "GenerationScores", "init_args": {"test_count": 20, "count": 20, '
    '"real_count": 20}}]'
)
NARROW = ("--data=Digits", "--model.feature_maps=2")
RUNS: dict[str, list[tuple[str, ...]]] = {
    "dcgan": [("dcgan_digits", "--model.feature_maps=2", NO_CALLBACKS)],
    "sngan": [("sngan_mnist", *NARROW, NO_CALLBACKS)],
    "wgan": [("wgan_gp_digits", "--model.feature_maps=2", "--model.n_critic=1", NO_CALLBACKS)],
    "conditional_gan": [("conditional_gan_mnist", *NARROW, SCORES)],
    "triplet_gan": [("triplet_gan_mnist", *NARROW, NO_CALLBACKS)],
    "latent_gan": [("latent_gan_mnist", "--data=Digits", NO_CALLBACKS)],
    "vae": [
        ("vae_digits", "--model.feature_maps=2", "--model.importance_samples=2", NO_CALLBACKS),
        ("vae_mnist", *NARROW, "--model.importance_samples=2", "--trainer.callbacks=[HistogramBaseline]"),
    ],
    "autoencoder": [
        ("autoencoder_digits", "--model.feature_maps=2", NO_CALLBACKS),
        ("transfer_mnist_linear_frozen", "--data.images=Digits", NO_CALLBACKS),
    ],
    "protonet": [
        (
            "protonet_omniglot_5way1shot",
            "--model.feature_maps=2",
            "--data.n_way=5",
            "--data.test_episodes=4",
            NO_CALLBACKS,
        )
    ],
    "darts": [
        ("darts_search_digits", "--data.batch_size=8", NO_CALLBACKS),
        (
            *("darts_retrain_cifar10_small", "--data=Digits", "--data.batch_size=8", "--model.channels=1"),
            *("--model.init_channels=2", "--model.layers=3", NO_CALLBACKS),
        ),
    ],
    "metric_resnet": [
        ("resnet18_digits", f"--model.loss={loss}", "--model.feature_maps=8", NO_CALLBACKS)
        for loss in ("cross_entropy", "center", "triplet")
    ],
    "layerwise_mlp": [("layerwise_mlp_digits", "--model.widths=[4,4]", "--model.code_layer=1", NO_CALLBACKS)],
    "pix2pix": [
        (
            *("pix2pix_maps_64", "--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
            *("--trainer.callbacks=[TranslationScores]", "--trainer.check_val_every_n_epoch=1"),
        )
    ],
    "cycle_gan": [
        (
            *("cyclegan_maps_64", "--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
            *("--trainer.callbacks=[TranslationScores]", "--trainer.check_val_every_n_epoch=1"),
        )
    ],
    "digit_classifier": [("digit_classifier_mnist", "--data=Digits", "--model.widths=[2,2]", NO_CALLBACKS)],
}
"""By the page in docs/methods/: configurations, with what makes them small."""


def small_run(run: tuple[str, ...], root: Path, epochs: int = 1) -> list[str]:
    """The arguments of `relit fit` and `test` for one of the runs.

    Args:
        run: One of :data:`RUNS`.
        root: Folder of all data, into which small data and checkpoints are written that the run needs.
        epochs: Epochs; those of fine-tuning for a method with phases, each of which takes one.
    """
    config, *arguments = run
    path = CONFIGS / f"{config}.yaml"
    given = yaml.safe_load(path.read_text())
    model, data = given["model"]["class_path"], given["data"]["class_path"]
    if model in SMALL_CHECKPOINTS:
        arguments = [*SMALL_CHECKPOINTS[model](root), *arguments]
    if data in ("OmniglotEpisodes", "Maps"):
        SMALL_DATA[data](root)
    lengths = {
        "DARTSSearch": [f"--model.epochs={epochs}"],
        "DARTSRetrain": [f"--model.epochs={epochs}"],
        "LayerwiseMLP": ["--model.pretrain_epochs=1", f"--model.finetune_epochs={epochs}"],
    }
    return ["--config", str(path), *FEW, *arguments, *lengths.get(model, [f"--trainer.max_epochs={epochs}"])]
