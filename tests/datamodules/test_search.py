from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import CIFAR10, DataError, ImageDataModule, LabeledImages, SearchBatch, SearchDataModule
from datamodules.loading.samplers import ShuffledBatches
from datamodules.loading.tensors import GatherDataset
from datamodules.search import PairedBatches
from tests.support.data_modules import with_trainer


class Numbered(ImageDataModule):
    """Images that are their own row's number: 50 for training, 21 for validation; training images get 100 brighter."""

    name = "numbered"
    image_shape = (1, 1, 1)
    num_classes = 2

    def __init__(self, val_size: int = 21) -> None:
        super().__init__()
        self.val_size = val_size

    def setup(self, stage: str) -> None:
        columns = LabeledImages(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100) % 2)
        rows = torch.arange(100).split([50, self.val_size, 50 - self.val_size])
        self.train_set, self.val_set, self.test_set = (GatherDataset(columns, part) for part in rows)
        self.predict_set = self.test_set

    def augment(self, batch: LabeledImages) -> LabeledImages:
        return batch._replace(image=batch.image + 100 / 255)


def module_of(**arguments: Any) -> SearchDataModule:
    module = SearchDataModule(**({"images": Numbered(), "batch_size": 4} | arguments))
    module.setup("fit")
    return module


def rows(images: LabeledImages) -> list[int]:
    return images.image.flatten().tolist()


def test_each_step_has_a_batch_of_both_halves_and_all_rows_have_their_turn() -> None:
    loader = module_of().train_dataloader()
    assert len(loader) == 12, "an epoch is one of the weights' images"
    arch: list[int] = []
    for epoch in range(4):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert all(isinstance(batch, SearchBatch) for batch in batches)
        train = [row for batch in batches for row in rows(batch.train)]
        assert len(set(train)) == 48
        assert set(train) <= set(range(50))
        arch += [row for batch in batches for row in rows(batch.val)]
    # 21 rows make 5 batches of 4, over and over: 48 batches are 9 passes and 3 batches.
    passes = [arch[start : start + 20] for start in range(0, len(arch), 20)]
    assert [len(one) for one in passes] == [20] * 9 + [12]
    assert all(len(set(one)) == len(one) and set(one) <= set(range(50, 71)) for one in passes)
    assert passes[0] != passes[1]


def test_the_labels_are_of_the_images() -> None:
    for batch in module_of().train_dataloader():
        for half in batch:
            assert half.label.tolist() == [row % 2 for row in rows(half)]


def test_two_ranks_share_out_the_global_batches() -> None:
    whole = list(module_of(batch_size=4).train_dataloader())
    for rank in range(2):
        share = list(with_trainer(module_of(batch_size=2), global_rank=rank, world_size=2).train_dataloader())
        assert len(share) == len(whole)
        for mine, together in zip(share, whole, strict=True):
            assert rows(mine.train) == rows(together.train)[rank::2]
            assert rows(mine.val) == rows(together.val)[rank::2]


def test_a_loader_goes_on_in_mid_epoch() -> None:
    loader = module_of().train_dataloader()
    loader.set_epoch(3)
    batches = iter(loader)
    list(islice(batches, 5))
    state = loader.state_dict()
    expected = [(rows(batch.train), rows(batch.val)) for batch in batches]
    resumed = module_of().train_dataloader()
    resumed.load_state_dict(state)
    assert [(rows(batch.train), rows(batch.val)) for batch in resumed] == expected
    assert len(expected) == 7


def test_the_second_sampler_may_be_longer() -> None:
    pairs = PairedBatches(ShuffledBatches(8, 4), ShuffledBatches(40, 4, seed=1))
    drawn: list[Tensor] = [batch for epoch in range(5) for batch in pairs.epoch(epoch)]
    assert len(drawn) == 10
    assert sorted(row for batch in drawn for row in batch[1].tolist()) == list(range(40))


@pytest.mark.parametrize("augment_val", [False, True])
def test_only_the_weights_images_are_augmented(augment_val: bool) -> None:
    module = module_of(augment_val=augment_val)
    batch = next(iter(module.train_dataloader()))
    changed = with_trainer(module).on_after_batch_transfer(batch, 0)
    assert torch.allclose(changed.train.image, (batch.train.image.float() + 100) / 255)
    assert torch.allclose(changed.val.image, (batch.val.image.float() + 100 * augment_val) / 255)
    evaluated = with_trainer(module, training=False).on_after_batch_transfer(batch.val, 0)
    assert torch.allclose(evaluated.image, batch.val.image.float() / 255)


def test_evaluation_sees_the_splits_of_the_images() -> None:
    module = module_of()
    seen = [row for batch in module.val_dataloader() for row in rows(batch)]
    assert seen == list(range(50, 71))
    assert [row for batch in module.test_dataloader() for row in rows(batch)] == list(range(71, 100))
    assert (module.image_shape, module.num_classes, module.name) == ((1, 1, 1), 2, "numbered")


def test_halves_that_are_too_small_are_refused() -> None:
    with pytest.raises(DataError, match=r"has no validation images, .* set --data.images.val_fraction 0.5"):
        module_of(images=Numbered(val_size=0))
    with pytest.raises(DataError, match=r"set --data.batch_size to 3 or less"):
        module_of(images=Numbered(val_size=3))


def test_errors_of_the_images_name_their_argument() -> None:
    assert SearchDataModule(CIFAR10(val_fraction=0.5)).image_shape == (3, 32, 32)
