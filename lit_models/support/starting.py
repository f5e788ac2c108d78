"""Networks that start with weights which were trained elsewhere."""

from abc import abstractmethod
from typing import Any, ClassVar

from lit_models.errors import ModelError
from lit_models.module import Method


class StartsTrained(Method):
    """Base of methods whose arguments may name weights to start from.

    The weights are loaded once, when the first stage of :attr:`starts_in` begins, unless a checkpoint has been loaded,
    whose weights replace them. Other stages refuse a model that has none yet.
    """

    starts_in: ClassVar[frozenset[str]] = frozenset(("fit", "validate", "test", "predict"))
    """Stages that a model can begin with the weights that it starts from."""
    pretrained: str | None = None
    """The argument ``pretrained``: a file, or "imagenet"."""
    has_weights = False

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("pretrained",)

    @abstractmethod
    def load_starting_weights(self) -> None:
        """Load what the arguments name, if they name anything."""

    def on_fit_start(self) -> None:
        self._start("fit")

    def on_validation_start(self) -> None:
        self._start("validate")

    def on_test_start(self) -> None:
        self._start("test")

    def on_predict_start(self) -> None:
        self._start("predict")

    def _start(self, stage: str) -> None:
        if self.has_weights:
            return
        if stage in self.starts_in:
            self.load_starting_weights()
            self.has_weights = True
        elif self.pretrained is not None:
            raise ModelError(
                f"{type(self).__name__} starts from --model.pretrained in training, and this one has had none: add "
                "--ckpt_path."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.has_weights = True
