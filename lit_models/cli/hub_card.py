"""The README.md of weights on the Hugging Face Hub: metadata that the Hub reads, and a page for people."""

from typing import Any

import yaml

IMAGES = "unconditional-image-generation"
TASKS = {
    "ConditionalGAN": IMAGES,
    "CycleGAN": "image-to-image",
    "DARTSRetrain": "image-classification",
    "DARTSSearch": "image-classification",
    "DCGAN": IMAGES,
    "DenoisingAutoencoder": "image-feature-extraction",
    "DigitClassifier": "image-classification",
    "LatentGAN": IMAGES,
    "LayerwiseMLP": "image-classification",
    "MetricResNet": "image-classification",
    "Pix2Pix": "image-to-image",
    "ProtoNet": "image-feature-extraction",
    "SNGAN": IMAGES,
    "TransferClassifier": "image-classification",
    "TripletGAN": IMAGES,
    "VAE": IMAGES,
    "WGAN": IMAGES,
}
"""The Hub's name for what each method does."""
USES = {
    IMAGES: "images = model.sample(16)  # (16, C, H, W) in [0, 1]",
    "image-to-image": "translated = model(images)  # images (N, C, H, W) in [0, 1]",
    "image-classification": "probabilities = model(images).softmax(1)  # images (N, C, H, W) in [0, 1]",
    "image-feature-extraction": "embedding = model(images)  # images (N, C, H, W) in [0, 1]",
    "DenoisingAutoencoder": "embedding = model.embed(images)  # images (N, C, H, W) in [0, 1]",
}
"""A line of Python that does it, by task, or by method where that differs."""


def hub_card_text(card: dict[str, Any], file: str, repository: str) -> str:
    """The text of the README.md.

    Args:
        card: The card of the weights (see :func:`lit_models.support.weights.write_weights`).
        file: Name of the ``.safetensors`` file.
        repository: ``OWNER/NAME`` on the Hub.
    """
    method, task = card["method"], TASKS[card["method"]]
    data = None if card["data"] is None else card["data"]["class_path"].rpartition(".")[2]
    figures = {name: value for name, value in card["figures"].items() if isinstance(value, (int, float))}
    metadata: dict[str, Any] = {
        "library_name": "relit",
        "pipeline_tag": task,
        "tags": ["relit", "pytorch-lightning", method.lower(), *([data.lower()] if data else [])],
    }
    if figures and data:
        results = {
            "task": {"type": task},
            "dataset": {"name": data, "type": data.lower()},
            "metrics": [{"type": name, "name": name, "value": value} for name, value in figures.items()],
        }
        metadata["model-index"] = [{"name": card["experiment"] or method, "results": [results]}]
    trained = f"{method}, trained on {data}" if data else method
    facts = {
        "Training": f"epoch {card['epoch'] + 1}, step {card['step']:,}",
        "Parameters and buffers": f"{card['numbers']:,} numbers",
        "Command": card["command"] and f"`{card['command']}`",
        "Commit": card["commit"] and f"`{card['commit']}`",
        "relit": card["relit"],
        "SHA-256": f"`{card['sha256']}`",
        "Note": card["note"],
    }
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {card['experiment'] or method}",
        "",
        f"{trained} with [relit](https://pypi.org/project/relit/). `{file}` holds the weights, and "
        f"`{file.removesuffix('.safetensors')}.json` all settings that the model is built from.",
        "",
        "```sh",
        "pip install 'relit[hub]'",
        f"relit predict --weights hf:{repository}",
        "```",
        "",
        "```python",
        f"from lit_models import {method}",
        "",
        f'model = {method}.from_pretrained("hf:{repository}")',
        USES.get(method, USES[task]),
        "```",
        "",
        *_table(("", ""), {name: value for name, value in facts.items() if value}),
    ]
    if figures:
        lines += ["", "## Metrics", "", *_table(("metric", "value"), {n: f"{v:.4g}" for n, v in figures.items()})]
    lines += ["", "## Hyperparameters", "", *_table(("argument", "value"), card["hyperparameters"])]
    return "\n".join(lines) + "\n"


def _table(header: tuple[str, str], rows: dict[str, Any]) -> list[str]:
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows.items()]
    return [f"| {left} | {right} |" for left, right in (header, ("---", "---"), *cells)]
