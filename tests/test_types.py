"""Types as a user's checker sees them."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CODE = """
from lit_models import DCGAN, VAE
from lit_models.module import Generative, Interpolating, Method

reveal_type(DCGAN().sample(4))
reveal_type(VAE.from_pretrained("vae_mnist"))
generative: Generative = DCGAN()
interpolating: Interpolating = VAE()
wrong: Interpolating = DCGAN()
"""


@pytest.mark.long
def test_types_are_seen_from_outside(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(CODE)
    told, errors, _ = api.run(["--config-file", str(REPOSITORY / "pyproject.toml"), str(tmp_path / "user.py")])
    assert not errors
    assert 'Revealed type is "torch._tensor.Tensor"' in told
    assert 'Revealed type is "lit_models.vae.VAE"' in told
    (error,) = (line for line in told.splitlines() if "error:" in line)
    assert "user.py:9: error: Incompatible types" in error


def test_both_packages_are_typed() -> None:
    assert all((REPOSITORY / package / "py.typed").is_file() for package in ("lit_models", "datamodules"))
