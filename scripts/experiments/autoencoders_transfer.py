"""What an autoencoder's codes are good for."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import FIFTY_LABELS, MNIST
from experiments.declaration import Analysis, Budget, Experiment, Figure, Step
from experiments.gans_mnist import DIGITS
from experiments.vae import GRAY_DIGITS, VAE_MNIST

AUTOENCODER = {"--model.encoder_checkpoint": "autoencoder"}
TRANSFERS = {
    "linear_frozen": "linear layer on frozen codes",
    "mlp_frozen": "MLP on frozen codes",
    "linear_finetuned": "linear layer, encoder trained along",
    "mlp_finetuned": "MLP, encoder trained along",
}
AS_THEY_ARE = ("--data.max_rotation=0", "--data.max_translation=0", "--data.max_scaling=0")
"""The 50 images without augmentation, as in the runs that the pages cite."""
LATENT_GANS: dict[str, tuple[str, tuple[str, ...]]] = {
    "latent_gan": ("latent-space GAN", ()),
    "latent_gan_convolution": ("latent-space GAN, a last convolution", ("--model.extra_convolution=true",)),
    "latent_gan_batch_norm": ("latent-space GAN, batch normalization", ("--model.spectral_norm=false",)),
}

EXPERIMENT = Experiment(
    title="What an autoencoder's codes are good for: classes from 50 labels, and ways from one digit to another",
    steps=(
        Step("classifier", "digit classifier", "digit_classifier", "digit_classifier_mnist", MNIST, checkpoint="last"),
        Step("autoencoder", "denoising autoencoder", "autoencoder", "autoencoder_mnist", MNIST),
        *(
            Step(
                *(f"{name}{end}", f"transfer: {method}{said}", "autoencoder", f"transfer_mnist_{name}", FIFTY_LABELS),
                *(arguments, {} if name == "scratch" else AUTOENCODER),
            )
            for end, said, arguments in (("", "", ()), ("_plain", ", images as they are", AS_THEY_ARE))
            for name, method in {**TRANSFERS, "scratch": "the same network from scratch"}.items()
        ),
        VAE_MNIST,
        *(
            Step(
                *(name, method, "latent_gan", "latent_gan_mnist", MNIST, arguments),
                uses={"--model.decoder_checkpoint": "autoencoder"},
                checkpoint="last",
            )
            for name, (method, arguments) in LATENT_GANS.items()
        ),
    ),
    figures=(
        Figure("classifier", "test accuracy / %", "test/accuracy", kind="percent", of_images=True),
        Figure("autoencoder", "squared error of a pixel, denoised", "test/squared_error", main=False),
        *(
            Figure(
                *(f"{name}{end}", "test accuracy / %", "test/accuracy"),
                kind="percent",
                of_images=True,
                published=f"transfer_{name}" if end and name in TRANSFERS else None,
            )
            for end in ("", "_plain")
            for name in (*TRANSFERS, "scratch")
        ),
        *(
            Figure(
                *(
                    name,
                    "images on the way (slerp) that are surely one of both digits / %",
                    "test/sure_of_either_slerp",
                ),
                kind="percent",
                main=False,
            )
            for name in ("autoencoder", "vae_bernoulli", *LATENT_GANS)
        ),
        *(
            Figure(name, f"{score} ({DIGITS}) of 10,000", metric, main=score == "FID", features=DIGITS)
            for name in LATENT_GANS
            for score, metric in (("FID", "test/fid"), ("recall", "test/recall"), ("coverage", "test/coverage"))
        ),
    ),
    budgets={
        "smoke": Budget(
            {
                "*": FEW_BATCHES,
                **dict.fromkeys(("classifier", "autoencoder"), ("--data=Digits",)),
                "latent_gan": ("--data=Digits", "--trainer.callbacks=SampleGrid"),
                "vae_bernoulli": GRAY_DIGITS,
                **dict.fromkeys((*TRANSFERS, "scratch"), ("--data.images=Digits",)),
            },
            only=("classifier", "autoencoder", *TRANSFERS, "scratch", "vae_bernoulli", "latent_gan"),
            analysis=("--data", "Digits", "--per_pair", "1"),
        ),
        "cpu": Budget(dict.fromkeys(LATENT_GANS, ("--trainer.max_epochs=30", "--trainer.precision=bf16-mixed"))),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    analyses=(
        Analysis(
            (
                "scripts/analyses/compare_interpolations.py",
                *("--checkpoints", "{run:autoencoder}", "{run:vae_bernoulli}", "{run:latent_gan}"),
                *("--figure", "{folder}/interpolations.png", "--csv", "{folder}/interpolations.csv"),
            ),
            needs=("autoencoder", "vae_bernoulli", "latent_gan"),
        ),
    ),
)
