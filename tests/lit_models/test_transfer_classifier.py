import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional
from torch.optim import SGD

from datamodules import Digits, FewLabels
from lit_models import DCGAN, VAE, TransferClassifier
from lit_models.errors import ModelError, RunError
from lit_models.support.pretrained import find_pretrained
from tests.support.fixtures import Output, Relit
from tests.support.small_data import write_autoencoder
from tests.support.tables import rows_of
from tests.support.tiny import quick_run, the_run
from tests.support.trainers import quiet_trainer

FIT = quick_run(
    "transfer_mnist_mlp_finetuned",
    "--data.images=Digits",
    "--model.encoder_checkpoint=autoencoder.ckpt",
    data={"count": 40, "repeats": 2},
    model={"feature_maps": 2, "code_dim": 4},
    trainer={"max_epochs": 2},
)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_autoencoder(tmp_path / "autoencoder.ckpt", latent_dim=4, feature_maps=2)


def classifier(encoder: Path | None, **arguments: Any) -> TransferClassifier:
    torch.manual_seed(0)
    given = None if encoder is None else str(encoder)
    return TransferClassifier(**{"encoder_checkpoint": given, "code_dim": 4, "feature_maps": 2, **arguments})


def trained(root: Path, model: TransferClassifier, **data: Any) -> Trainer:
    trainer = quiet_trainer(use_distributed_sampler=False, max_epochs=3)
    trainer.fit(model, FewLabels(Digits(root=str(root)), **{"count": 40, "repeats": 2, **data}))
    return trainer


# --- what learns from what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze_encoder", [True, False])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_fold_models_equal_models_that_never_saw_their_fold(
    digits_root: Path, encoder: Path, freeze_encoder: bool, head: str
) -> None:
    """Each of the models that learn side by side against a plain loop on its own images only."""
    arguments = {"freeze_encoder": freeze_encoder, "head": head, "dropout": 0.0, "encoder_lr": 0.02}
    model = classifier(encoder, **arguments, optimizer=lambda p: SGD(p, lr=0.05))
    start = classifier(encoder, **arguments)
    trainer = trained(digits_root, model)
    datamodule = trainer.datamodule
    saved = torch.load(encoder, weights_only=True)["state_dict"]
    for which, fold in enumerate([None, 0, 1, 2, 3]):
        network = start.encoders[0 if freeze_encoder else which]
        network.load_state_dict(
            {name.removeprefix("encoder."): v for name, v in saved.items() if name.startswith("encoder.")}
        )
        top = start.heads[which]
        groups: list[Any] = [{"params": list(top.parameters())}]
        if not freeze_encoder:
            groups.append({"params": list(network.parameters()), "lr": 0.02})
        optimizer = SGD(groups, lr=0.05)
        loader = datamodule.train_dataloader()
        for epoch in range(3):
            loader.set_epoch(epoch)
            for batch in loader:
                rows = batch.fold != fold if fold is not None else torch.ones(len(batch.fold), dtype=torch.bool)
                logits = top(network(batch.image[rows] / 255))
                loss = functional.cross_entropy(logits, batch.label[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for (name, ours), expected in zip(model.heads[which].named_parameters(), top.parameters(), strict=True):
            assert torch.allclose(ours, expected, atol=1e-5), f"{which} {name}"
        ours_encoder = model.encoders[0 if freeze_encoder else which]
        pairs = zip(ours_encoder.named_parameters(), network.parameters(), strict=True)
        assert all(torch.allclose(ours, expected, atol=1e-5) for (_, ours), expected in pairs)


def test_validation_asks_each_fold_model_about_its_own_fold(digits_root: Path, encoder: Path) -> None:
    model = classifier(encoder)
    trainer = trained(digits_root, model)
    data = trainer.datamodule
    batch = data.transform(data.train_set.__getitems__(range(40)), training=False)
    loss, right = 0.0, 0
    with torch.no_grad():
        code = model.encoders[0](batch.image)
        for row in range(40):
            logits = model.heads[1 + int(batch.fold[row])](code[row])
            loss -= logits.log_softmax(0)[batch.label[row]].item()
            right += int(logits.argmax() == batch.label[row])
    (result,) = trainer.validate(model, data, verbose=False)
    assert result["val/loss"] == pytest.approx(loss / 40, rel=1e-5)
    assert result["val/accuracy"] == pytest.approx(right / 40)


def test_the_classifier_is_the_model_of_all_images(encoder: Path) -> None:
    model = classifier(encoder)
    image = torch.rand(3, 1, 32, 32)
    assert torch.equal(model(image), model.all_logits(image)[0])
    assert torch.equal(model(image), model.heads[0](model.encoders[0](image)))
    assert model.learns(torch.tensor([0, 2])).tolist() == [
        [True] * 2,
        [False, True],
        [True] * 2,
        [True, False],
        [True] * 2,
    ]


def test_a_frozen_encoder_stays(digits_root: Path, encoder: Path) -> None:
    model = classifier(encoder)
    trained(digits_root, model)
    saved = torch.load(encoder, weights_only=True)["state_dict"]
    for name, value in model.encoders[0].state_dict().items():
        assert torch.equal(value, saved[f"encoder.{name}"])
    assert len(model.encoders) == 1


def test_a_data_module_with_a_validation_split_of_its_own(digits_root: Path, encoder: Path) -> None:
    model = classifier(encoder, folds=0)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2)  # fmt: skip
    trainer.fit(model, Digits(root=str(digits_root)))
    assert len(model.heads) == 1
    assert "val/loss" in trainer.callback_metrics


# --- the encoder's checkpoint -----------------------------------------------------------------------------------------


def test_the_encoder_of_a_vae_serves_too(digits_root: Path, tmp_path: Path) -> None:
    path = write_autoencoder(tmp_path / "vae.ckpt", latent_dim=4, feature_maps=2, kind=VAE)
    model = classifier(path)
    trained(digits_root, model)
    image = torch.rand(2, 1, 32, 32)
    vae = VAE.load_from_checkpoint(path, weights_only=True)
    assert torch.allclose(model.embed(image), vae.embed(image))


def test_the_report_is_of_train_and_test(relit: Relit, encoder: Path, capsys: Output) -> None:
    assert relit("fit", *FIT) == 0
    assert relit("test", *FIT, "--ckpt_path=best") == 0
    printed = capsys.readouterr().out
    figures = the_run() / "figures"
    for suffix, count in (("", 300), ("_train", 40)):
        rows = rows_of(figures / f"classification_report{suffix}.csv")
        assert sum(int(row["support"]) for row in rows[:10]) == count
        assert [row["class"] for row in rows[10:]] == ["macro average", "weighted average"]
        counts = np.loadtxt(figures / f"confusion_matrix{suffix}.csv", delimiter=",", skiprows=1)[:, 1:]
        assert counts.sum() == count
        assert (figures / f"confusion_matrix{suffix}.png").is_file()
        assert f"{count} {'train' if suffix else 'test'} images" in printed


def test_no_encoder(tmp_path: Path, digits_root: Path) -> None:
    with pytest.raises(RunError, match=r"There is no checkpoint of an autoencoder in .*missing: train one"):
        trained(digits_root, classifier(tmp_path / "missing"))
    trained(digits_root, classifier(None, freeze_encoder=False))


def test_a_foreign_checkpoint(tmp_path: Path, digits_root: Path) -> None:
    path = write_autoencoder(tmp_path / "gan.ckpt", kind=DCGAN, feature_maps=2, latent_dim=4)
    with pytest.raises(ModelError, match=r"gan.ckpt holds no encoder of an autoencoder: name the checkpoint of a"):
        trained(digits_root, classifier(path))
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(RunError, match="can't be read as a checkpoint"):
        trained(digits_root, classifier(tmp_path / "text.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"code_dim": 8}, r"code_dim is 8, but the encoder in .* was trained with 4: set --model.code_dim 4"),
        (
            {"feature_maps": 3},
            r"feature_maps is 3, but the encoder in .* was trained with 2: set --model.feature_maps 2",
        ),
    ],
)
def test_another_size(digits_root: Path, encoder: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        trained(digits_root, classifier(encoder, **arguments))


def test_another_size_of_a_file_that_does_not_tell(digits_root: Path, encoder: Path) -> None:
    content = torch.load(encoder, weights_only=True)
    del content["hyper_parameters"]
    torch.save(content, encoder)
    with pytest.raises(ModelError, match=r"doesn't have the shapes that .*code_dim 8"):
        trained(digits_root, classifier(encoder, code_dim=8))


def test_folders_stand_for_their_newest_best_checkpoint(tmp_path: Path) -> None:
    for number, name in enumerate(["1/checkpoints/last.ckpt", "0/checkpoints/best.ckpt", "2/checkpoints/best.ckpt"]):
        path = tmp_path / "autoencoder_mnist" / name
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (number, number))
    folder = tmp_path / "autoencoder_mnist"
    assert find_pretrained(str(folder)) == folder / "2/checkpoints/best.ckpt"
    assert find_pretrained(str(folder / "0")) == folder / "0/checkpoints/best.ckpt"
    assert find_pretrained(str(folder / "1")) == folder / "1/checkpoints/last.ckpt"
    with pytest.raises(RunError, match="There is no checkpoint"):
        find_pretrained(str(tmp_path / "autoencoder_mnist" / "0" / "checkpoints" / "x"))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_folds_must_be_the_datas(digits_root: Path, encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"validates by 4 folds, but FewLabels has 5: set --model.folds 5"):
        trained(digits_root, classifier(encoder), folds=5)
