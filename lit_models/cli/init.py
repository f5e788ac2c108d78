"""``relit init FOLDER``: looks at a folder of pictures and writes a complete, commented configuration for a method."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.errors import DataError
from datamodules.loading.decoding import Look, look_at, power_of_two
from datamodules.loading.folders import EXTRA, TEST, TRAIN, UNLABELED, VAL, list_classes, list_images, printable
from datamodules.loading.pair_files import PairListing, list_pairs
from datamodules.loading.paths import expanded
from lit_models.cli.parsers import init_parser
from lit_models.errors import RunError

SPLITS = {TRAIN: "training", VAL: "validation", TEST: "test", EXTRA: "unlabeled"}


class Folder(NamedTuple):
    """What a folder holds.

    Attributes:
        path: Where it is.
        images: How many pictures.
        look: Sizes and colors of some of them, and which can't be opened.
        splits: Pictures of each split.
        classes: Training pictures of each class; empty without classes.
        fewest: Pictures of the smallest class in any split.
        pairs: How pairs lie in it, if they do.
        notes: What is odd about it.
    """

    path: Path
    images: int
    look: Look
    splits: Counter[int]
    classes: Counter[str]
    fewest: int
    pairs: PairListing | None
    notes: list[str]

    @property
    def channels(self) -> int:
        """1 if all pictures are gray, else 3."""
        return self.look.channels

    @property
    def channels_of_halves(self) -> tuple[int, int]:
        """Channels of both halves of pairs: 1 if all of its pictures are gray, else 3."""
        if self.pairs is None or self.pairs_side_by_side:
            return self.channels, self.channels
        first = {name for files in self.pairs.splits.values() for name in files.a}
        halves = [[name for name in self.look.sizes if (name in first) == is_first] for is_first in (True, False)]
        a, b = (1 if half and self.look.gray.issuperset(half) else 3 for half in halves)
        return a, b

    @property
    def side(self) -> int:
        """The shorter side of most pictures, or of their halves if they hold two."""
        width, height = self.look.most_common_size
        return min(width // 2 if self.pairs_side_by_side else width, height)

    @property
    def pairs_side_by_side(self) -> bool:
        return self.pairs is not None and any(files.b is None for files in self.pairs.splits.values())


def look(path: Path) -> Folder:
    """Opens the pictures of a folder, as many as say what is in it.

    Raises:
        RunError: There is no such folder, or it holds no pictures.
    """
    if path.is_file():
        raise RunError(f"{path} is a file: name a folder of pictures; unpack an archive first.")
    if not path.is_dir():
        raise RunError(f"There is no folder {path}: name one that holds pictures.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            all_files, files = list_images(path)
        except PermissionError as error:
            raise RunError(f"You may not read the folder {path}: ask its owner, or name another one.") from error
        if not files:
            raise RunError(f"{path} holds no pictures: name a folder that does.")
        found = look_at(path, files)
        if not found.sizes:
            raise RunError(
                f"None of the pictures in {path} can be read: {', '.join(found.faults[:3])}. Save them as PNG or JPEG "
                "files, or name another folder."
            )
        before = len(caught)
        pairs = _pairs(path, found)
        if pairs is None:
            del caught[before:]  # what was odd about them as pairs
        splits: Counter[int] = Counter()
        classes: Counter[str] = Counter()
        fewest = 0
        if pairs is None or _may_be_classes(pairs):
            before = len(caught)
            listing = list_classes(path, path)
            if pairs is not None:
                del caught[before:]  # what was odd about them as classes
            splits.update(listing.splits if pairs is None else ())
            classes.update(
                printable(listing.class_names[label])
                for label, split in zip(listing.labels, listing.splits, strict=True)
                if listing.class_names and split == TRAIN and label != UNLABELED
            )
            places = zip(listing.splits, listing.labels, strict=True)
            fewest = min(Counter(place for place in places if place[1] != UNLABELED).values(), default=0)
        if pairs is not None:
            splits.update({split: len(halves.a) for split, halves in pairs.splits.items()})
    notes = list(dict.fromkeys(str(one.message) for one in caught))
    tables = [printable(name) for name in all_files if name.lower().endswith((".csv", ".tsv"))]
    if tables and not classes and pairs is None:
        notes.append(f"{tables[0]} isn't read: if it holds classes, sort the pictures into a folder for each class")
    return Folder(path, len(files), found, splits, classes, fewest, pairs, notes)


def _pairs(path: Path, found: Look) -> PairListing | None:
    """The pairs of a folder: two folders of halves, or pictures of which nearly all are twice as wide as high."""
    try:
        listing = list_pairs(path, path)
    except DataError:
        return None
    if any(files.b is not None for files in listing.splits.values()):
        return listing
    twice = sum(width == 2 * height for width, height in found.sizes.values())
    return listing if twice >= 0.9 * len(found.sizes) else None


def _may_be_classes(pairs: PairListing) -> bool:
    """Whether the folders of the halves, named A and B, may be two classes whose pictures have equal names."""
    return pairs.belong_together and all(files.b is not None for files in pairs.splits.values())


def described(folder: Folder) -> list[str]:
    """What was found, a line each."""
    (width, height), most = Counter(folder.look.sizes.values()).most_common(1)[0]
    looked_at = len(folder.look.sizes)
    same = "all" if most == looked_at else f"{most} of {looked_at} looked at"
    colors = " and ".join("gray" if count == 1 else "color" for count in dict.fromkeys(folder.channels_of_halves))
    lines = [f"{folder.images:,} pictures, {colors}, {same} of {width}x{height} pixels"]
    lines.append("splits: " + ", ".join(f"{count:,} {SPLITS[split]}" for split, count in sorted(folder.splits.items())))
    if folder.pairs is not None:
        how = "side by side" if folder.pairs_side_by_side else "in two folders, by equal names"
        lines.append(f"pairs: {how}" if folder.pairs.belong_together else "two sets of pictures that aren't pairs")
        if folder.classes:
            lines.append(f"or {len(folder.classes)} classes: {', '.join(folder.classes)}")
    elif folder.classes:
        fewest, least = min(folder.classes.items(), key=lambda item: item[1])
        names = ", ".join(list(folder.classes)[:5]) + (", …" if len(folder.classes) > 5 else "")
        lines.append(f"{len(folder.classes)} classes: {names}; the smallest, {fewest}, has {least:,} training pictures")
    else:
        lines.append("no classes")
    if faults := folder.look.faults:
        lines.append(f"{len(faults)} can't be read, such as {faults[0]}")
    return lines + folder.notes


# --- methods ----------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A method for folders of a kind.

    Attributes:
        lacks: What a folder lacks for it; empty if it fits.
        write: The text of its configuration.
    """

    lacks: Callable[[Folder], str]
    write: Callable[[Folder], str]


def batch_size(folder: Folder, wanted: int) -> int:
    """A batch that the training split fills a few times."""
    return max(1, min(wanted, _training(folder) // 4))


def _training(folder: Folder) -> int:
    drawn = 0.1 * ((VAL not in folder.splits) + (TEST not in folder.splits))
    return int(folder.splits[TRAIN] * (1 - drawn))


def _needs_single(folder: Folder) -> str:
    if folder.pairs is not None and folder.pairs_side_by_side:
        return "single pictures; these hold two each"
    return "" if _training(folder) >= 2 else "more training pictures"


def _needs_classes(folder: Folder) -> str:
    if len(folder.classes) < 2:
        return "a sub-folder for each of two or more classes"
    return _needs_single(folder)


def _needs_many_classes(folder: Folder) -> str:
    missing = _needs_classes(folder)
    if not missing and (len(folder.classes) < 6 or folder.fewest < 2):
        missing = "six or more classes of two or more pictures each, in each split"
    return missing


def _needs_pairs(folder: Folder) -> str:
    if folder.pairs is None or not folder.pairs.belong_together:
        return "pairs: pictures that hold both halves side by side, or folders A and B with equal names"
    return "" if folder.splits[TRAIN] >= 2 else "more training pairs"


def _needs_two_sets(folder: Folder) -> str:
    if folder.pairs is None:
        return "two sets of pictures: folders trainA and trainB, or pairs"
    return "" if folder.splits[TRAIN] >= 2 else "more training pictures"


def _head(folder: Folder, name: str, what: str) -> str:
    lines = [f"# {what} on {printable(str(folder.path))}, written by `relit init`:", "#"]
    lines += [f"#   {line}" for line in described(folder)]
    lines += [
        "#",
        f"#   relit prepare --config {name}.yaml --picture batch.png   # look at a batch first",
        f"#   relit fit     --config {name}.yaml",
        f"#   relit test    --config {name}.yaml --ckpt_path last",
    ]
    return "\n".join(lines) + f"\n\nseed_everything: 0\nrun:\n  experiment: {name}\n"


def _folder_data(folder: Folder, size: int, batch: int, indent: str = "", more: Sequence[str] = ()) -> str:
    lines = [
        "class_path: ImageFolder",
        "init_args:",
        f"  path: {_quoted(str(folder.path))}",
        f"  image_size: {size}  # the central square of each picture is resized to it",
        f"  channels: {folder.channels}",
        f"  batch_size: {batch}",
    ]
    if VAL not in folder.splits:
        lines.append("  val_fraction: 0.1  # there is no folder val")
    if TEST not in folder.splits:
        lines.append("  test_fraction: 0.1  # there is no folder test")
    return "\n".join(f"{indent}{line}" for line in [*lines, *more]) + "\n"


def _model(name: str, **arguments: Any) -> str:
    lines = [f"model:\n  class_path: {name}\n  init_args:"]
    return "\n".join([*lines, *(f"    {key}: {value}" for key, value in arguments.items())]) + "\n"


def _trainer(epochs: int, *callbacks: str) -> str:
    lines = [f"trainer:\n  max_epochs: {epochs}"]
    if callbacks:
        lines += ["  callbacks:", *(f"    - class_path: {callback}" for callback in callbacks)]
    return "\n".join(lines) + "\n"


def _epochs(folder: Folder, batch: int, steps: int) -> int:
    """Epochs of about so many steps."""
    return max(5, min(500, steps // max(1, _training(folder) // batch)))


def write_classifier(folder: Folder) -> str:
    """ResNet-18 with cross-entropy."""
    size, batch = power_of_two(folder.side, 32), batch_size(folder, 64)
    color = "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"
    mean, std = color if folder.channels == 3 else ("[0.5]", "[0.5]")
    return (
        _head(folder, "resnet18", "ResNet-18 classifier")
        + _model(
            "MetricResNet",
            image_size=size,
            channels=folder.channels,
            num_classes=len(folder.classes),
            loss="cross_entropy",
            feature_maps="64  # 16 is much faster, and enough for a few hundred pictures",
            mean=mean,
            std=std,
        )
        + "data:\n"
        + _folder_data(folder, size, batch, "  ", ["  augmentation: standard  # or none, flip, strong"])
        + _trainer(_epochs(folder, batch, 5_000), "ClassificationReport")
        + "checkpoint:\n  monitor: val/accuracy\n  mode: max\n"
    )


def write_protonet(folder: Folder) -> str:
    """Prototypical networks, with classes drawn for validation and testing if there are no folders for them."""
    size, count = power_of_two(folder.side, 32), len(folder.classes)
    held_out = max(2, count // 5)
    way, test_way = min(5, count - 2 * held_out), min(5, held_out)
    query = max(1, min(5, folder.fewest - 1))
    by_class = [] if {VAL, TEST} <= folder.splits.keys() else ["  split_by: class  # other classes to test with"]
    data = _folder_data(folder, size, 1, "      ", by_class).replace("        batch_size: 1\n", "")
    data = data.replace("_fraction: 0.1", f"_fraction: {held_out / count:.2f}")
    return (
        _head(folder, "protonet", "Prototypical networks")
        + _model("ProtoNet", image_size=size, channels=folder.channels)
        + "data:\n  class_path: EpisodeDataModule\n  init_args:\n    images:\n"
        + data
        + f"    n_way: {way}\n    k_shot: 1\n    n_query: {query}\n    test_way: {test_way}\n    test_query: {query}\n"
        + "    train_episodes: 100\n"
        + _trainer(50)
    )


def write_vae(folder: Folder) -> str:
    """A variational autoencoder."""
    size, batch = power_of_two(folder.side), batch_size(folder, 64)
    return (
        _head(folder, "vae", "Variational autoencoder")
        + _model("VAE", image_size=size, channels=folder.channels, latent_dim=32, feature_maps=32)
        + "data:\n"
        + _folder_data(folder, size, batch, "  ")
        + _trainer(_epochs(folder, batch, 10_000), "SampleGrid", "ReconstructionGrid")
    )


def write_dcgan(folder: Folder) -> str:
    """A DCGAN."""
    size, batch = power_of_two(folder.side), batch_size(folder, 64)
    return (
        _head(folder, "dcgan", "DCGAN")
        + _model("DCGAN", image_size=size, channels=folder.channels, latent_dim=100, feature_maps=32)
        + "data:\n"
        + _folder_data(folder, size, batch, "  ", ["  augmentation: flip  # none, if left and right differ"])
        + _trainer(_epochs(folder, batch, 20_000), "SampleGrid")
    )


def _paired_data(folder: Folder, size: int) -> str:
    lines = [
        "data:",
        "  class_path: PairedFolder",
        "  init_args:",
        f"    path: {_quoted(str(folder.path))}",
        "    direction: a_to_b  # from A (left) to B (right); or b_to_a",
        f"    image_size: {size}",
    ]
    if folder.side >= 1.5 * size:
        lines.append(f"    load_size: {min(286, folder.side)}  # pictures are resized to it, then windows are cut out")
    lines += ["    batch_size: 1", "    eval_batch_size: 8", "    flip: true  # not for text"]
    a, b = folder.channels_of_halves
    lines += ["    source_channels: 1"] * (a == 1) + ["    target_channels: 1"] * (b == 1)
    return "\n".join(lines) + "\n"


def _pair_channels(folder: Folder) -> dict[str, float]:
    """A model's arguments for the channels of the halves."""
    a, b = folder.channels_of_halves
    return {"channels": b} if a == b else {"channels": b, "source_channels": a}


def write_pix2pix(folder: Folder) -> str:
    """pix2pix."""
    size = power_of_two(folder.side, 32, 256 if folder.side < 512 else 128)
    return (
        _head(folder, "pix2pix", "pix2pix")
        + _model("Pix2Pix", image_size=size, **_pair_channels(folder), feature_maps=32, discriminator_feature_maps=32)
        + _paired_data(folder, size)
        + _trainer(100, "Triptychs", "TranslationScores")
    )


def write_cycle_gan(folder: Folder) -> str:
    """CycleGAN."""
    size, channels = power_of_two(folder.side, 32, 128), _pair_channels(folder)
    if "source_channels" in channels:
        channels["lambda_identity"] = 0.0  # which needs as many channels on both sides
    return (
        _head(folder, "cycle_gan", "CycleGAN")
        + _model("CycleGAN", image_size=size, **channels, feature_maps=32, discriminator_feature_maps=32)
        + _paired_data(folder, size)
        + _trainer(100, "Triptychs")
    )


RECIPES = {
    "pix2pix": Recipe(_needs_pairs, write_pix2pix),
    "cycle_gan": Recipe(_needs_two_sets, write_cycle_gan),
    "resnet18": Recipe(_needs_classes, write_classifier),
    "vae": Recipe(_needs_single, write_vae),
    "dcgan": Recipe(_needs_single, write_dcgan),
    "protonet": Recipe(_needs_many_classes, write_protonet),
}
"""By name, the most special first: the first one that fits is written if none is named."""


def main(args: list[str]) -> int:
    """Runs ``relit init``; returns the exit code."""
    given = init_parser().parse_args(args)
    try:
        return _init(expanded(given.folder), given.method, given.output, given.force)
    except (RunError, DataError) as error:
        print(f"relit: {printable(str(error))}", file=sys.stderr)
        return 1


def _init(path: Path, method: str | None, output: str | None, force: bool) -> int:
    folder = look(path)
    print(f"{printable(str(path))}:")
    for line in described(folder):
        print(f"  {line}")
    lacks = {name: recipe.lacks(folder) for name, recipe in RECIPES.items()}
    fitting = [name for name, missing in lacks.items() if not missing]
    for name, missing in lacks.items():
        if missing:
            print(f"  {name} needs {missing}")
    if method is not None and lacks[method]:
        raise RunError(f"{method} doesn't fit {path}: it needs {lacks[method]}.")
    if not fitting:
        raise RunError(f"No method fits {path}: see above what each needs.")
    method = method or fitting[0]
    file = expanded(output) if output is not None else Path(f"{method}.yaml").absolute()
    if file.exists() and not force:
        raise RunError(f"{file} is there already: give another --output, or --force to replace it.")
    text = RECIPES[method].write(folder)
    if output is not None:
        text = text.replace(f"--config {method}.yaml", f"--config {output}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{file} can't be written ({error.strerror}): give another --output.") from error
    others = [name for name in fitting if name != method]
    print(f"Wrote {os.path.relpath(file)}." + (f" Also fitting: --method {', '.join(others)}." * bool(others)))
    return 0


def _quoted(text: str) -> str:
    """A string as YAML takes it, whatever it holds."""
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    escaped = (one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08x}" for one in text)
    return f'"{"".join(escaped)}"'
