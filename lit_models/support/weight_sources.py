"""Weights by name: a file, a run's or experiment's folder, one of the shipped ones, or the Hugging Face Hub.

Whatever the name, only files that can't hold code are read: ``.safetensors`` with a card, and checkpoints as
:func:`lit_models.support.checkpoint_files.read_checkpoint` reads them. From the Hub, only ``.safetensors`` and cards
are downloaded.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lit_models
from lit_models.errors import RunError
from lit_models.support.checkpoint_paths import WEIGHTS, checkpoint_in, require_card

HUB = "hf:"
HUB_REASONS = {
    "GatedRepoError": "its owner gives access on request",
    "RepositoryNotFoundError": "there is no such repository, or you may not read it",
    "RevisionNotFoundError": "there is no such revision",
}
"""Errors of ``huggingface_hub`` by name, of which the messages are several lines."""
HUB_NAME = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w-][\w.-]*\.safetensors))?(?:@(?P<revision>[\w./-]+))?"
)


def find_weights(source: str) -> Path:
    """The file of weights that a name stands for.

    Args:
        source: A ``.safetensors`` file with its card, or a checkpoint; a folder of a run, of an experiment, or of one
            ``.safetensors`` file; ``hf:owner/name[/FILE.safetensors][@revision]`` on the Hugging Face Hub; or the name
            of shipped weights, such as ``dcgan_mnist``.

    Raises:
        RunError: There are no such weights, or the Hub can't be reached.
    """
    if source.startswith(HUB):
        return _from_hub(source)
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return checkpoint_in(path) or _only_weights(path, source)
    shipped = {file.stem: file for folder in shipped_folders() for file in folder.glob(f"*{WEIGHTS}")}
    if source in shipped:
        return shipped[source]
    nearest = get_close_matches(source, shipped, 1)
    meant = f" Did you mean {nearest[0]}?" if nearest else ""
    raise RunError(
        f"There are no weights {source}: name a {WEIGHTS} file, a checkpoint, a run's folder, {HUB}OWNER/NAME, or "
        f"shipped weights ({', '.join(sorted(shipped)) or 'none are installed'}).{meant}"
    )


def shipped_folders() -> list[Path]:
    """Where shipped weights may lie: in the installed package, or in the source tree."""
    package = Path(lit_models.__file__).parent
    return [place for place in (package / "shipped" / "weights", package.parent / "weights") if place.is_dir()]


def _only_weights(folder: Path, source: str, wanted: str | None = None) -> Path:
    """The file ``wanted`` of a folder, or its only ``.safetensors`` file that has a card."""
    if wanted is not None:
        return folder / wanted
    found = sorted(path for path in folder.glob(f"*{WEIGHTS}") if path.with_suffix(".json").is_file())
    if not found:
        raise RunError(f"{source} holds no checkpoint, and no {WEIGHTS} file with its card (.json).")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise RunError(
            f"{source} holds several weights ({names}): add the name of one of them, {source}/{names.split(', ')[0]}."
        )
    return found[0]


def _from_hub(source: str) -> Path:
    given = hub_name(source)
    file = given["file"]
    patterns = [f"*{WEIGHTS}", "*.json"] if file is None else [file, str(Path(file).with_suffix(".json"))]
    hub = require_hub()
    try:
        folder = hub.snapshot_download(given["repository"], revision=given["revision"], allow_patterns=patterns)
    except Exception as error:  # the client raises errors of several packages
        raise RunError(
            f"{source} can't be fetched from the Hub ({hub_reason(error)}): check the name and the network, or "
            "download it elsewhere and name its folder."
        ) from error
    return _only_weights(Path(folder), source, file)


def hub_name(source: str) -> re.Match[str]:
    """The parts of ``hf:owner/name[/FILE.safetensors][@revision]``: ``repository``, ``file`` and ``revision``.

    Raises:
        RunError: It isn't of that form.
    """
    given = HUB_NAME.fullmatch(source.removeprefix(HUB))
    if given is None:
        raise RunError(f"{source} names no weights on the Hub: write {HUB}OWNER/NAME.")
    return given


def require_weights(source: str) -> None:
    """Refuses weights that aren't there, or have no card, without asking the Hub.

    Raises:
        RunError: There are none of that name.
    """
    if source.startswith(HUB):
        hub_name(source)
    elif (path := find_weights(source)).suffix == WEIGHTS:
        require_card(path)


def require_hub() -> Any:
    """The package ``huggingface_hub``.

    Raises:
        RunError: It isn't installed.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise RunError("The Hugging Face Hub needs huggingface_hub: pip install 'relit[hub]'.") from error
    return huggingface_hub


def hub_reason(error: Exception) -> str:
    """Why a request to the Hub failed, in a few words."""
    for kind, reason in HUB_REASONS.items():
        if kind in (base.__name__ for base in type(error).__mro__):
            return reason
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("Got: ").partition(" for url ")[0].rstrip(".:")
