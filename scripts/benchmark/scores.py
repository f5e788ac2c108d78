"""The ``scores`` part of ``benchmark.py``: what the scores of generated images cost.

The test of a shipped generator with all scores, and with those that relit had at first: FID, KID and the Inception
Score, and FID at best and at worst. In seconds of processor time, without start-up.
"""

# Only the standard library is imported at the top, as in all parts.
import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.race import add_common_arguments, begin, print_table, race, ratio, write_json

WEIGHTS = Path(__file__).parents[2] / "weights" / "dcgan_mnist.safetensors"


# --- the two sides ----------------------------------------------------------------------------------------------------


def all_scores(images: int) -> Any:
    """The callback with all scores, as a test has it."""
    from lit_models.callbacks import GenerationScores

    return GenerationScores(test_count=images, real_count=images, training_count=2 * images)


def three_scores(images: int) -> Any:
    """A callback with FID, KID and Inception Score alone, against training images."""
    import torch
    from torch import Tensor

    from lit_models.callbacks import GenerationScores
    from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance

    class ThreeScores(GenerationScores):
        def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            data, size, seed = trainer.datamodule, self.batch_size, torch.Generator().manual_seed
            training, _ = self._dataset_features(trainer, data.train_set, 2 * self.real_count, "training images")
            half = len(training.embedding) // 2
            real, other = training.embedding[:half], training.embedding[half:]

            def generate(batch: int) -> Tensor:
                return pl_module.sample(min(size, self.test_count - batch * size), None, seed(batch))

            def noise(batch: int) -> Tensor:
                shape = (min(size, self.test_count - batch * size), *data.image_shape)
                return torch.rand(shape, generator=seed(batch))

            fake = self._features(trainer, self.test_count, generate, "generated images")
            random = self._features(trainer, self.test_count, noise, "noise")
            for features in (fake.embedding, other, random.embedding):
                frechet_distance(real, features)
            kernel_distance(real, fake.embedding)
            for logits in (fake.logits, training.logits[:half]):
                inception_score(logits)

    return ThreeScores(test_count=images, real_count=images)


def seconds_of_a_test(callback: Callable[[int], Any], images: int, data: Any) -> float:
    """Processor time of the shipped generator's test."""
    from lightning.pytorch import Trainer

    from lit_models.support.weights import build_model, read_weights

    model = build_model(read_weights(WEIGHTS), WEIGHTS)
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(accelerator="cpu", callbacks=[callback(images)], default_root_dir=folder, **quiet)
        with redirect_stdout(io.StringIO()):
            start = time.process_time()
            trainer.test(model, data, verbose=False)
            return time.process_time() - start


# --- the command line -------------------------------------------------------------------------------------------------


def run_scores(args: argparse.Namespace) -> None:
    """``benchmark.py scores``."""
    root = begin(args)
    import datamodules

    data = getattr(datamodules, args.data)(root=str(root), **({"image_size": 32} if args.data == "MNIST" else {}))
    sides = {"FID, KID, Inception Score": three_scores, "all scores": all_scores}
    measures = {name: partial(seconds_of_a_test, side, args.images, data) for name, side in sides.items()}
    seconds = race(measures, args.rounds)
    before, now = seconds.values()
    rows = [(name, f"{statistics.median(times):.1f}") for name, times in seconds.items()]
    print_table((f"scores of {args.images:,} images", "seconds"), rows)
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)}"
    threads = f"{args.threads} thread{'s' * (args.threads > 1)}"
    times = f"{ratio(now, before):.2f} times the processor time"
    print(f"\nAll take {times}. Medians of {rounds}, in turns, {threads}, {args.data}.")
    write_json(args, seconds=seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py scores``."""
    add_common_arguments(parser, run_scores, steps=None, rounds=3)
    parser.add_argument("--images", type=int, default=10_000, help="generated images (default: %(default)s)")
    parser.add_argument("--data", choices=["MNIST", "Digits"], default="MNIST", help="real images (default: MNIST)")
