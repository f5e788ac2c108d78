"""What users get from an index: the wheel, without the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]
SOURCES = ("lit_models", "datamodules", "configs", "weights", "results")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

SCRIPT = """
import sys
from pathlib import Path
import lit_models, datamodules
from lit_models.__main__ import main

for package in (lit_models, datamodules):
    assert Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__
assert lit_models.DCGAN.from_pretrained("dcgan_mnist").sample(2).shape == (2, 1, 32, 32)
assert lit_models.ConditionalGAN.from_pretrained("conditional_gan_mnist").sample(2, [7, 1]).shape == (2, 1, 32, 32)
assert lit_models.DigitClassifier.from_pretrained("digit_classifier_mnist").num_classes == 10
assert lit_models.ProtoNet.from_pretrained("protonet_omniglot_1shot").image_shape == (1, 28, 28)
quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
small = ["--model.feature_maps=2", "--trainer.callbacks=null"]
assert main(["fit", "dcgan_digits", "--config", "trainer/gpu", "--trainer.precision=32-true", "--trainer.devices=1",
             *small, *short, *quiet]) == 0
assert main(["predict", "--weights", "conditional_gan_mnist", "--class", "7", "--count", "2", *quiet]) == 0
assert main(["report", "runs/dcgan_digits"]) == 0
"""


@pytest.mark.long
@pytest.mark.skipif(Version(version("setuptools")) < Version("77"), reason="pyproject.toml needs setuptools 77")
def test_an_installed_wheel_trains_and_knows_its_configurations_and_weights(tmp_path: Path, digits_root: Path) -> None:
    source, site, empty = (tmp_path / name for name in ("source", "site", "empty"))
    for folder in (source, empty):
        folder.mkdir()
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(REPOSITORY / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "."]
    built = subprocess.run([*build, "."], cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = source.glob("relit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = site / "lit_models" / "shipped"
    for folder, ending in (("configs", "yaml"), ("weights", "safetensors"), ("weights", "json")):
        there = {path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob(f"*.{ending}")}
        assert {path.relative_to(shipped / folder) for path in (shipped / folder).rglob(f"*.{ending}")} == there
    assert not list(site.glob("tests*")), "the packages only"

    environment = {**os.environ, "PYTHONPATH": str(site), "RELIT_DATA": str(digits_root)}
    command = [sys.executable, "-c", SCRIPT, str(site)]
    ran = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert list(empty.glob("runs/dcgan_digits/*/checkpoints/last.ckpt"))
