"""The message of each mistake in `tests/support/mistakes.py`.

A message must also name a part of the line that was typed, and must not hold anything of the parser's own.
"""

import contextlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lit_models.cli.commands import COMMANDS
from tests.support import mistakes
from tests.support.fixtures import Output, Relit

Check = Callable[[str, list[str]], None]

IN_PASSING = ("relit: note: ", "relit: add --debug", "decoding ")
"""Lines beside the message."""


def table(text: str) -> list[tuple[str, list[str]]]:
    """The rows of a table: a command line each, and the words of its message."""
    rows = [line.split(" | ") for line in text.strip().splitlines() if not line.startswith("# ")]
    return [(row[0].strip(), [word.strip() for word in row[1:]]) for row in rows]


def each(text: str) -> pytest.MarkDecorator:
    """A test for each row of a table."""
    return pytest.mark.parametrize(("line", "words"), [pytest.param(*row, id=row[0]) for row in table(text)])


def counts(text: str) -> Counter[str]:
    """The number of a table's rows by kind, which is the heading above them."""
    kind, found = "", Counter[str]()
    for line in text.strip().splitlines():
        if line.startswith("# "):
            kind = line[2:]
        else:
            found[kind] += 1
    return found


def typed(line: str) -> set[str]:
    """What a person would look for in the message: each word of the line, and the parts of its options."""
    command, *others = shlex.split(line)
    whole = f"relit {command}" if command in COMMANDS else command
    words = [whole, *(part for word in others for part in (word, *re.split("[=:]", word)))]
    names = [part for word in words for part in (word.lstrip("-").rstrip("+"), word.rpartition(".")[2].rstrip("+"))]
    return {word for word in (*words, *names) if word}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders of all kinds, which no command changes."""
    folder = tmp_path_factory.mktemp("things")
    for name, text in mistakes.FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, count in mistakes.PICTURES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (16, 16), (10 * number, 0, 0)).save(folder / name / f"{number}.png")
    (folder / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    (folder / "utf16.yaml").write_text("model: DCGAN\n", encoding="utf-16")
    return folder


def faults(line: str, words: list[str], told: str) -> list[str]:
    """What is wrong with a message."""
    told = "\n".join(line for line in told.splitlines() if line.strip() and not line.startswith(IN_PASSING))
    dumps = ("Namespace", "<class", " object at ", "jsonargparse", "Union", "Exception", "Traceback")
    found = [f"{word} is missing" for word in words if word not in told]
    found += [f"{dump} is in it" for dump in dumps if dump in told]
    if not told.startswith("relit: ") or len(told.splitlines()[0]) >= 400:
        found.append("it isn't a sentence of relit's")
    if not any(word.lower() in told.lower() for word in typed(line)):
        found.append("it names nothing that was typed")
    return [f"{line}: {fault}: {told}" for fault in found]


@pytest.fixture
def check(relit: Relit, capsys: Output, things: Path) -> Check:
    """Type a line in a folder that holds `things`, and look at the message."""
    for thing in things.iterdir():
        Path(thing.name).symlink_to(thing)

    def check_line(line: str, words: list[str]) -> None:
        with contextlib.suppress(SystemExit):  # as argparse ends
            assert relit(*shlex.split(line)) != 0
        assert faults(line, words, capsys.readouterr().err) == []

    return check_line


def test_told_before_torch_is_imported(things: Path) -> None:
    """All in one process, in which an import of torch fails."""
    rows = table(mistakes.WITHOUT_TORCH)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.without_torch"],
        input=json.dumps([[shlex.split(line) for line, _ in rows], str(things)]),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [line for (line, _), (code, _) in zip(rows, told, strict=True) if code == 0] == []
    assert [fault for row, (_, text) in zip(rows, told, strict=True) for fault in faults(*row, text)] == []


@each(mistakes.BY_THE_PARSER)
def test_told_by_the_parser(check: Check, line: str, words: list[str]) -> None:
    check(line, words)


@each(mistakes.WHEN_IT_STARTS)
def test_told_when_it_starts(check: Check, line: str, words: list[str]) -> None:
    check(line, words)


@pytest.mark.long
@each(mistakes.WHEN_IT_STARTS_LONG)
def test_more_that_is_told_when_it_starts(check: Check, line: str, words: list[str]) -> None:
    check(line, words)


def test_no_message_passes_by_repeating_the_command() -> None:
    """Each row asks for a word that isn't typed: the name or the value that was meant, or what to do."""
    rows = [row for rows in mistakes.TABLES for row in table(rows)]
    assert [line for line, words in rows if all(word in line for word in words)] == []


def test_there_are_as_many_of_each_kind_as_were_tried() -> None:
    lines = [line for rows in mistakes.TABLES for line, _ in table(rows)]
    assert len(set(lines)) == len(lines)
    found = sum(map(counts, mistakes.TABLES), Counter[str]())
    assert set(found) == set(mistakes.LEAST)
    assert [kind for kind, least in mistakes.LEAST.items() if found[kind] < least] == []


def test_a_misspelt_configuration_is_told_in_less_than_a_second() -> None:
    code = (
        "import sys; from lit_models.__main__ import main; code = main(['fit', '--config', 'dcgan_digit']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 2, done.stderr
        assert "Did you mean dcgan_digits?" in done.stderr
    assert min(seconds) < 1
