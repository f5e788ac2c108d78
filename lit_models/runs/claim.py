"""The folder that a command writes its run into, and a training's claim to it."""

import shutil
import tempfile
from pathlib import Path

from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from lit_models.errors import RunError
from lit_models.runs.folder import (
    RunOptions,
    is_restarted,
    new_run_folder,
    remove_if_empty,
    remove_if_empty_handed,
    require_agreement,
    require_writable,
)
from lit_models.runs.ownership import PATIENCE, Ownership
from lit_models.support.checkpoint_paths import last_checkpoint


class Claim:
    """A command's run: where it lies, whether the command began it, and in a training the lock on its folder.

    Attributes:
        folder: The run's folder; None until one is found or made.
        is_new: Whether this command made the folder.
        ownership: The lock; None on ranks other than 0, and in commands that don't train.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.is_new = False
        self.ownership: Ownership | None = None
        self._is_first = True

    def take(self, options: RunOptions, for_training: bool, goes_on: bool, nodes: int = 1) -> Path:
        """Makes the run's folder unless it was found with a checkpoint, and makes a training its only owner.

        Args:
            options: Where a new folder lies.
            for_training: Whether the command trains.
            goes_on: Whether it loads a checkpoint.
            nodes: How many nodes run the command.

        Raises:
            RunError: The folder can't be written into, or another process trains or has trained there; or the nodes
                can't agree on one.
        """
        self._is_first = _is_first_process(nodes)
        folder, is_new = self.folder, False
        if folder is None:
            if nodes > 1:
                require_agreement(options)
            folder = self.folder = new_run_folder(options, for_training)
            is_new = not any(folder.iterdir())
        try:
            require_writable(folder)
            if for_training and self._is_first:
                self.ownership = Ownership(folder, PATIENCE if is_restarted() else 0.0)
        except RunError:
            if is_new:
                remove_if_empty(folder)  # another process may have begun its run there in the meantime
            raise
        self.is_new = is_new
        if self.ownership is not None and not goes_on and last_checkpoint(folder) is not None:
            raise RunError(
                f"The run {folder} has just got a checkpoint from another process: go on with it by "
                "--ckpt_path last, or choose another --run.id."
            )
        return folder

    def take_for_trial(self) -> Path:
        """Makes a temporary folder, which :meth:`remove_trial` removes."""
        self.folder = Path(tempfile.mkdtemp(prefix="relit-"))
        return self.folder

    def remove_trial(self) -> None:
        """Removes the folder of a trial with everything in it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def release(self) -> None:
        """Frees the lock; does nothing if this process doesn't hold it."""
        if self.ownership is not None:
            self.ownership.release()
            self.ownership = None

    def remove_if_empty_handed(self) -> None:
        """Frees the lock on a folder that this command made, and removes the folder if it holds nothing to keep. Ranks
        other than 0 leave it alone."""
        if self.is_new and self._is_first and self.folder is not None:
            self.release()
            remove_if_empty_handed(self.folder)


def _is_first_process(nodes: int) -> bool:
    """Whether this process will have rank 0, before the Trainer has ranked it. Until then Lightning goes by RANK,
    LOCAL_RANK and Slurm's variables, without NODE_RANK, which is all that nodes started one by one have."""
    guess: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return guess == 0 and (nodes == 1 or LightningEnvironment().node_rank() == 0)
