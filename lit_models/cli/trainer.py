"""The trainer of the command, and what it does to a model before training."""

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from datamodules import ImageDataModule
from datamodules.loading.preview import draw_training_batch
from lit_models.errors import RunError
from lit_models.module import Method


class RelitTrainer(Trainer):
    """Lightning's Trainer with a method for ``relit prepare``, and limits of which 1 is one batch and 1.0 is all.

    Args:
        limit_train_batches: Batches of an epoch: how many (a whole number), or which part of them (0.0 to 1.0).
        limit_val_batches: Batches of a validation, as above.
        limit_test_batches: Batches of a test, as above.
        limit_predict_batches: Batches of a prediction, as above.
        **others: Arguments of Lightning's Trainer.
    """

    # Lightning's own annotation is one in which a whole number becomes a part, as it comes second.
    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **others: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **others,
        )

    def prepare(
        self,
        model: LightningModule | None = None,
        datamodule: LightningDataModule | None = None,
        picture: str | None = None,
    ) -> None:
        """Downloads and prepares a data set, without training (on a cluster's login node, say).

        Args:
            model: The model that the data are for: data of no fixed size get the size of its images.
            datamodule: The data set.
            picture: PNG file in which to draw a training batch with its labels; none if null.
        """
        if datamodule is None:
            raise RunError("`relit prepare` needs data: --config FILE or --data CLASS.")
        if model is not None:
            self.strategy.connect(model)
        datamodule.trainer = self
        datamodule.prepare_data()
        if picture is not None:
            draw_training_batch(cast(ImageDataModule, datamodule), Path(picture))
        print(f"{type(datamodule).__name__} is prepared.")


def compile_networks(model: LightningModule) -> None:
    """Compiles each network of a module in place, except those that the method names in ``not_compiled``; each of those
    that it holds together in one ``ModuleDict`` or ``ModuleList``, which are never called themselves."""
    for name, network in model.named_children():
        if isinstance(model, Method) and name in model.not_compiled:
            continue
        held = network.children() if isinstance(network, (nn.ModuleDict, nn.ModuleList)) else [network]
        for part in held:
            part.compile()
