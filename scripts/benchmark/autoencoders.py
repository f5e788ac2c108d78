"""The ``autoencoders`` part of ``benchmark.py``: `relit fit` against a bare loop of the same step, for the VAE, the
denoising autoencoder, the latent-space GAN, and the transfer classifier.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.race import add_common_arguments, begin, print_conditions, print_table, race, ratio, write_json
from benchmark.sides import CONFIGS, adversarial_loop, one_optimizer_loop, relit_fit
from tests.support.small_data import write_autoencoder

BATCH_SIZE = 64
METHODS = [
    "vae_mnist",
    "autoencoder_mnist",
    "latent_gan_mnist",
    "transfer_mnist_linear_frozen",
    "transfer_mnist_mlp_finetuned",
]


def vae_loss(model: Any, batch: Any) -> Any:
    """The VAE's objective, without what is only logged."""
    from lit_models.losses.vae import bernoulli_log_likelihood, gaussian_kl, pointwise_loss

    mean, log_variance = model.encode(batch.image)
    nats = -bernoulli_log_likelihood(batch.image, model.logits(model.draw(mean, log_variance)))
    return pointwise_loss(nats, gaussian_kl(mean, log_variance)).mean()


def transfer_loss(model: Any, batch: Any) -> Any:
    """The transfer classifier's objective on augmented images, without what is only logged."""
    from datamodules.loading.augment import random_affine
    from lit_models.transfer_classifier import cross_entropies

    image = random_affine(batch.image, 15, 0.06, (0.85, 1.15))
    losses = cross_entropies(model.all_logits(image), batch.label)
    return (losses * model.learns(batch.fold)).mean(1).sum()


def bare(method: str, steps: int, checkpoint: Path) -> float:
    """Seconds of ``steps`` steps of a bare loop of the configuration of that method."""
    import torch

    from datamodules import FoldedImages, LabeledImages
    from lit_models import VAE, DenoisingAutoencoder, LatentGAN, TransferClassifier

    torch.manual_seed(0)
    batch: Any = LabeledImages(torch.rand(BATCH_SIZE, 1, 32, 32), torch.randint(10, (BATCH_SIZE,)))
    sizes: dict[str, Any] = {"image_size": 32, "channels": 1, "feature_maps": 16}
    models: dict[str, Callable[[], Any]] = {
        "vae_mnist": lambda: VAE(**sizes, latent_dim=32, likelihood="bernoulli"),
        "autoencoder_mnist": lambda: DenoisingAutoencoder(**sizes, latent_dim=64, noise_std=0.5),
        "latent_gan_mnist": lambda: LatentGAN(str(checkpoint), **sizes, discriminator_feature_maps=16),
        "transfer_mnist_linear_frozen": lambda: TransferClassifier(str(checkpoint), **sizes),
        "transfer_mnist_mlp_finetuned": lambda: TransferClassifier(str(checkpoint), False, "mlp", **sizes),
    }
    model = models[method]().to(memory_format=torch.channels_last)
    if method == "latent_gan_mnist":
        return adversarial_loop(model, batch, steps)
    loss = vae_loss if method == "vae_mnist" else lambda model, batch: model.reconstruction_loss(batch.image)[0]
    if method.startswith("transfer"):
        loss, batch = transfer_loss, FoldedImages(batch.image[:50], batch.label[:50], torch.arange(50) % 4)
    return one_optimizer_loop(model.configure_optimizers(), lambda: loss(model, batch), steps)


def run_autoencoders(args: argparse.Namespace) -> None:
    """``benchmark.py autoencoders``."""
    root = begin(args)
    data = "MNIST" if (root / "mnist").is_dir() else "Digits"
    seconds, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_autoencoder(Path(folder, "autoencoder.ckpt"), latent_dim=64, feature_maps=16)
        for method in args.methods:
            transfer = method.startswith("transfer")
            arguments = [
                *("--config", str(CONFIGS / f"{method}.yaml"), "--trainer.accelerator=cpu", "--channels_last=true"),
                *((f"--data.images={data}", "--data.repeats=1000") if transfer else (f"--data={data}",)),
                f"--data.{'images.' if transfer else ''}root={root}",
                *(("--model.decoder_checkpoint", str(checkpoint)) if method == "latent_gan_mnist" else ()),
                *(("--model.encoder_checkpoint", str(checkpoint)) if transfer else ()),
                *(("--trainer.callbacks=[]",) if transfer else ()),
            ]
            bare_loop = lambda method=method: bare(method, args.steps, checkpoint)  # noqa: E731
            sides = {"relit fit": relit_fit(args.steps, *arguments), "bare loop": bare_loop}
            seconds[method] = race(sides, args.rounds)
            images = args.steps * (50 if transfer else BATCH_SIZE)
            speeds = (f"{images / statistics.median(times):,.0f}" for times in seconds[method].values())
            rows.append((method, *speeds, f"{ratio(*seconds[method].values()):.2f}"))
    print_table(("experiment", "images/s, relit fit", "images/s, bare loop", "time: ours / bare"), rows)
    print_conditions(args, f"on {data}")
    write_json(args, seconds=seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py autoencoders``."""
    add_common_arguments(parser, run_autoencoders, steps=30, rounds=5)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
