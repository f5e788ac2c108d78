"""The playground as a visitor meets it."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lit_models.cli import demo, playing
from tests.lit_models.cli.test_demo import (
    CLASSIFIER,
    WALK,
    autoencoder,
    drawn_shape,
    player,
)
from tests.support.browser import CHROMIUM, Page
from tests.support.fixtures import Patch


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_playground_in_a_browser(tmp_path: Path, monkeypatch: Patch) -> None:
    """Nothing is asked of the network; images follow the seed; a drawn 1 is read; a photograph is translated."""
    pytest.importorskip("gradio")
    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    translator = player("pix2pix_maps_128_small")
    few_shot = player("protonet_omniglot_1shot")
    another = playing.Player("another", translator.model)
    app = demo.build_app([player("dcgan_mnist"), player(CLASSIFIER), autoencoder(), translator, another, few_shot])
    try:
        with Page(demo.launch(app, 0), width=1280) as page:
            image = "document.querySelector('img[src*=\"/file=\"]')?.src"
            before = wait_for(page, image)
            fill(page, "seed", 5)
            wait_for(page, f"{image} !== {before!r}")
            click(page, "walk")
            wait_for(page, "document.querySelectorAll('img[src*=\"/file=\"]').length > 1")

            click(page, "draw a digit")
            wait_for(page, "document.querySelector('canvas')?.getBoundingClientRect().width > 100")
            wait_for(page, "!!document.querySelector('button[aria-label=Brush]')")
            page.evaluate("document.querySelector('button[aria-label=Brush]').click()")
            x, y, width, height = page.evaluate(
                "(({x, y, width, height}) => [x, y, width, height])"
                "(document.querySelector('canvas').getBoundingClientRect())"
            )
            stroke(page, x + width / 2, y + 0.2 * height, y + 0.8 * height)
            wait_for(page, f"/{CLASSIFIER}: class[^]*?1[^]*%/.test(document.body.innerText)")

            click(page, WALK)
            (tmp_path / "broken.png").write_bytes(b"\x89PNG cut off")
            upload(page, "first picture", tmp_path / "broken.png")
            click(page, "walk between them")
            wait_for(page, "document.body.innerText.includes('The first picture is missing or blank')")
            for label, kind in (("first picture", "line"), ("second picture", "ring")):
                drawn_shape(kind, 0).save(tmp_path / f"{kind}.png")
                upload(page, label, tmp_path / f"{kind}.png")
                wait_for(page, f"!{block_of(label)}.innerText.includes('Upload an image')")
            click(page, "walk between them")
            wait_for(page, "document.querySelector('img[src*=\"between.gif\"]')?.naturalWidth === 256")
            row = f"image.naturalWidth === {7 * (2 + 11 * 34)} && image.naturalHeight === {7 * 36}"
            wait_for(page, f"[...document.images].some((image) => image.checkVisibility() && {row})")

            click(page, translator.name)
            photograph = tmp_path / "photograph.png"
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (420, 600, 3), dtype=np.uint8)).save(photograph)
            upload(page, "photograph", photograph)
            sized = "[...document.images].filter((image) => image.checkVisibility()).map((image) => image.naturalWidth)"
            wait_for(page, f"{sized}.includes(286)")

            click(page, "another")
            upload(page, "photograph", tmp_path / "broken.png")
            wait_for(page, "document.body.innerText.includes('broken.png can\\'t be read as a picture.')")

            click(page, few_shot.name)
            for label, kind, shift in (("class 1", "line", 0), ("class 2", "ring", 0), ("which class", "ring", 4)):
                drawn_shape(kind, shift).save(tmp_path / f"{kind}_{shift}.png")
                upload(page, label, tmp_path / f"{kind}_{shift}.png")
            click(page, "ask")
            wait_for(page, r"/class 2\s+(100|9\d)%/.test(document.body.innerText)")
        assert [url for url in page.requests if not re.match(r"(http://127\.0\.0\.1:|data:|blob:|about:)", url)] == []
    finally:
        app.close()


def wait_for(page: Page, expression: str) -> Any:
    """The value of a JavaScript expression as soon as it is true."""
    deadline = time.monotonic() + 40
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < deadline, (expression, page.evaluate("document.body.innerText"))
        time.sleep(0.1)
    return value


def click(page: Page, text: str) -> None:
    """Clicks the tab or button with this text."""
    found = (
        "[...document.querySelectorAll('button')]"
        f".find((one) => one.innerText.trim() === {text!r} && one.tabIndex >= 0 && one.offsetHeight > 10)"
    )
    wait_for(page, f"!!{found}")
    page.evaluate(f"{found}.click()")


def block_of(label: str) -> str:
    """JavaScript for the visible place whose label begins so."""
    return (
        "[...document.querySelectorAll('.block')].find((block) => block.checkVisibility()"
        f" && block.querySelector('[data-testid=block-label]')?.textContent.trim().startsWith({label!r}))"
    )


def upload(page: Page, label: str, file: Path) -> None:
    """Gives a file to the place whose label begins so, and waits until it is there."""
    place = block_of(label)
    wait_for(page, f"!!{place}?.querySelector('input[type=file]')")
    node = page.send("Runtime.evaluate", expression=f"{place}.querySelector('input[type=file]')")["result"]
    page.send("DOM.setFileInputFiles", files=[str(file)], objectId=node["objectId"])
    wait_for(page, f"!{place}.innerText.includes('Click to Upload')")


def fill(page: Page, label: str, value: int) -> None:
    """Types a number into the field with this label."""
    page.evaluate(
        f"{{ const field = document.querySelector('input[aria-label={label}]'); field.focus(); field.select(); }}"
    )
    page.send("Input.insertText", text=str(value))


def stroke(page: Page, x: float, top: float, bottom: float) -> None:
    """Draws a line from top to bottom with the left button."""
    mouse = {"x": x, "button": "left", "buttons": 1, "clickCount": 1}
    page.send("Input.dispatchMouseEvent", type="mousePressed", y=top, **mouse)
    for step in range(1, 21):
        page.send("Input.dispatchMouseEvent", type="mouseMoved", y=top + (bottom - top) * step / 20, **mouse)
    page.send("Input.dispatchMouseEvent", type="mouseReleased", y=bottom, **mouse)
