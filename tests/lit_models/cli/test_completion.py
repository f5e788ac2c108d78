"""The completion scripts, in the shells themselves where they are installed."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_models.cli import completion
from tests.support.fixtures import Patch

CASES = {
    "relit f": "fit",
    "relit rep": "report",
    "relit fit dcgan_d": "dcgan_digits",
    "relit fit --config wgan_gp_d": "wgan_gp_digits",
    "relit fit -c dcgan_d": "dcgan_digits",
    "relit fit --model DC": "DCGAN",
    "relit fit --data MN": "MNIST",
    "relit fit --trainer.max_ep": "--trainer.max_epochs",
    "relit fit --model DCGAN --model.lat": "--model.latent_dim",
    "relit fit --model=DCGAN --model.lat": "--model.latent_dim",
    "relit fit vae_digits --model.kl_wei": "--model.kl_weight",
    "relit fit --config configs/vae_digits.yaml --model.kl_wei": "--model.kl_weight",
    "relit fit dcgan_digits --trainer.callbacks+ EarlyS": "EarlyStopping",
    "relit predict --weights dcgan_": "dcgan_mnist",
    "relit predict --weights conditional_gan_mnist --cl": "--class",
    "relit test dcgan_digits --ckpt_path la": "last",
    "relit list exp": "experiments",
    "relit copy resnet18_d": "resnet18_digits",
    "relit sweep dcgan_d": "dcgan_digits",
    "relit sweep dcgan_digits --samp": "--sampler",
    "relit report --wat": "--watch",
    "relit help Ima": "ImageFolder",
    "relit fit some_f": "some_file.yaml",
}
"""Beginnings of lines, each with the word that is offered at its end."""


def completed_in_bash(line: str) -> list[str]:
    """What a real bash offers at the end of a line."""
    script = f"""
    source /dev/stdin <<'SCRIPT'
{completion.bash()}
SCRIPT
    line={line!r}
    COMP_LINE=$line; COMP_POINT=${{#line}}
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
    _relit
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def completed_in_fish(lines: Sequence[str], script: Path) -> list[list[str]]:
    """What a real fish offers at the ends of lines."""
    command = "; ".join([f"source {script}", *(f"complete -C '{line}'; echo end" for line in lines)])
    output = subprocess.run(["fish", "-c", command], capture_output=True, text=True, check=True).stdout
    return [[offer.split("\t")[0] for offer in part.splitlines()] for part in output.split("end\n")[:-1]]


def completed_in_a_terminal(shell: Sequence[str], lines: Sequence[str], setting_up: str) -> list[str]:
    """What lines become in a real interactive shell when Tab is pressed at their ends."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "dumb"
        os.execvp(shell[0], shell)
    seen = ""

    def until(mark: str) -> str:
        nonlocal seen
        deadline = time.monotonic() + 30
        while mark not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 1 << 16).decode(errors="replace")
        before, seen = seen.split(mark, 1)
        return before

    found = []
    try:
        os.write(terminal, f"PS1=; {setting_up}; echo rea''dy\n".encode())
        until("ready\r\n")
        for number, line in enumerate(lines):
            # Tab, then the line is printed: Ctrl-A and Ctrl-E go to its ends
            os.write(terminal, f"{line}\t\x01printf '%s\\n' 'line {number}: \x05'\n".encode())
            until(f"\nline {number}: ")
            found.append(until("\r\n").strip())
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return found


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: Patch) -> dict[str, str]:
    """The lines as they should become, in a folder with the file that one of them names."""
    monkeypatch.chdir(tmp_path)
    Path("some_file.yaml").touch()
    return {line: f"{line.rpartition(' ')[0]} {offered}" for line, offered in CASES.items()}


def test_bash(whole: dict[str, str]) -> None:
    Path("relit.bash").write_text(completion.bash())
    became = completed_in_a_terminal(["bash", "--norc", "--noprofile", "-i"], list(whole), "source relit.bash")
    assert dict(zip(whole, became, strict=True)) == whole


def test_bash_offers_nothing_that_does_not_fit() -> None:
    assert "--model.latent_dim" not in completed_in_bash("relit fit --model ProtoNet --model.")
    assert "--picture" not in completed_in_bash("relit fit --p")
    assert "--weights" not in completed_in_bash("relit prepare --w")
    assert "fit" not in completed_in_bash("relit re")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize("installed", ["found by compinit", "sourced"])
def test_zsh(installed: str, whole: dict[str, str]) -> None:
    Path("functions").mkdir()
    Path("functions/_relit").write_text(completion.zsh())
    set_up = {
        "found by compinit": "fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D",
        "sourced": "autoload -Uz compinit; compinit -u -D; source functions/_relit",
    }[installed]
    became = completed_in_a_terminal(["zsh", "-f", "-i"], list(whole), set_up)
    assert dict(zip(whole, became, strict=True)) == whole


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish(whole: dict[str, str]) -> None:
    Path("relit.fish").write_text(completion.fish())
    others = ["relit fit --model ProtoNet --model.lat", "relit re"]
    *offers, wrong, first = completed_in_fish([*whole, *others], Path("relit.fish"))
    assert [line for line, found in zip(whole, offers, strict=True) if CASES[line] not in found] == []
    assert "--model.latent_dim" not in wrong
    assert first == ["report"]
