"""Count modules that a method loads, untyped look-ups, lines of files, framework in the methods' files, and tests.

    python scripts/analyses/house_counts.py [TREE ...]

Each TREE is a checkout; without one, it is this repository. ``git worktree add /tmp/before COMMIT`` makes another to
compare with.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOOKUPS = {
    "getattr with a default": r"\bgetattr\([^()]*(?:\([^()]*\)[^()]*)*,[^()]*,[^()]*\)",
    "hasattr": r"\bhasattr\(",
    "cast(Any, …)": r"\bcast\(Any,",
    "getattr or cast for a trainer's data module": r"getattr\([^()]*trainer, \"datamodule\"|trainer\)\.datamodule",
    "getattr, hasattr or cast of a model": r"(?:getattr|hasattr|cast\(Any)[(,] ?(?:pl_|self\.)?mod(?:ule|el)\b",
}
LONG_FILES = (
    *("module.py", "adversarial.py", "layerwise_mlp.py", "metric_resnet.py", "conditional_gan.py", "vae.py", "wgan.py"),
    *("darts/search.py", "darts/retrain.py", "cli/command.py", "cli/sweep.py", "cli/sweep_worker.py"),
)
METHODS = re.findall(r'"lit_models\.([\w.]+)"', (REPOSITORY / "lit_models" / "registry.py").read_text(encoding="utf-8"))
FRAMEWORK = re.compile(
    r"setup|on_\w+|(validation|test|predict)_step|configure_(callbacks|gradient_clipping)|_evaluate\w*|_require\w+|"
    r"log_(?!likelihood|importance)\w+|_log\w*|_report|planned_epochs|phase|not_compiled|restored_arguments|"
    r"_optimizers?|_restored|_start_from\w*|load_starting_weights"
)
"""Hooks, logging, checks and files; what is left is networks, losses, steps, sampling and optimizers. (A VAE's
``log_likelihood`` is a logarithm.)"""


def sources(tree: Path, *packages: str) -> Iterator[tuple[Path, str]]:
    """The files of packages, with their text."""
    for package in packages:
        for path in sorted((tree / package).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def loaded(tree: Path) -> list[str]:
    """The modules of relit that ``import lit_models.vae`` loads."""
    code = "import sys, lit_models.vae; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(tree)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tree, env=env, capture_output=True, text=True, check=True)
    return [name for name in ran.stdout.split() if name.split(".")[0] in ("lit_models", "datamodules")]


def framework(text: str) -> tuple[int, int]:
    """Lines of code in functions that are framework, and lines of the file."""
    lines = text.splitlines()
    count = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and FRAMEWORK.fullmatch(node.name):
            documented = ast.get_docstring(node, clean=False) is not None
            start = node.body[0].end_lineno if documented else node.lineno - 1
            assert start is not None
            assert node.end_lineno is not None
            count += sum(bool(line.strip()) for line in lines[start : node.end_lineno]) + documented
    return count, len(lines)


def tests(tree: Path) -> tuple[int, int, list[str]]:
    """Lines of the files of tests, their functions, and the files above 500 lines."""
    texts = [(path.stem, text) for path, text in sources(tree, "tests") if path.stem.startswith("test_")]
    lines = [(name, len(text.splitlines())) for name, text in texts]
    functions = sum(len(re.findall(r"^\s*def test_", text, re.MULTILINE)) for _, text in texts)
    return sum(count for _, count in lines), functions, [f"{name} {count}" for name, count in lines if count > 500]


def method_files(tree: Path) -> list[Path]:
    """The files of the methods and of the loops that they share."""
    paths = [tree / "lit_models" / f"{name.replace('.', '/')}.py" for name in {*METHODS, "adversarial", "translation"}]
    return sorted(path for path in paths if path.is_file())


def counts(tree: Path) -> dict[str, str]:
    """All counts of a tree, by name."""
    names = loaded(tree)
    found = {
        f"modules of {package} that `import lit_models.vae` loads": str(
            sum(name.split(".")[0] == package for name in names)
        )
        for package in ("lit_models", "datamodules")
    }
    texts = [text for _, text in sources(tree, "lit_models", "datamodules")]
    found |= {name: str(sum(len(re.findall(form, text)) for text in texts)) for name, form in LOOKUPS.items()}
    for name in LONG_FILES:
        path = tree / "lit_models" / name
        found[f"lines of {name}"] = str(len(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else "–"
    parts = [framework(path.read_text(encoding="utf-8")) for path in method_files(tree)]
    inside, total = (sum(column) for column in zip(*parts, strict=True))
    found["framework in the methods' files"] = f"{inside} of {total} lines ({100 * inside / total:.1f} %)"
    lines, functions, longest = tests(tree)
    found["lines of tests"] = f"{lines} ({lines / functions:.1f} for each of {functions} functions)"
    found["files of tests above 500 lines"] = ", ".join(longest) or "none"
    return found


def main(trees: list[str]) -> None:
    """Print a table with a column for each tree."""
    columns = [counts(Path(tree).resolve()) for tree in trees or [str(REPOSITORY)]]
    width = max(map(len, columns[0]))
    for name in columns[0]:
        print(f"{name:{width}}  {'   '.join(f'{column[name]:>40}' for column in columns)}")


if __name__ == "__main__":
    main(sys.argv[1:])
