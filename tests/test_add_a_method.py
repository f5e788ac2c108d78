"""What docs/add_a_method.md says, done in a copy: the new method passes the proofs that all methods share."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "add_a_method.md").read_text()
COPIED = ("lit_models", "datamodules", "configs", "scripts", "tests", "docs", "pyproject.toml", "README.md")
NEW = re.compile(r"^New, `(\S+)`[^\n]*:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
ADDED = re.compile(r"^In `(\S+)`, below `([^\n]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROOFS = (
    *("tests/test_methods.py", "tests/test_distributed.py", "tests/test_precision.py", "tests/fake_cuda_steps.py"),
    *("tests/test_small_batches.py", "tests/test_python_users.py", "tests/lit_models/cli/test_export.py"),
    *("tests/test_configs.py", "tests/test_docs.py", "tests/lit_models/runs/test_resume.py"),
)
EXPECTED = {"MeanImages": 15, "mean_images": 8}
"""At least so many tests of the method by this name."""


def test_the_page_counts_its_files() -> None:
    files = {path for path, _ in NEW.findall(PAGE)} | {path for path, _, _ in ADDED.findall(PAGE)}
    assert files == set(re.findall(r"^\| `(\S+\.(?:py|yaml|md))` \|", PAGE, re.MULTILINE))
    assert len(files) == 6
    assert all((REPOSITORY / path).is_file() for path, _, _ in ADDED.findall(PAGE))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_method_of_six_files_passes_the_shared_proofs(tmp_path: Path) -> None:
    for name in COPIED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    for name in ("weights", "results"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for path, content in NEW.findall(PAGE):
        (tmp_path / path).write_text(content)
    for path, line, content in ADDED.findall(PAGE):
        before, found, after = (tmp_path / path).read_text().partition(f"\n{line}\n")
        assert found, f"{path} has no line {line}"
        (tmp_path / path).write_text(f"{before}{found}{content}{after}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*command: str) -> str:
        ran = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
        return ran.stdout

    assert "docs/methods/README.md: written" in run("scripts/results_table.py")
    assert "[Nearest template](mean_images.md)" in (tmp_path / "docs/methods/README.md").read_text()
    assert "[Nearest template](docs/methods/mean_images.md)" in (tmp_path / "README.md").read_text()
    options = ("-m", "pytest", "-v", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", "-m", "not slow")
    passed = re.findall(r"^tests/\S+::(.+) PASSED", run(*options, "-k", " or ".join(EXPECTED), *PROOFS), re.MULTILINE)
    for name, count in EXPECTED.items():
        assert sum(name in test for test in passed) >= count
