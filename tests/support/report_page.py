"""What a report's page holds, and files of a run to make one of."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from lit_models.__main__ import main

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>"""


class Parsed(HTMLParser):
    """Elements with their attributes and texts of a page, whose tags are checked to be closed in order."""

    VOID = ("meta", "img", "input", "br", "link", "line", "path", "circle")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page.replace("<wbr>", ""))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *but: str) -> str:
        return " ".join(text for tag, text in self.texts if tag not in but)

    def curves(self) -> list[list[dict[str, Any]]]:
        texts = [text for tag, text in self.texts if tag == "script" and text.startswith('{"plots"')]
        return json.loads(texts[0])["plots"] if texts else []


def picture(path: Path, color: int = 255, size: tuple[int, int] = (34, 34)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, color).save(path)


def measured(figures: dict[str, float], experiment: str, **settings: Any) -> dict[str, Any]:
    """A test as tests.json holds it."""
    data = {"class_path": settings.pop("class_path", "datamodules.Digits"), "init_args": {"root": None, **settings}}
    return {
        "experiment": experiment,
        "checkpoint": "best.ckpt",
        "step": 1234,
        "settings": data,
        "figures": figures,
        "data": {"name": "Digits", "test_images": 300},
    }


def write_tests(run: Path, *tests: dict[str, Any]) -> None:
    (run / "tests.json").write_text(json.dumps(tests))


def written(*arguments: object) -> tuple[str, Parsed]:
    assert main(["report", *map(str, arguments), "--output", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    return page, Parsed(page)


def require_self_contained(page: str, parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            if tag == "a" and name == "href" and attributes.get("rel") == "noreferrer":
                continue  # asks for nothing before somebody follows it
            assert value is None or value.startswith(("data:image/", "data:video/mp4;", "#")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "@import" not in page
    assert "url(" not in page
    policy = next(meta["content"] for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
