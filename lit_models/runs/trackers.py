"""TensorBoard and MLflow with their place in the run's folder, where a resumed run finds them again.

``configs/logger/tensorboard.yaml`` and ``configs/logger/mlflow.yaml`` name them.
"""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from lit_models.errors import RunError
from lit_models.runs.loggers import MetricsCSV, WandbOptions, as_list, wandb_logger
from lit_models.support.files import write_atomically

MLFLOW_ID = "mlflow_id"
"""The file in the run's folder that keeps the id of its MLflow run."""


class TensorBoard(TensorBoardLogger):
    """TensorBoard's event files in the run's folder ``tensorboard/`` (extra ``relit[tensorboard]``).

    A resumed run writes into the same folder; TensorBoard then hides what a killed run logged after the checkpoint.

    Args:
        log_graph: Add the model's graph. Needs a model with an ``example_input_array``.
    """

    def __init__(self, log_graph: bool = False) -> None:
        self._arguments: dict[str, Any] = {"log_graph": log_graph}
        try:
            super().__init__("tensorboard", name="", version="", **self._arguments)
        except ModuleNotFoundError as error:
            raise RunError("TensorBoard isn't installed: pip install 'relit[tensorboard]'.") from error

    def place(self, run_folder: Path, experiment: str, step: int | None) -> None:
        """Puts the files into a run's folder.

        Args:
            run_folder: The run's folder.
            experiment: Not used; the folder is named after it.
            step: The step from which the run is resumed.
        """
        # The pictures of the last epoch were logged at the very step of its checkpoint.
        purge: dict[str, Any] = {} if step is None else {"purge_step": step + 1}
        super().__init__(run_folder, name="", version="tensorboard", **self._arguments, **purge)


class MLflow(MLFlowLogger):
    """One MLflow run for one run folder (extra ``relit[mlflow]``).

    Args:
        tracking_uri: MLflow's server or store. If null, ``$MLFLOW_TRACKING_URI``, else the folder ``mlruns/`` in the
            run's folder.
        experiment_name: MLflow's experiment. If null, ``$MLFLOW_EXPERIMENT_NAME``, else relit's experiment.
        tags: Tags of the run.
        checkpoints: Upload the checkpoints as artifacts when training ends.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        tags: dict[str, str] | None = None,
        checkpoints: bool = False,
    ) -> None:
        self.run_folder: Path | None = None
        self._uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._given_experiment = experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._arguments: dict[str, Any] = {"tags": tags, "log_model": checkpoints}
        try:
            import mlflow  # noqa: F401
        except ModuleNotFoundError as error:
            raise RunError("MLflow isn't installed: pip install 'relit[mlflow]'.") from error

    def place(self, run_folder: Path, experiment: str, step: int | None) -> None:
        """Names the MLflow run after the run's folder, and goes on with the folder's MLflow run if it has one.

        Args:
            run_folder: The run's folder.
            experiment: Its experiment.
            step: Not used: MLflow keeps all values of a step.
        """
        self.run_folder = run_folder
        identifier = run_folder / MLFLOW_ID
        if self._uri is None:
            # MLflow 3 asks for this where the store is a folder.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        super().__init__(
            experiment_name=self._given_experiment or experiment,
            run_name=f"{experiment}/{run_folder.name}",
            tracking_uri=self._uri or (run_folder.absolute() / "mlruns").as_uri(),
            run_id=identifier.read_text(encoding="utf-8").strip() if identifier.is_file() else None,
            **self._arguments,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        from mlflow.exceptions import MlflowException

        is_new = self._run_id is None
        try:
            client = super().experiment
        except MlflowException as error:
            reason = str(error).splitlines()[0].partition(" failed with exception ")[0]
            raise RunError(
                f"MLflow's server or store {self._uri or 'in the run folder'} can't be used ({reason}): start it, or "
                "correct --trainer.logger.tracking_uri or $MLFLOW_TRACKING_URI."
            ) from error
        if is_new and self.run_folder is not None and self._run_id is not None:
            write_atomically(self.run_folder / MLFLOW_ID, self._run_id)
        return client


def run_loggers(
    given: Any, wandb: WandbOptions, folder: Path, experiment: str, step: int | None, writes_rows: bool = True
) -> list[Any]:
    """All loggers of a run: ``metrics.csv``, the user's, and W&B if it is enabled.

    Args:
        given: The Trainer's argument ``logger``.
        wandb: The options of W&B.
        folder: The run's folder.
        experiment: The experiment's name.
        step: The step of the checkpoint that the training goes on from; None without.
        writes_rows: Whether ``metrics.csv`` gets the values.
    """
    rows = [MetricsCSV(folder)] if writes_rows else []
    loggers = [*rows, *(as_list(given) if not isinstance(given, bool) else [])]
    for logger in loggers:
        if isinstance(logger, (TensorBoard, MLflow)):
            logger.place(folder, experiment, step)
    if wandb.enabled:
        loggers.append(wandb_logger(wandb, folder, experiment))
    return loggers
