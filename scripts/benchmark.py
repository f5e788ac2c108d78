"""Measures this project against the textbook way of doing the same, in one run on one machine.

    python scripts/benchmark.py data --data MNIST CIFAR10
    python scripts/benchmark.py train --threads 2
    python scripts/benchmark.py train --method sngan wgan_gp
    python scripts/benchmark.py protonet
    python scripts/benchmark.py layerwise
    python scripts/benchmark.py autoencoders
    python scripts/benchmark.py resnet
    python scripts/benchmark.py darts
    python scripts/benchmark.py scale --methods DCGAN VAE
    python scripts/benchmark.py translation

Ratios within a run mean something anywhere; absolute figures hold for the machine that they come from.
"""

import argparse

import benchmark_autoencoders
import benchmark_darts
import benchmark_data
import benchmark_layerwise
import benchmark_protonet
import benchmark_resnet
import benchmark_scale
import benchmark_train
import benchmark_translation


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, part, what in (
        ("data", benchmark_data, "training loaders against torchvision's data sets and a DataLoader"),
        ("train", benchmark_train, "training by `relit fit` against a bare loop and against the textbook's loop"),
        ("protonet", benchmark_protonet, "episodes against the textbook's"),
        ("layerwise", benchmark_layerwise, "cached codes against running the layers below again"),
        ("autoencoders", benchmark_autoencoders, "VAE, autoencoder, latent-space GAN and transfer against bare loops"),
        ("translation", benchmark_translation, "pix2pix's step and its loader against the textbook's"),
        ("resnet", benchmark_resnet, "ResNet18 and its losses against the textbook's"),
        ("darts", benchmark_darts, "a step of DARTS's search against a port of the public code"),
        ("scale", benchmark_scale, "one process and two, and on paper 8 and 64 GPUs"),
    ):
        part.add_arguments(commands.add_parser(name, help=what, description=part.__doc__))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
