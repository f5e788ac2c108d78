from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler

from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import SequentialBatches, ShuffledBatches
from datamodules.loading.tensors import GatherDataset, LabeledImages

SIZE = 20


def loader(batch_size: int = 4, seed: int = 0) -> BatchLoader[LabeledImages]:
    labels = torch.arange(SIZE)
    data = GatherDataset(LabeledImages(labels.view(SIZE, 1, 1, 1).float(), labels))
    return BatchLoader(data, ShuffledBatches(SIZE, batch_size, seed))


def labels(batches: BatchLoader[LabeledImages]) -> list[list[int]]:
    return [batch.label.tolist() for batch in batches]


def test_an_epoch_is_the_samplers() -> None:
    batches = loader()
    batches.set_epoch(3)
    assert len(batches) == 5
    assert labels(batches) == [rows.tolist() for rows in batches.batch_sampler.epoch(3)]


def test_an_epoch_that_is_gone_through_again_is_the_same_and_the_next_another() -> None:
    batches = loader()
    first = labels(batches)
    assert labels(batches) == first
    batches.set_epoch(1)
    assert labels(batches) != first


def test_an_iteration_that_was_left_starts_again() -> None:
    batches = loader()
    whole = labels(batches)
    next(iter(batches))
    assert labels(batches) == whole


def test_the_state_says_how_far_the_epoch_is() -> None:
    batches = loader()
    batches.set_epoch(2)
    iterator = iter(batches)
    next(iterator), next(iterator)
    place = {"epoch": 2, "batches_seen": 2, "batches": 5, "rows_seen": 8, "share": 4, "rows": SIZE}
    assert batches.state_dict() == place


def test_a_resumed_epoch_is_resumed_once_only() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batches_seen": 3, "batches": 5})
    whole = loader()
    whole.set_epoch(1)
    expected = labels(whole)
    assert labels(resumed) == expected[3:]
    assert labels(resumed) == expected


def test_the_epoch_after_a_resumed_one_is_whole() -> None:
    resumed, whole = loader(), loader()
    resumed.load_state_dict({"epoch": 1, "batches_seen": 3, "batches": 5})
    for one in (resumed, whole):
        one.set_epoch(2)
    assert labels(resumed) == labels(whole)


def test_with_another_batch_size_the_epoch_starts_again() -> None:
    resumed, whole = loader(batch_size=5), loader(batch_size=5)
    resumed.load_state_dict({"epoch": 1, "batches_seen": 3, "batches": 5})
    resumed.set_epoch(1)
    whole.set_epoch(1)
    assert labels(resumed) == labels(whole)
    assert len(whole) == 4


@pytest.mark.parametrize("batch_size", [2, 3, 5, 8])
@pytest.mark.parametrize("seen", [0, 1, 3, 5])
def test_with_another_batch_size_the_epoch_goes_on_behind_the_rows_that_were_used(batch_size: int, seen: int) -> None:
    begun, resumed = loader(), loader(batch_size)
    for one in (begun, resumed):
        one.set_epoch(1)
    used = [label for batch in islice(begun, seen) for label in batch.label.tolist()]
    resumed.load_state_dict(begun.state_dict())
    assert resumed.change == f"goes on after the {4 * seen} of {SIZE} that it has used"
    rest = [label for batch in labels(resumed) for label in batch]
    assert resumed.batches_seen == len(resumed), "Lightning's count of batches comes out even"
    assert len(set(used + rest)) == len(used + rest), "none twice"
    assert SIZE - len(used + rest) < batch_size, "none left out but a last part of a batch"


def test_on_another_number_of_processes_the_epoch_goes_on_behind_the_rows_that_were_used() -> None:
    begun = loader(batch_size=3)
    used = [label for batch in islice(begun, 2) for label in batch.label.tolist()]
    rest = []
    for rank in range(2):
        resumed = loader()
        resumed = BatchLoader(resumed.dataset, ShuffledBatches(SIZE, 3, rank=rank, world_size=2))
        resumed.load_state_dict(begun.state_dict())
        rest += [label for batch in labels(resumed) for label in batch]
    assert len(rest) == 12
    assert len({*used, *rest}) == 18


def test_with_other_data_the_epoch_starts_over() -> None:
    resumed = loader()
    resumed.load_state_dict({**loader().state_dict(), "rows": 30, "rows_seen": 8, "batches_seen": 2})
    assert resumed.change == "starts over"
    assert len(labels(resumed)) == 5


def test_it_takes_torchs_batch_samplers_and_has_a_sampler_that_lightning_leaves_in_place() -> None:
    batches = loader()
    assert isinstance(batches.sampler, SequentialSampler)
    theirs: Any = BatchLoader(batches.dataset, BatchSampler(SequentialSampler(range(SIZE)), 8, drop_last=False))
    assert labels(theirs) == [list(range(8)), list(range(8, 16)), list(range(16, SIZE))]


def test_any_source_of_batches_will_do() -> None:
    class Squares:
        def __getitems__(self, indices: Tensor) -> tuple[Tensor]:
            return (indices**2,)

    assert [batch[0].tolist() for batch in BatchLoader(Squares(), SequentialBatches(5, 3))] == [[0, 1, 4], [9, 16]]


class Recorder(LightningModule):
    """Notes the labels of every batch; dies at a given step."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.dies_at = dies_at
        self.seen: list[list[int]] = []

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        if len(self.seen) == self.dies_at:
            raise KeyboardInterrupt
        self.seen.append(batch.label.tolist())
        return self.weight * batch.image.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_lightning_sets_the_epoch_and_resumes_in_its_middle(tmp_path: Path) -> None:
    def fit(model: Recorder, checkpoint: Path | None = None) -> list[list[int]]:
        every_step = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1, save_top_k=-1)
        trainer = Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            callbacks=[every_step],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        options: dict[str, Any] = {"ckpt_path": checkpoint, "weights_only": True} if checkpoint else {}
        trainer.fit(model, loader(), **options)
        return model.seen

    whole = fit(Recorder())
    expected = []
    for epoch in range(3):
        batches = loader()
        batches.set_epoch(epoch)
        expected += labels(batches)
    assert whole == expected

    checkpoint = tmp_path / "checkpoints" / "epoch=1-step=7.ckpt"
    assert whole[:7] + fit(Recorder(), checkpoint) == expected
