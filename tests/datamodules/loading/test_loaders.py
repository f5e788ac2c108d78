from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.data import _update_dataloader
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BasePredictionWriter, BatchSizeFinder, ModelCheckpoint
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from datamodules import DataError, ImageDataModule
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.pairs import UnpairedBatches
from datamodules.loading.samplers import ClassBalancedBatches, SequentialBatches, ShuffledBatches
from datamodules.loading.tensors import GatherDataset, LabeledImages
from datamodules.search import PairedBatches
from lit_models import DigitClassifier
from tests.support.trainers import Recorder, quiet_trainer

SIZE = 20


def loader(batch_size: int = 4, seed: int = 0) -> BatchLoader[LabeledImages]:
    labels = torch.arange(SIZE)
    data = GatherDataset(LabeledImages(labels.view(SIZE, 1, 1, 1).float(), labels))
    return BatchLoader(data, batch_sampler=ShuffledBatches(SIZE, batch_size, seed))


def labels(batches: Iterable[LabeledImages]) -> list[list[int]]:
    return [batch.label.tolist() for batch in batches]


def epoch_of(batches: BatchLoader[LabeledImages], epoch: int) -> list[list[int]]:
    """The labels of an epoch that is gone through from its start."""
    batches.set_epoch(epoch)
    return labels(batches)


def test_an_epoch_is_the_samplers() -> None:
    batches = loader()
    assert len(batches) == 5
    assert epoch_of(batches, 3) == [rows.tolist() for rows in batches.batches.epoch(3)]


def test_an_epoch_that_is_gone_through_again_is_the_same_and_the_next_another() -> None:
    batches = loader()
    first = labels(batches)
    assert labels(batches) == first
    assert epoch_of(batches, 1) != first


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
    expected = epoch_of(loader(), 1)
    assert labels(resumed) == expected[3:]
    assert labels(resumed) == expected


def test_the_epoch_after_a_resumed_one_is_whole() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batches_seen": 3, "batches": 5})
    assert epoch_of(resumed, 2) == epoch_of(loader(), 2)


def test_with_another_batch_size_the_epoch_starts_again() -> None:
    resumed = loader(batch_size=5)
    resumed.load_state_dict({"epoch": 1, "batches_seen": 3, "batches": 5})
    assert len(resumed) == 4
    assert epoch_of(resumed, 1) == epoch_of(loader(batch_size=5), 1)


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
        resumed = BatchLoader(resumed.dataset, batch_sampler=ShuffledBatches(SIZE, 3, rank=rank, world_size=2))
        resumed.load_state_dict(begun.state_dict())
        rest += [label for batch in labels(resumed) for label in batch]
    assert len(rest) == 12
    assert len({*used, *rest}) == 18


def paired(batch_size: int) -> Any:
    return PairedBatches(ShuffledBatches(SIZE, batch_size), ShuffledBatches(SIZE, batch_size))


def unpaired(batch_size: int) -> Any:
    return UnpairedBatches(ShuffledBatches(SIZE, batch_size), ShuffledBatches(SIZE, batch_size))


def balanced(batch_size: int) -> Any:
    return ClassBalancedBatches(torch.arange(SIZE) % 4, 1, batch_size - 3)


@pytest.mark.parametrize("sampler", [paired, unpaired, balanced])
def test_as_many_batches_of_another_size_are_not_the_same_epoch(sampler: Callable[[int], Any]) -> None:
    begun, resumed = (BatchLoader(loader().dataset, batch_sampler=sampler(size)) for size in (7, 8))
    assert len(begun) == len(resumed) or sampler is balanced
    resumed.load_state_dict({**begun.state_dict(), "batches_seen": 1, "batches": len(resumed)})
    assert resumed.change == "starts over"
    state = {"epoch": 1, "batches_seen": 1, "batches": len(resumed), "rows_seen": 0, "share": 0, "rows": 0}
    resumed.load_state_dict(state)
    assert (resumed.change, resumed.batches_seen) == (None, 1), "an earlier version's"


def test_with_other_data_the_epoch_starts_over() -> None:
    resumed = loader()
    resumed.load_state_dict({**loader().state_dict(), "rows": 30, "rows_seen": 8, "batches_seen": 2})
    assert resumed.change == "starts over"
    assert len(labels(resumed)) == 5


def test_it_takes_torchs_batch_samplers() -> None:
    batches = loader()
    theirs: Any = BatchLoader(batches.dataset, batch_sampler=BatchSampler(SequentialSampler(range(SIZE)), 8, False))
    assert labels(theirs) == [list(range(8)), list(range(8, 16)), list(range(16, SIZE))]


class Reshuffled(BatchSampler):
    """A batch sampler of torch's kind that keeps the number of its epoch, as many do."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return (rows[self.epoch :] + rows[: self.epoch] for rows in super().__iter__())


def test_a_batch_sampler_of_torchs_kind_may_have_a_number_named_epoch() -> None:
    theirs: Any = BatchLoader(loader().dataset, batch_sampler=Reshuffled(SequentialSampler(range(4)), 4, False))
    assert labels(theirs) == [[0, 1, 2, 3]]
    theirs.set_epoch(1)
    assert labels(theirs) == [[1, 2, 3, 0]]


def test_any_source_of_batches_will_do() -> None:
    class Squares:
        def __getitems__(self, indices: Tensor) -> tuple[Tensor]:
            return (indices**2,)

    assert [batch[0].tolist() for batch in BatchLoader(Squares(), batch_sampler=SequentialBatches(5, 3))] == [
        [0, 1, 4],
        [9, 16],
    ]


@pytest.mark.filterwarnings("ignore")
def test_lightning_sets_the_epoch_and_resumes_in_its_middle(tmp_path: Path) -> None:
    def fit(model: Recorder, checkpoint: Path | None = None) -> list[list[int]]:
        every_step = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1, save_top_k=-1)
        trainer = quiet_trainer(max_epochs=3, callbacks=[every_step], enable_checkpointing=True)
        options: dict[str, Any] = {"ckpt_path": checkpoint, "weights_only": True} if checkpoint else {}
        trainer.fit(model, loader(), **options)
        return labels(model.train_batches)

    whole = fit(Recorder())
    expected = [batch for epoch in range(3) for batch in epoch_of(loader(), epoch)]
    assert whole == expected

    checkpoint = tmp_path / "checkpoints" / "epoch=1-step=7.ckpt"
    assert whole[:7] + fit(Recorder(), checkpoint) == expected


# --- as a DataLoader of torch's ---------------------------------------------------------------------------------------


class Rows(BasePredictionWriter):
    """Notes which rows Lightning counts to each batch of a prediction."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.seen: list[Any] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, rows: Any, *_: Any) -> None:
        self.seen.append((rows, prediction.tolist()))


class Labels(Recorder):
    def predict_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        return batch.label


def in_order(rank: int = 0, world_size: int = 1) -> BatchLoader[LabeledImages]:
    return BatchLoader(loader().dataset, batch_sampler=SequentialBatches(SIZE, 8, rank, world_size))


@pytest.mark.parametrize("by_hook", [True, False])
def test_a_prediction_notes_the_rows_of_each_batch(by_hook: bool, recwarn: pytest.WarningsRecorder) -> None:
    """Lightning builds the loader again for that, with its sampler wrapped."""

    class Data(LightningDataModule):
        def predict_dataloader(self) -> Any:
            return in_order()

    writer = Rows()
    given: dict[str, Any] = {"datamodule": Data()} if by_hook else {"dataloaders": in_order()}
    quiet_trainer(callbacks=[writer]).predict(Labels(), **given, return_predictions=False)
    expected = [list(range(8)), list(range(8, 16)), list(range(16, SIZE))]
    assert writer.seen == [(rows, rows) for rows in expected]
    assert not any("batch sampler" in str(warning.message) or "indices" in str(warning.message) for warning in recwarn)


def test_lightning_and_fabric_share_out_torchs_samplers_only() -> None:
    """By their own rule, and by the function that gives a loader another sampler."""
    ours, theirs = loader(), BatchLoader(loader().dataset, batch_size=4, shuffle=True)
    assert isinstance(ours, DataLoader)
    assert isinstance(ours.sampler, DistributedSampler)
    assert isinstance(ours.sampler, SequentialSampler)
    assert sorted(ours.sampler) == list(range(SIZE))
    assert len(ours.sampler) == SIZE
    assert not isinstance(theirs.sampler, DistributedSampler)
    shares = [
        _update_dataloader(theirs, DistributedSampler(theirs.dataset, 2, rank, shuffle=False)) for rank in range(2)
    ]
    assert labels(shares[0]) == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert labels(shares[1]) == [[1, 3, 5, 7], [9, 11, 13, 15], [17, 19]]


def test_fabric_takes_it_and_goes_from_epoch_to_epoch() -> None:
    batches: Any = Fabric(accelerator="cpu", devices=1).setup_dataloaders(loader())
    assert [labels(batches) for _ in range(2)] == [epoch_of(loader(), epoch) for epoch in range(2)]


def test_torchs_own_samplers_train_and_go_on_after_an_epoch(tmp_path: Path) -> None:
    class Backwards(Sampler[int]):
        epoch = 0

        def __iter__(self) -> Any:
            return iter(range(SIZE - 1 - self.epoch, -1, -1))

        def __len__(self) -> int:
            return SIZE - self.epoch

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    def fit(epochs: int, **options: Any) -> list[list[int]]:
        model = Recorder()
        batches = BatchLoader(loader().dataset, batch_size=8, sampler=Backwards())
        trainer = quiet_trainer(max_epochs=epochs)
        trainer.fit(model, batches, **options)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return labels(model.train_batches)

    rows = list(range(SIZE - 1, -1, -1))
    epochs = [[rows[start:][i : i + 8] for i in range(0, SIZE - start, 8)] for start in range(2)]
    assert fit(1) == epochs[0]
    assert fit(2, ckpt_path=tmp_path / "last.ckpt", weights_only=True) == epochs[1]


class Data(ImageDataModule):
    """Images of 20 classes in the training split."""

    name, num_classes, image_shape = "numbers", SIZE, (1, 8, 8)

    def setup(self, stage: str) -> None:
        columns = LabeledImages(torch.zeros(SIZE, 1, 8, 8, dtype=torch.uint8), torch.arange(SIZE))
        self.train_set = self.val_set = GatherDataset(columns)


def test_overfit_batches_are_the_same_in_every_epoch() -> None:
    model = Recorder()
    quiet_trainer(max_epochs=3, overfit_batches=2).fit(model, Data(batch_size=4))
    seen = labels(model.train_batches)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_lightnings_search_for_a_batch_size(tmp_path: Path) -> None:
    def search(**options: Any) -> int:
        data = Data(batch_size=2)
        finder = BatchSizeFinder(steps_per_trial=1, **options)
        quiet_trainer(max_epochs=1, callbacks=[finder], default_root_dir=str(tmp_path)).fit(Recorder(), data)
        return data.batch_size

    assert search(max_trials=3) == 8
    assert search(max_val=16) == 16
    with pytest.raises(DataError, match="BatchSizeFinder has come to a batch_size of 32, for which Data has too few"):
        search()


def test_images_of_a_loader_without_its_data_module_come_in_unit_interval() -> None:
    """So a classifier learns from relit's images by a sampler of torch's."""
    data = GatherDataset(LabeledImages(torch.full((4, 1, 16, 16), 255, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])))
    model = DigitClassifier(image_size=16, channels=1, num_classes=2, widths=[2])
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    weighted = WeightedRandomSampler([1.0, 0.0, 1.0, 0.0], 4)
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(model, BatchLoader(data, batch_size=2, sampler=weighted))
    assert len(seen) == 2
    assert all(torch.equal(image, torch.ones(2, 1, 16, 16)) for image in seen)
