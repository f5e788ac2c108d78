"""Variational autoencoders of digits and of faces."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import LFW, MNIST
from experiments.declaration import Analysis, Budget, Experiment, Figure, Step
from experiments.gans_lfw import IMAGENET

GRAY_DIGITS = ("--data=Digits", "--model.likelihood=gaussian", "--model.importance_samples=2")
VAE_MNIST = Step("vae_bernoulli", "VAE", "vae", "vae_mnist", MNIST)
FIXED = "--model.variance=fixed"
FACES = {
    "vae_faces": ("optimal variance", ()),
    "vae_faces_low": ("low variance, σ² = 1e-7", (FIXED, "--model.x_sigma2=1e-7")),
    "vae_faces_middle": ("σ² = 4e-6", (FIXED, "--model.x_sigma2=4e-6")),
    "vae_faces_high": ("high variance, σ² = 4e-5", (FIXED, "--model.x_sigma2=4e-5")),
    "vae_faces_no_kl": ("optimal variance, no KL term", ("--model.kl_weight=0",)),
}

EXPERIMENT = Experiment(
    title="Variational autoencoders of digits and of a face",
    steps=(
        VAE_MNIST,
        Step("vae_dynamic", "VAE, dynamic binarization", "vae", "vae_mnist", MNIST, ("--data.binarization=dynamic",)),
        Step("vae_2d", "VAE, 2 latent components", "vae", "vae_mnist_2d", MNIST),
        *(Step(name, f"VAE, {what}", "vae", "vae_lfw", LFW, arguments) for name, (what, arguments) in FACES.items()),
    ),
    figures=(
        *(
            figure
            for name in ("vae_bernoulli", "vae_dynamic", "vae_2d")
            for figure in (
                Figure(
                    *(name, "nats, importance-weighted bound, 200 draws", "test/nats_importance_weighted"),
                    digits=2,
                    published="vae_mnist_bound" if name == "vae_bernoulli" else None,
                ),
                Figure(name, "nats, bound", "test/nats", main=False, digits=2),
                Figure(name, "nats, independent pixels (histogram)", "test/nats_histogram", main=False, digits=2),
            )
        ),
        *(
            figure
            for name in FACES
            for figure in (
                Figure(name, "bits per dimension, bound", "test/bits_per_dim", main=name == "vae_faces"),
                Figure(name, "bits per dimension, smallest possible", "test/bits_per_dim_floor", main=False),
                Figure(name, "nats, KL divergence", "test/kl_nats", main=False),
                Figure(name, f"FID ({IMAGENET}) of 2,000", "test/fid", main=False, features=IMAGENET),
            )
        ),
        Figure("vae_faces", "nats, bound", "test/nats", main=False, digits=0),
        Figure("vae_faces", "nats, independent pixels (histogram)", "test/nats_histogram", main=False, digits=0),
    ),
    budgets={
        "smoke": Budget(
            {
                "*": (*FEW_BATCHES, "--model.importance_samples=2"),
                **dict.fromkeys(("vae_bernoulli", "vae_2d"), GRAY_DIGITS),
                "vae_dynamic": ("--data.batch_size=32",),
            },
        ),
        "cpu": Budget(),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/nats", "val/reconstruction_nats", "val/kl_nats"),
    analyses=(
        Analysis(
            (
                "scripts/analyses/vae_variances.py",
                *("--checkpoints", *(f"{{run:{name}}}" for name in FACES), "--figure", "{folder}/variances.png"),
            ),
            needs=tuple(FACES),
        ),
    ),
)
