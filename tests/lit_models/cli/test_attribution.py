"""Which configuration file a refusal names."""

# ruff: noqa: E501 (a row of a table is a line)

from pathlib import Path

import pytest

from lit_models.cli.attribution import with_its_file
from tests.support.fixtures import Patch

SIZE = "--model.latent_dim is 8.5; it must be a whole number."


@pytest.mark.parametrize(
    ("sentence", "arguments", "told"),
    [
        (SIZE, ["--config", "mine.yaml"], "mine.yaml: model.latent_dim is 8.5; it must be a whole number."),
        (SIZE, ["--config", "mine.yaml", "--config", "other.yaml"], "mine.yaml: model.latent_dim is 8.5; it must be a whole number."),
        (SIZE, ["--config", "mine.yaml", "--model.latent_dim", "8.5"], SIZE),
        (SIZE, ["--config", "mine.yaml", "--model.latent_dim=8.5"], SIZE),
        (SIZE, ["--config", "other.yaml"], SIZE),
        ("There is no optimizer 'Adamm'. Did you mean Adam?", ["--config", "mine.yaml"], "mine.yaml: There is no optimizer 'Adamm'. Did you mean Adam?"),
        ("There is no optimizer 'Adamm'.", ["--config", "mine.yaml", "--model.optimizer", "Adamm"], "There is no optimizer 'Adamm'."),
        ("latent_dim is 8.5; it must be at least 9.", ["--config", "mine.yaml"], "mine.yaml: latent_dim is 8.5; it must be at least 9."),
        ("SampleGrid needs --trainer.callbacks.count: how many.", ["--config", "mine.yaml"], "mine.yaml: SampleGrid needs trainer.callbacks.count: how many."),
        ("Something else.", ["--config", "mine.yaml"], "Something else."),
    ],
)  # fmt: skip
def test_the_last_file_with_the_value_is_named(
    sentence: str, arguments: list[str], told: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        "model:\n  class_path: VAE\n  init_args: {latent_dim: 8.5, optimizer: {class_path: torch.optim.Adamm}}\n"
        "trainer: {callbacks: [{class_path: SampleGrid}]}\n"
    )
    Path("other.yaml").write_text("model: {init_args: {latent_dim: 3}}\n")
    assert with_its_file(sentence, ["fit", *arguments]) == told
