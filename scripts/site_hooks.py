"""What mkdocs needs beyond docs/: pages made of files outside it, the API reference, and links between all of these.

README.md becomes the home page; CONTRIBUTING.md, CHANGELOG.md and docs/quickstart.ipynb become pages, and so does each
source file that a page links to. `reference/` has a page for the methods, one for the data sets, one for each room.
"""

import json
import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lit_models.registry import METHODS

REPOSITORY = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r'(\]\(|<img src=")([^)"\s#]+)')
FENCE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".md": "markdown", ".json": "json", ".sbatch": "bash"}
ROOMS = {
    "losses": "Losses",
    "networks": "Networks",
    "metrics": "Metrics",
    "callbacks": "Callbacks",
    "runs": "Runs",
    "support": "Support",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that aren't in docs/."""
    made = {PAGES[name]: (REPOSITORY / name, (REPOSITORY / name).read_text(encoding="utf-8")) for name in PAGES}
    notebook = REPOSITORY / "docs" / "quickstart.ipynb"
    made["quickstart.md"] = (notebook, notebook_text(notebook))
    for path in (REPOSITORY / "docs").rglob("*.md"):
        made[path.relative_to(REPOSITORY / "docs").as_posix()] = (path, path.read_text(encoding="utf-8"))
    for place, (source, text) in list(made.items()):
        for linked in linked_files(text, source.parent):
            if linked.suffix in (".png", ".ipynb", ".safetensors"):
                name = linked.relative_to(REPOSITORY).as_posix()
                made.setdefault(page_of(linked) or f"files/{name}", (linked, ""))
            elif linked.is_file() and page_of(linked, made) is None:
                made[source_page(linked)] = (linked, "")
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=moved(text, source.parent, place)))
    for place, (source, _) in made.items():
        if place.startswith("files/"):
            files.append(File.generated(config, place, abs_src_path=str(source)))
        elif place.startswith("source/"):
            files.append(File.generated(config, place, content=shown(source)))
    for place, text in reference().items():
        files.append(File.generated(config, place, content=text))
    config.nav = [expanded(entry) for entry in config.nav or []]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of docs/ that lead out of it go to the page or the file that stands for their target."""
    source = REPOSITORY / "docs" / page.file.src_uri
    return moved(markdown, source.parent, page.file.src_uri) if source.is_file() else markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The script that search needs on pages from disk comes with the site, not from a server."""
    ours = posixpath.relpath("site/file_worker.js", posixpath.dirname(page.file.dest_uri) or ".")
    return re.sub(r'src="?https://unpkg\.com/iframe-worker/shim"?', f'src="{ours}"', output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same on the page of missing pages."""
    return re.sub(r'src="?https://unpkg\.com/iframe-worker/shim"?', 'src="site/file_worker.js"', output_content)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Sphinx's roles in docstrings (``:class:`DCGAN```) show the name alone."""
    return re.sub(r":\w+:<code>~?(.*?)</code>", r"<code>\1</code>", html)


# --- links ------------------------------------------------------------------------------------------------------------


def linked_files(text: str, folder: Path) -> list[Path]:
    """The files of the repository that a text links to."""
    targets = [match[1] for match in LINK.findall(FENCE.sub("", text)) if "://" not in match[1]]
    found = [Path(os.path.normpath(folder / target)) for target in targets]
    return [path for path in found if path.is_file() and path.is_relative_to(REPOSITORY)]


def source_page(path: Path) -> str:
    """The page that shows a source file."""
    return f"source/{path.relative_to(REPOSITORY).as_posix()}.md"


def page_of(path: Path, made: dict[str, Any] | None = None) -> str | None:
    """Where the site has a file; None if it doesn't, or only as a page of `source/` or a file of `files/`."""
    name = path.relative_to(REPOSITORY).as_posix()
    if name in PAGES:
        return PAGES[name]
    if name == "docs/quickstart.ipynb":
        return "quickstart.md"
    return name.removeprefix("docs/") if name.startswith("docs/") and path.is_file() else None


def moved(text: str, folder: Path, place: str) -> str:
    """The text with each relative link made to lead from `place` to where the site has the target.

    Args:
        text: Markdown.
        folder: Of the file that it comes from.
        place: Of its page.
    """

    def link(match: re.Match[str]) -> str:
        before, target = match.groups()
        path = Path(os.path.normpath(folder / target))
        if "://" in target or not path.is_relative_to(REPOSITORY):
            return match[0]
        if path.is_dir():
            readme = path / "README.md"
            to = page_of(readme) if readme.is_file() and "docs" in readme.parts else None
            to = to or api_page(path) or "reference/index.md"
        else:
            to = page_of(path)
        if to is None:
            name = path.relative_to(REPOSITORY).as_posix()
            to = f"files/{name}" if path.suffix in (".png", ".safetensors") else source_page(path)
        return before + posixpath.relpath(to, posixpath.dirname(place) or ".")

    parts = FENCE.split(text)
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))


def api_page(folder: Path) -> str | None:
    """The reference of a folder of modules."""
    name = folder.name
    return f"reference/{name}.md" if folder.parent.name == "lit_models" and name in ROOMS else None


# --- pages ------------------------------------------------------------------------------------------------------------


def shown(path: Path) -> str:
    """A page that shows a source file."""
    name = path.relative_to(REPOSITORY).as_posix()
    text = path.read_text(encoding="utf-8")
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`{3,}", text)), default=0))
    language = LANGUAGES.get(path.suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {name}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def notebook_text(path: Path) -> str:
    """A notebook's text and code as Markdown, and its pictures' captions."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="output" src="data:image/png;base64,{picture}">')
            elif said := "".join(data.get("text/plain", output.get("text", ""))).strip():
                parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts)


def modules(package: str, *, deep: bool = True) -> list[str]:
    """The public modules below a package, by name."""
    folder = REPOSITORY / package.replace(".", "/")
    paths = folder.rglob("*.py") if deep else folder.glob("*.py")
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in sorted(paths)]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]


def reference() -> dict[str, str]:
    """The pages of the reference: one for the methods, one for the data sets, one for each room."""

    def page(title: str, about: str, names: list[str]) -> str:
        return "\n\n".join([f"# {title}", about, *(f"::: {name}" for name in names)]) + "\n"

    methods = [f"{module}.{name}" for name, module in METHODS.items()]
    about = "`lit_models.NAME`, and `--model NAME` on the command line."
    made = {"reference/methods.md": page("Methods", about, methods)}
    data = [name for name in modules("datamodules") if "errors" not in name]
    made["reference/datamodules.md"] = page("Data", "`datamodules.NAME`, and `--data NAME`.", data)
    for room, title in ROOMS.items():
        made[f"reference/{room}.md"] = page(title, f"Modules of `lit_models.{room}`.", modules(f"lit_models.{room}"))
    rows = ["| page | what it describes |", "| --- | --- |"]
    for place, text in made.items():
        title, _, about, *_ = text.splitlines()
        rows.append(f"| [{title.removeprefix('# ')}]({PurePosixPath(place).name}) | {about} |")
    about = "Made from the docstrings. [Architecture](../architecture.md) shows how the rooms depend on each other."
    made["reference/index.md"] = "\n\n".join(["# Reference", about, "\n".join(rows)]) + "\n"
    return made


def expanded(entry: Any) -> Any:
    """An entry of the navigation; `methods` and `reference` stand for all their pages."""
    if not isinstance(entry, dict):
        return entry
    ((title, value),) = entry.items()
    if value == "methods":
        text = (REPOSITORY / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
        pages = re.findall(r"^\| \[(.+?)\]\((\w+\.md)\)", text, re.MULTILINE)
        return {title: ["methods/README.md", *({name: f"methods/{page}"} for name, page in pages)]}
    if value == "reference":
        names = {"Methods": "methods", "Data": "datamodules", **{title: room for room, title in ROOMS.items()}}
        return {title: ["reference/index.md", *({name: f"reference/{page}.md"} for name, page in names.items())]}
    return entry
