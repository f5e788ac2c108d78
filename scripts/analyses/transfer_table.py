"""Learning MNIST's digits from the first 50 labels: every way that relit has, over several seeds, with baselines.

    relit fit --config configs/autoencoder_mnist.yaml
    python scripts/analyses/transfer_table.py --encoder runs/autoencoder_mnist --seeds 5

Trains and tests `configs/transfer_mnist_*.yaml` (runs lie in `runs/transfer_mnist_*/seed0` … and are used again if they
are there), and a nearest-neighbor classifier on the pixels and on the encoder's codes; prints a table of test
accuracies and writes it to `--csv`.
"""

import argparse
import csv
import statistics
from pathlib import Path

import torch

from lit_models.__main__ import main as relit
from lit_models.runs.reading import last_test

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = {
    "transfer_mnist_linear_frozen": "linear layer on frozen codes",
    "transfer_mnist_mlp_frozen": "MLP on frozen codes",
    "transfer_mnist_linear_finetuned": "linear layer, encoder trained along",
    "transfer_mnist_mlp_finetuned": "MLP, encoder trained along",
    "transfer_mnist_scratch": "the same network from scratch",
}


def accuracy_of(experiment: str, seed: int, args: argparse.Namespace) -> float:
    """Trains and tests one run, unless it has been; its test accuracy."""
    run = args.runs / experiment / f"seed{seed}"
    report = run / "figures" / "classification_report.csv"
    if not report.is_file():
        common = [
            *("--config", str(CONFIGS / f"{experiment}.yaml"), f"--seed_everything={seed}"),
            *(f"--run.root={args.runs}", f"--run.id=seed{seed}", "--trainer.enable_progress_bar=false"),
            *("--trainer.enable_model_summary=false", f"--trainer.accelerator={args.accelerator}"),
            *([] if "scratch" in experiment else [f"--model.encoder_checkpoint={args.encoder}"]),
        ]
        for command in (["fit", *common], ["test", *common, "--ckpt_path=best"]):
            if relit(command) != 0:
                raise SystemExit(f"relit {' '.join(command)} failed")
    return last_test(run).values["test/accuracy"]


@torch.no_grad()
def neighbors(encoder: str) -> dict[str, tuple[float, int]]:
    """Test accuracies of nearest-neighbor classifiers, with the number of neighbors (1, 3 or 5) that does best when
    each of the 50 images in turn is left out."""
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    from datamodules import MNIST, FewLabels
    from lit_models.networks.convolutional import Encoder
    from lit_models.support.pretrained import find_pretrained, load_pretrained

    arguments = torch.load(find_pretrained(encoder), map_location="cpu", weights_only=True)["hyper_parameters"]
    sizes = {name: arguments[name] for name in ("image_size", "channels", "feature_maps")}
    network = Encoder(**sizes, latent_dim=arguments["latent_dim"])
    load_pretrained(network, "encoder", encoder, **sizes, code_dim=arguments["latent_dim"])

    data = FewLabels(MNIST())
    data.prepare_data()
    data.setup("test")
    splits = []
    for split in (data.train_set, data.test_set):
        batch = data.transform(split.__getitems__(torch.arange(len(split))), training=False)
        codes = torch.cat([network(part) for part in batch.image.split(1000)])
        splits.append({"pixels": batch.image.flatten(1).numpy(), "codes": codes.numpy(), "label": batch.label.numpy()})
    train, test = splits
    scores = {}
    for space in ("pixels", "codes"):
        classifiers = {k: KNeighborsClassifier(k) for k in (1, 3, 5)}
        left_out = {
            k: cross_val_score(one, train[space], train["label"], cv=LeaveOneOut()).mean()
            for k, one in classifiers.items()
        }
        best = max(left_out, key=lambda k: left_out[k])
        scores[space] = classifiers[best].fit(train[space], train["label"]).score(test[space], test["label"]), best
    return scores


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="runs/autoencoder_mnist", help="checkpoint, run or experiment")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each experiment (default: 5)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all experiments (default: runs)")
    parser.add_argument("--accelerator", default="auto", help="Lightning's accelerator (default: auto)")
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures to this file, too")
    args = parser.parse_args()

    rows = []
    for experiment in args.experiments:
        values = [100 * accuracy_of(experiment, seed, args) for seed in range(args.seeds)]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append((EXPERIMENTS[experiment], f"{statistics.mean(values):.1f} ± {deviation:.1f}", len(values)))
    for space, (score, k) in neighbors(args.encoder).items():
        rows.append((f"{k} nearest neighbor{'s' if k > 1 else ''} on {space}", f"{100 * score:.1f}", 1))

    print("\n| from the first 50 labels of MNIST | test accuracy / % | runs |\n| --- | ---: | ---: |")
    for row in rows:
        print("| {} | {} | {} |".format(*row))
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("classifier", "test accuracy / %", "runs"), *rows])


if __name__ == "__main__":
    main()
