"""Options of the command that aren't arguments of a class."""

from lightning.pytorch.cli import LightningArgumentParser

from lit_models.callbacks.learning_rate import Rule


def add_options(parser: LightningArgumentParser) -> None:
    """Add them to the parser of a command of the Trainer."""
    parser.add_argument(
        "--channels_last",
        type=bool,
        default=False,
        help="Keep the weights of convolutions, and so their images, in channels-last order (often faster).",
    )
    parser.add_argument(
        "--compile",
        type=bool,
        default=False,
        help="Compile the networks with torch.compile, for GPUs. On a CPU it takes 12 s to some minutes to start, "
        "by method, and gains nothing (0.64 to 1.03 times the speed).",
    )
    parser.add_argument(
        "--lr_scaling",
        type=Rule,
        default="none",
        help="Multiply the learning rates by the number of batches in a step, those of all processes (linear), or "
        "by its square root (sqrt).",
    )
