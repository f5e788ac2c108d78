"""Ways to give a conditional GAN the class."""

from experiments.budgets import GAN_SMOKE, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_mnist import DIGITS

ONE_HOT = "--model.label_encoding=one_hot"
PLACES = {
    "latent": ("class joined to z", "conditional_gan_mnist"),
    "image": ("class joined after decoding", "conditional_gan_mnist_image"),
}
EMBEDDING_DIMS = (20, 65)

EXPERIMENT = Experiment(
    title="Digits on demand",
    steps=(
        Step(
            *("concat", "conditional GAN", "conditional_gan", "conditional_gan_mnist", MNIST, (ONE_HOT,)),
            checkpoint="last",
        ),
        Step(
            "concat_image",
            "conditional GAN, class joined after decoding",
            "conditional_gan",
            "conditional_gan_mnist_image",
            MNIST,
            (ONE_HOT,),
            checkpoint="last",
        ),
        *(
            Step(
                f"embedding_{size}_{place}",
                f"conditional GAN, {where}, embeddings of {size}",
                "conditional_gan",
                config,
                MNIST,
                ("--model.label_encoding=embedding", f"--model.embedding_dim={size}"),
                checkpoint="last",
            )
            for place, (where, config) in PLACES.items()
            for size in EMBEDDING_DIMS
        ),
        Step(
            "projection",
            "conditional GAN, projection discriminator",
            "conditional_gan",
            "conditional_gan_mnist_projection",
            MNIST,
            checkpoint="last",
        ),
    ),
    figures=tuple(
        figure
        for name in (
            *("concat", "concat_image", "projection"),
            *(f"embedding_{size}_{place}" for place in PLACES for size in EMBEDDING_DIMS),
        )
        for figure in (
            Figure(
                name,
                "images judged to be the digit asked for / %",
                "test/label_accuracy",
                kind="percent",
                main=name in ("concat", "projection"),
                published="digits_asked_for" if name == "concat" else None,
                unlike="judged by another classifier" if name == "concat" else "",
            ),
            Figure(
                name, "spread within a class (digits, block 2) of 10,000", "test/spread", main=False, features=DIGITS
            ),
            Figure(name, "coverage (digits, block 2) of 10,000", "test/coverage", main=False, features=DIGITS),
            Figure(
                name,
                "FID (digits, block 2) of 10,000",
                "test/fid",
                main=name in ("concat", "projection"),
                digits=3,
                features=DIGITS,
            ),
            Figure(name, "Inception Score (digits) of 10,000", "test/inception_score", main=False, features=DIGITS),
        )
    ),
    budgets={
        "smoke": Budget(
            {"*": GAN_SMOKE},
            only=("concat", "concat_image", "embedding_20_latent", "embedding_20_image", "projection"),
        ),
        "cpu": Budget({"*": ("--trainer.precision=bf16-mixed",)}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/label_accuracy", "val/fid", "val/discriminator_loss", "val/generator_loss"),
)
