"""Files that a search and a training of its cells leave in the run folder: genotypes and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_models.darts.drawing import draw_genotype, draw_search
from lit_models.darts.genotype import Genotype
from lit_models.support.files import write_atomically
from lit_models.support.lightning_internals import is_trial
from lit_models.support.logging import log_figure


def write_search(trainer: Trainer, genotype: Genotype, history: Sequence[dict[str, Any]]) -> None:
    """Write the genotype of an epoch that ends, and draw its cells and the search so far.

    Args:
        trainer: The trainer.
        genotype: What the search would end with now.
        history: α, accuracies and the learning rate of each epoch.
    """
    if not trainer.is_global_zero or is_trial(trainer):
        return
    run, epoch = Path(trainer.default_root_dir), trainer.current_epoch + 1
    (run / "genotypes").mkdir(parents=True, exist_ok=True)
    for path in (run / "genotypes" / f"epoch_{epoch:04d}.json", run / "genotype.json"):
        write_atomically(path, genotype.to_json())
    log_figure(trainer, draw_genotype(genotype, run / "figures" / "cells.png", f"after epoch {epoch}"))
    log_figure(trainer, draw_search(history, run / "figures" / "search.png"))


def write_cells(trainer: Trainer, cells: Genotype) -> None:
    """Write the genotype of a network that is about to be trained, and draw its cells."""
    if not trainer.is_global_zero or is_trial(trainer):
        return
    run = Path(trainer.default_root_dir)
    picture = draw_genotype(cells, run / "figures" / "cells.png")
    write_atomically(run / "genotype.json", cells.to_json())
    log_figure(trainer, picture)
