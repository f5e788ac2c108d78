"""The site over docs/ and the notebook: built without warnings, complete, and independent of the network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import lit_models
from tests.support.browser import CHROMIUM, Page
from tests.support.fixtures import Patch
from tests.support.tiny import CONFIGS

REPOSITORY = CONFIGS.parent
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strict build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_method_is_in_the_reference(site: Path) -> None:
    reference = (site / "reference" / "methods.html").read_text()
    for name, module in lit_models.METHODS.items():
        assert f'id="{module}.{name}"' in reference
    assert "Height and width of the images" in reference, "arguments are described"
    assert ":class:" not in reference


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        for tag in re.findall(r"<(?:script|img|iframe|link|source)\b[^>]*>", page.read_text()):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), f"{page.name}: {tag}"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_from_disk_is_whole_and_can_be_searched(site: Path, theme: str) -> None:
    with Page(site / "index.html", theme=theme) as page:
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)
        page.evaluate("document.querySelector('.md-search__input').focus()")
        page.send("Input.insertText", text="center loss")
        page.evaluate("document.querySelector('.md-search__input').dispatchEvent(new KeyboardEvent('keyup'))")
        page.send(
            "Runtime.evaluate",
            expression="""new Promise((done) => {
                const found = () => document.querySelector(".md-search-result__meta").innerText.includes("matching");
                const look = setInterval(() => found() && (clearInterval(look), done()), 50);
                setTimeout(done, 20000);
            })""",
            awaitPromise=True,
        )
        assert "matching documents" in page.evaluate("document.querySelector('.md-search-result__meta').innerText")
        broken = (
            "[...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src)"
        )
        assert page.evaluate(broken) == []
        assert not page.complaints
        assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("name", ["index", "results", "troubleshooting", "methods/protonet", "reference/methods"])
def test_a_page_fits_a_phone(site: Path, name: str) -> None:
    with Page(site / f"{name}.html", width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.timeout(180)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: Patch) -> None:
    """From top to bottom; the drawings are then classified."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # relit's command sets it, and the notebook draws inline
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(REPOSITORY / "docs" / "quickstart.ipynb", as_version=4)
    stored = said(notebook)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert re.search(r"[89] of 9 drawings are classified correctly", said(notebook))
    assert re.search(r"[89] of 9 drawings are classified correctly", stored), "it is stored as it ran"
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 5


def said(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
