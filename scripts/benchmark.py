"""Measures this project against the textbook way of doing the same, in one run on one machine.

    python scripts/benchmark.py data --data MNIST CIFAR10
    python scripts/benchmark.py read
    python scripts/benchmark.py train --threads 2
    python scripts/benchmark.py train --method sngan wgan_gp
    python scripts/benchmark.py fit dcgan_mnist --against FOLDER --script main.py
    python scripts/benchmark.py start dcgan_mnist
    python scripts/benchmark.py protonet
    python scripts/benchmark.py layerwise
    python scripts/benchmark.py autoencoders
    python scripts/benchmark.py resnet
    python scripts/benchmark.py darts
    python scripts/benchmark.py scale --methods DCGAN VAE
    python scripts/benchmark.py scores
    python scripts/benchmark.py translation

Ratios within a run mean something anywhere; absolute values hold for the machine that they come from.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # some sides are the tests' references

COMMANDS = {
    "data": "training loaders against torchvision's data sets and a DataLoader",
    "read": "reading a folder of pictures on one core and on all, and starting again",
    "train": "training by `relit fit` against a bare loop and against the textbook's loop",
    "fit": "any configuration's speed, share of the machine's peak, start-up and memory, and a peer's",
    "start": "time to the first optimizer step and peak of memory of every configuration",
    "protonet": "episodes against the textbook's",
    "layerwise": "cached codes against running the layers below again",
    "autoencoders": "VAE, autoencoder, latent-space GAN and transfer against bare loops",
    "translation": "pix2pix's step and its loader against the textbook's",
    "resnet": "ResNet18 and its losses against the textbook's",
    "darts": "a step of DARTS's search against a port of the public code",
    "scores": "all scores of generated images against FID, KID and Inception Score alone",
    "scale": "one process and two, and on paper 8 and 64 GPUs",
}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        # Only the chosen part is imported: `data` measures memory, and torch would count.
        part = import_module(f"benchmark.{name}") if name in sys.argv[1:2] else None
        command = commands.add_parser(name, help=summary, description=part and part.__doc__)
        if part:
            part.add_arguments(command)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
