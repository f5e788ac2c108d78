"""The ``autoencoders`` part of ``benchmark.py``: `relit fit` against a bare loop of the same step, for the VAE, the
denoising autoencoder, the latent-space GAN, and the transfer classifier.

Both sides run the same number of steps again and again in one process, A B A B …, so that a change in the machine's
speed meets both; ratios are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_train import CONFIGS, relit_fit, timed

BATCH_SIZE = 64


def one_optimizer_bare(model: Any, batch: Any, steps: int, loss_of: Callable[[Any, Any], Any]) -> float:
    """Seconds of a bare loop of a model with one optimizer, on one batch that is in memory."""
    optimizer = model.configure_optimizers()

    def step() -> None:
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return timed(step, steps)


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


def gan_bare(model: Any, batch: Any, steps: int) -> float:
    """Seconds of a bare loop of the latent-space GAN."""
    from lit_models.adversarial import frozen

    (generator_optimizer, discriminator_optimizer), _ = model.configure_optimizers()

    def step() -> None:
        fake = model.generate(batch)
        loss = model.discriminator_loss(batch, fake.detach())
        discriminator_optimizer.zero_grad()
        loss.backward()
        discriminator_optimizer.step()
        with frozen(model.discriminator):
            loss = model.generator_loss(batch, fake)
            generator_optimizer.zero_grad()
            loss.backward()
        generator_optimizer.step()

    return timed(step, steps)


def bare(method: str, steps: int, checkpoint: Path) -> float:
    """Seconds of ``steps`` steps of a bare loop of the configuration of that method."""
    import torch

    from datamodules import FoldedImages, LabeledImages
    from lit_models import VAE, DenoisingAutoencoder, LatentGAN, TransferClassifier

    torch.manual_seed(0)
    batch = LabeledImages(torch.rand(BATCH_SIZE, 1, 32, 32), torch.randint(10, (BATCH_SIZE,)))
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
        return gan_bare(model, batch, steps)
    if method.startswith("transfer"):
        folded = FoldedImages(batch.image[:50], batch.label[:50], torch.arange(50) % 4)
        return one_optimizer_bare(model, folded, steps, transfer_loss)
    loss = vae_loss if method == "vae_mnist" else lambda model, batch: model.reconstruction_loss(batch.image)[0]
    return one_optimizer_bare(model, batch, steps, loss)


METHODS = [
    "vae_mnist",
    "autoencoder_mnist",
    "latent_gan_mnist",
    "transfer_mnist_linear_frozen",
    "transfer_mnist_mlp_finetuned",
]


def run_autoencoders(args: argparse.Namespace) -> None:
    """``benchmark.py autoencoders``."""
    import lightning
    import torch

    from lit_models import DenoisingAutoencoder

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    root = Path(args.root or "").expanduser().absolute()
    data = "MNIST" if (root / "mnist").is_dir() else "Digits"
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "autoencoder.ckpt"
        model = DenoisingAutoencoder(32, 1, 64, 16)
        content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        torch.save({**content, "pytorch-lightning_version": lightning.__version__}, checkpoint)
        print("| experiment | images/s, relit fit | images/s, bare loop | time: ours / bare |")
        print("| --- | ---: | ---: | ---: |")
        for method in args.methods:
            transfer = method.startswith("transfer")
            arguments = [
                *("--config", str(CONFIGS / f"{method}.yaml"), "--trainer.accelerator=cpu", "--channels_last=true"),
                "--checkpoint.monitor=null",  # there is no validation
                *((f"--data.images={data}", "--data.repeats=1000") if transfer else (f"--data={data}",)),
                *(() if transfer else (f"--data.root={root}",)),
                *(("--model.decoder_checkpoint", str(checkpoint)) if method == "latent_gan_mnist" else ()),
                *(("--model.encoder_checkpoint", str(checkpoint)) if transfer else ()),
                *(("--trainer.callbacks=null",) if transfer else ()),
            ]
            fit = relit_fit(args.steps, *arguments)
            times: dict[str, list[float]] = {"relit fit": [], "bare loop": []}
            for _ in range(args.rounds):
                times["relit fit"].append(fit())
                times["bare loop"].append(bare(method, args.steps, checkpoint))
            images = args.steps * (50 if transfer else BATCH_SIZE)
            ours, theirs = (images / statistics.median(values) for values in times.values())
            ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
            print(f"| {method} | {ours:,.0f} | {theirs:,.0f} | {ratio:.2f} |", flush=True)
            seconds[method] = times
    print(
        f"\nMedians of {args.rounds} rounds of {args.steps} steps each, in turns, on {data}, {args.threads} threads on "
        f"{os.cpu_count()} processors, torch {torch.__version__}."
    )
    if args.json:
        args.json.write_text(json.dumps({"steps": args.steps, "seconds": seconds}, indent=1), encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py autoencoders``."""
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--steps", type=int, default=30, help="steps of each measurement (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_autoencoders)
