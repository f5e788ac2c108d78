"""``relit push``: weights with their cards on the Hugging Face Hub.

Pushed are the files of ``relit export --hub-card``: ``NAME.safetensors``, its card ``NAME.json`` and ``README.md``.
``hf:OWNER/NAME`` names them wherever relit takes weights.
"""

import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from lit_models.cli.export import export, write_hub_card
from lit_models.cli.messages import sentence_of
from lit_models.cli.parsers import push_parser, require_repository
from lit_models.errors import RunError
from lit_models.networks.user_network import import_encoder
from lit_models.support.arguments import error_of_ours
from lit_models.support.checkpoint_paths import WEIGHTS
from lit_models.support.current_folder import import_from_current_folder
from lit_models.support.weight_sources import find_weights, hub_reason, require_hub
from lit_models.support.weights import read_weights


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    given = push_parser().parse_args(args)
    try:
        if given.encoder is not None:
            import_from_current_folder([given.encoder])
            import_encoder(given.encoder)
        print(f"Published: {push(given.weights, given.repository, given.private, given.note)}")
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        print(f"relit: {sentence_of(error)}", file=sys.stderr)
        if not given.debug and error_of_ours(error) is None:
            print("relit: add --debug for the whole traceback.", file=sys.stderr)
        return 1
    return 0


def push(weights: str, repository: str, private: bool = False, note: str | None = None) -> str:
    """Publishes weights; returns the address.

    Args:
        weights: A ``.safetensors`` file with its card, or anything that :func:`lit_models.cli.export.export` takes.
        repository: ``OWNER/NAME``.
        private: Create a private repository.
        note: A remark for the card of an exported run.

    Raises:
        RunError: The weights can't be read, the package ``huggingface_hub`` isn't installed, or the Hub refuses.
    """
    require_repository(repository)
    api = require_hub().HfApi()
    path = find_weights(weights)
    with tempfile.TemporaryDirectory(prefix="relit-") as name:
        folder = Path(name)
        if path.suffix == WEIGHTS:
            read_weights(path)  # checks both files
            for file in (path, path.with_suffix(".json")):
                shutil.copy(file, folder)
            write_hub_card(folder / path.name, repository)
        else:
            export(path, output=str(folder / repository.split("/")[1]), note=note, hub_card=repository)
        try:
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Weights and cards by relit")
        except Exception as error:  # the client raises errors of several packages
            raise RunError(
                f"The Hub doesn't take {repository} ({hub_reason(error)}): check the name and the network, and log in "
                "by `hf auth login`."
            ) from error
    return str(address)
