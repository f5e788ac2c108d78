"""The completion scripts, in the shells themselves where they are installed."""

import shutil
import subprocess

import pytest

from lit_models.cli import completion


def completed(line: str) -> list[str]:
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


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("relit f", "fit"),
        ("relit rep", "report"),
        ("relit fit dcgan_d", "dcgan_digits"),
        ("relit fit --config wgan_gp_d", "wgan_gp_digits"),
        ("relit fit --model DC", "DCGAN"),
        ("relit fit --data MN", "MNIST"),
        ("relit fit --trainer.max_ep", "--trainer.max_epochs"),
        ("relit fit --model DCGAN --model.lat", "--model.latent_dim"),
        ("relit fit vae_digits --model.kl_w", "--model.kl_weight"),
        ("relit fit dcgan_digits --trainer.callbacks+ EarlyS", "EarlyStopping"),
        ("relit predict --weights dcgan_", "dcgan_mnist"),
        ("relit predict --weights conditional_gan_mnist --cl", "--class"),
        ("relit test dcgan_digits --ckpt_path la", "last"),
        ("relit list exp", "experiments"),
        ("relit copy resnet18_d", "resnet18_digits"),
        ("relit help Ima", "ImageFolder"),
    ],
)
def test_bash(line: str, offered: str) -> None:
    assert offered in completed(line)


def test_bash_offers_nothing_that_does_not_fit() -> None:
    assert "--model.latent_dim" not in completed("relit fit --model ProtoNet --model.")
    assert "--weights" not in completed("relit fit --w")
    assert "fit" not in completed("relit re")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_it(shell: str) -> None:
    text = {"zsh": completion.zsh, "fish": completion.fish}[shell]()
    assert "dcgan_digits" in text
    assert "trainer.max_epochs" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)
