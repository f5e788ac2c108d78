"""What a folder of pictures holds: its files, its classes and its splits."""

import os
import posixpath
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.errors import DataError, note

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".avif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".tga",
    ]
)
UNREAD_SUFFIXES = frozenset(
    [
        ".heic",
        ".heif",
        ".jxl",
        ".svg",
        ".psd",
        ".xcf",
        ".eps",
        ".raw",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".dng",
        ".orf",
        ".rw2",
        ".exr",
        ".hdr",
        ".dcm",
        ".nii",
        ".ico",
        ".pcx",
    ]
)
"""Pictures that people have and relit doesn't read."""
FOREIGN_FOLDERS = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"))
"""Folders that an operating system puts among the user's: notes on files, thumbnails, waste."""

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
"""First bytes of JPEG, PNG, GIF and TIFF files."""
SNIFFED = 200
"""Files of other names whose first bytes are read, at most."""
THUMBNAILS = frozenset(("thumbs", "thumbnails", "thumbnail", "thumb", "previews"))
KINDS_OF_FILES = frozenset(("images", "imgs", "masks", "mask", "labels", "annotations", "segmentations", "gt"))
"""Names of folders for a kind of file, not a class."""

STEERING = ("Cc", "Zl", "Zp")
"""Unicode's categories of characters that steer a terminal, or begin a line or paragraph."""
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's classes of characters that change the direction of the text around them."""

TRAIN, VAL, TEST = 0, 1, 2
UNLABELED = -1
"""Label of an image without a class."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "valset"), VAL),
    **dict.fromkeys(("test", "testing", "tst", "testset"), TEST),
}
PARTS = frozenset(("fold", "part", "batch", "shard", "chunk"))
"""Names, without a number, of folders for parts of one set, which are no classes."""
RUN_FILES = frozenset(("config.yaml", "run.json"))
"""What relit writes into the folder of a training, whose pictures aren't data."""
UNLABELED_FOLDERS = frozenset(("unlabeled", "unlabelled", "unsup"))
EXTRA = 3
"""Split of the images in a folder of ``UNLABELED_FOLDERS``."""


class Listing(NamedTuple):
    """The images of a folder.

    Attributes:
        files: Their names relative to the folder, in order.
        labels: The class of each; 0 where there are no classes, ``UNLABELED`` for an image without one among others.
        splits: ``TRAIN``, ``VAL``, ``TEST`` or ``EXTRA`` for each. If none is of ``VAL``, those are drawn from
            ``TRAIN``; the same goes for ``TEST``.
        class_names: The classes' names by label; empty if there are none.
    """

    files: list[str]
    labels: list[int]
    splits: list[int]
    class_names: list[str]


class Tree(NamedTuple):
    """All below a folder but what is hidden; names are relative to it, with slashes.

    Attributes:
        files: The files, sorted.
        folders: The folders, sorted.
        repeated: Links to folders that are found elsewhere below the folder, or hold it; they aren't followed.
        dangling: Links to files that don't exist or can't be reached.
        closed: Folders that this user may not list.
        runs: Folders of relit's trainings, which aren't listed.
    """

    files: list[str]
    folders: list[str]
    repeated: list[str]
    dangling: list[str]
    closed: list[str]
    runs: list[str]


def walk(folder: Path) -> Tree:
    """Lists a folder; links to folders are followed, but no folder is gone through twice."""
    files, folders, repeated, dangling, closed, runs = [], [], [], [], [], []
    if not folder.is_dir():
        return Tree([], [], [], [], [], [])
    seen = {_identity(os.stat(folder))}
    real, links = deque([""]), deque[str]()
    while real or links:
        # Links come last, so that a folder is listed under its own name.
        below = real.popleft() if real else links.popleft()
        path = os.path.join(folder, below)
        if below and os.path.islink(path):
            identity = _identity(os.stat(path))
            if identity in seen:
                repeated.append(below)
                continue
            seen.add(identity)
        prefix = f"{below}/" if below else ""
        try:
            with os.scandir(path) as listed:
                entries = list(listed)
        except PermissionError:
            if not below:
                raise
            folders.append(below)
            closed.append(below)
            continue
        if below and {entry.name for entry in entries} >= RUN_FILES:
            runs.append(below)
            continue
        if below:
            folders.append(below)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in FOREIGN_FOLDERS:
                continue
            name = f"{prefix}{entry.name}"
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself, or into a folder that is closed to this user
                is_folder = is_file = False
            if is_folder and entry.is_symlink():
                links.append(name)
            elif is_folder:
                seen.add(_identity(entry.stat()))
                real.append(name)
            elif is_file:
                files.append(name)
            elif entry.is_symlink():
                dangling.append(name)
    return Tree(*map(sorted, (files, folders, repeated, dangling, closed, runs)))


def files_below(folder: Path) -> list[str]:
    """The names of all files below a folder, relative to it and sorted, without hidden ones."""
    return walk(folder).files


def list_images(folder: Path, source: Path | None = None) -> tuple[list[str], list[str]]:
    """The names of all files below a folder, and of those that are images by their suffix.

    What looks like a picture and isn't taken is noted.

    Args:
        folder: Where to look.
        source: What the notes call the folder, if not by its path.
    """
    tree = walk(folder)
    _note_what_is_left_out(tree, source or folder)
    return tree.files, _images(tree.files)


def list_classes(folder: Path, source: Path) -> Listing:
    """Finds the images below a folder, their splits and their classes.

    Raises:
        DataError: There are no images.
    """
    tree = walk(folder)
    images = _images(tree.files)
    if not images:
        others = f" but {len(tree.files)} other files, such as {printable(tree.files[0])}" if tree.files else ""
        raise DataError(f"{source} holds no images{others}: set --data.path to a folder or archive of images.")
    _note_what_is_left_out(tree, source)
    common = posixpath.commonpath([posixpath.dirname(name) for name in images])
    paths = [name.removeprefix(f"{common}/").split("/") for name in images]
    within_classes = _are_splits_within_classes(paths)
    if within_classes:
        paths = [[split, name, *rest] for name, split, *rest in paths]
    split_of = find_splits({path[0] for path in paths if len(path) > 1}, source)
    if split_of:
        kept = [row for row, path in enumerate(paths) if path[0] in split_of]
        images, paths = [images[row] for row in kept], [paths[row] for row in kept]
    splits = [split_of.get(path[0], TRAIN) for path in paths]
    if split_of:
        paths = _without_wrappers([path[1:] for path in paths], splits)
    _note_other_files(tree, folder, source)
    around_classes = {"/".join(name.split("/")[: -len(path)]) for name, path in zip(images, paths, strict=True)}
    if within_classes:
        around_classes = {common}
    return Listing(images, *_labels(paths, splits, tree, around_classes, source))


def find_splits(names: set[str], source: Path) -> dict[str, int]:
    """Which split each of some sibling folders is; empty if they are classes.

    They are splits if one is for training and one for validation, testing or images without labels, or if all of them
    are splits by their names (``train``, ``Training``, ``seg_train``, ``train2017``), but not all the same. Other
    folders are left out, with a note.
    """
    found = {name: split for name in names if (split := split_of_name(name)) is not None}
    kinds = set(found.values())
    all_are_splits = found.keys() == names and (len(kinds) > 1 or len(names) == 1)
    if not found or not ((TRAIN in kinds and len(kinds) > 1) or all_are_splits):
        _note_names_of_splits(names, found, source)
        return {}
    counts = Counter(found.values())
    doubled = next((split for split, count in counts.items() if count > 1 and split != EXTRA), None)
    if doubled is not None:
        same = sorted(name for name, split in found.items() if split == doubled)
        raise DataError(f"{source} has more than one folder for one split: {_some(same)}. Rename or remove some.")
    if TRAIN not in kinds:
        note(f"{source} has no folder of training images: {_some(sorted(found))} hold the other splits.")
    if others := sorted(names - found.keys()):
        splits = _some(sorted(found))
        note(f"In {source}, these folders are none of the splits {splits} and are left out: {_some(others)}.")
    return found


def split_of_name(name: str) -> int | None:
    """The split that a folder is named after, such as ``VAL`` for ``val``, ``Validation``, ``seg_val`` or ``val2017``.

    Example:
        >>> [split_of_name(name) for name in ("train", "Testing", "seg_test", "TrainImages", "val2017", "trainVal")]
        [0, 2, 2, 0, 1, 0]
        >>> [split_of_name(name) for name in ("trainA", "contest")]
        [None, None]
    """
    words = _words(name)
    if any(word in UNLABELED_FOLDERS for word in words):
        return EXTRA
    if "".join(words) in SPLIT_WORDS:  # such as train_val
        return SPLIT_WORDS["".join(words)]
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 and len(words) <= 2 else None


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without numbers at their ends."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name).casefold()
    return [word for part in re.split(r"[\W_]+", apart) if (word := part.rstrip("0123456789"))]


def _are_splits_within_classes(paths: list[list[str]]) -> bool:
    """Whether all classes hold folders for the splits (``cat/train``, ``cat/test``, ``dog/train``, …)."""
    if any(len(path) < 3 for path in paths):
        return False
    classes, kinds = {path[0] for path in paths}, {split_of_name(path[1]) for path in paths}
    if len(classes) < 2 or any(split_of_name(name) is not None for name in classes):
        return False
    return None not in kinds and TRAIN in kinds and len(kinds) > 1


def printable(name: str) -> str:
    r"""A name from the disk as text: bytes that aren't UTF-8, and characters that steer what shows it, are escaped.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9"))
        'caf\\xe9'
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(one):02x}" if _steers(one) else one for one in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in STEERING or unicodedata.bidirectional(character) in TURNING


def figure_text(name: str) -> str:
    """A name as matplotlib is to write it, which would take what stands between dollar signs for a formula."""
    return name.replace("$", r"\$")


def _labels(
    paths: list[list[str]], splits: list[int], tree: Tree, around_classes: set[str], source: Path
) -> tuple[list[int], list[int], list[str]]:
    """Labels, splits and class names of images by their paths below the splits' folders."""
    loose_splits = {
        split
        for split in set(splits)
        if all(len(path) == 1 for path, own in zip(paths, splits, strict=True) if own == split)
    }
    train_classes = {path[0] for path, split in zip(paths, splits, strict=True) if split == TRAIN and len(path) > 1}
    for split in {VAL, TEST} & set(splits) - loose_splits:
        classes = {path[0] for path, own in zip(paths, splits, strict=True) if own == split and len(path) > 1}
        # Such as Tiny ImageNet's val/images/: all images in one folder, which is no class.
        if len(classes) == 1 < len(train_classes) and classes == {"images"}:
            loose_splits.add(split)
        _note_untrained_classes(train_classes, classes, split, source)
    labeled = [split != EXTRA and split not in loose_splits for split in splits]
    in_folder = [len(path) > 1 for path, is_labeled in zip(paths, labeled, strict=True) if is_labeled]
    if not in_folder or not all(in_folder):
        if any(in_folder):
            note(
                f"In {source}, {in_folder.count(False)} images lie outside the sub-folders of the others: all are "
                "taken as images without classes."
            )
        return [0] * len(paths), splits, []
    class_names = sorted({path[0] for path, is_labeled in zip(paths, labeled, strict=True) if is_labeled})
    if not all(labeled[row] or splits[row] == EXTRA for row in range(len(paths))):
        names = [("training", "validation", "test")[split] for split in sorted(loose_splits - {EXTRA})]
        note(f"The {' and '.join(names)} images of {source} lie in no class's folder: they have no labels.")
    _note_odd_classes(class_names, tree, around_classes, source)
    _note_folders_in_classes([path for path, is_labeled in zip(paths, labeled, strict=True) if is_labeled], source)
    number = {name: label for label, name in enumerate(class_names)}
    labels = [number[path[0]] if is_labeled else UNLABELED for path, is_labeled in zip(paths, labeled, strict=True)]
    return labels, splits, class_names


def _note_names_of_splits(names: set[str], found: dict[str, int], source: Path) -> None:
    """Says which folders are taken as classes although their names are those of splits, or hold those of several."""
    parts = {name: {SPLIT_WORDS[word] for word in _words(name) if word in SPLIT_WORDS} for name in names}
    several = len(set().union(*parts.values())) > 1  # bounding_box_train and bounding_box_test, but not freight_train
    looks = sorted(found) or sorted(name for name, splits in parts.items() if splits and several)
    if len(looks) == 1:
        note(
            f"In {source}, {_some(looks)} is taken as a class, although it may be a split: the splits' folders are "
            "named train, val and test."
        )
    elif looks:
        note(
            f"In {source}, {_some(looks)} are taken as classes, although they may be splits: the splits' folders are "
            "named train, val and test."
        )


def _note_folders_in_classes(paths: list[list[str]], source: Path) -> None:
    """Says that folders within a class are no classes."""
    within: dict[str, set[str]] = {}
    for path in paths:
        if len(path) > 2:
            within.setdefault(path[0], set()).add(path[1])
    if several := sorted(name for name, folders in within.items() if len(folders) > 1):
        name = several[0]
        folders = [f"{name}/{folder}" for folder in sorted(within[name])]
        note(
            f"In {source}, all images of {_some(folders)} are of the class {printable(name)}: only the upper folders "
            "count."
        )


def _note_untrained_classes(train_classes: set[str], classes: set[str], split: int, source: Path) -> None:
    """Says which classes of a split aren't trained on, unless all of them are others, as for episodes."""
    if train_classes & classes and (untrained := sorted(classes - train_classes)):
        which = "validation" if split == VAL else "test"
        note(f"In {source}, these classes have {which} images but no training images: {_some(untrained)}.")


def _note_odd_classes(class_names: Sequence[str], tree: Tree, around_classes: set[str], source: Path) -> None:
    """Says which folders would be classes if they held images, and which classes differ in their spelling only."""
    siblings = {name for name in tree.folders if posixpath.dirname(name) in around_classes}
    empty = sorted({posixpath.basename(name) for name in siblings} - set(class_names))
    if empty:
        note(f"In {source}, these folders hold no images that can be read, and are no classes: {_some(empty)}.")
    spellings: dict[str, list[str]] = {}
    for name in class_names:
        spellings.setdefault(unicodedata.normalize("NFC", printable(name)).casefold().strip(), []).append(name)
    for same in spellings.values():
        if len(same) > 1:
            note(f"In {source}, these are different classes, although they are spelled alike: {_some(same)}.")
    halves = [name for name in class_names if name[-1:] in "abAB" and split_of_name(name[:-1]) is not None]
    if len(halves) > 1 and len(halves) == len(class_names):
        note(
            f"In {source}, {_some(halves)} are taken as classes, although they look like two sets of pictures: "
            "PairedFolder reads those."
        )
    stems = {"".join(_words(name)) for name in class_names}
    if len(class_names) > 1 and len(stems) == 1 and stems <= PARTS:
        note(f"In {source}, {_some(class_names)} are taken as classes, although they look like parts of one set.")
    if kinds := [name for name in class_names if name.casefold() in KINDS_OF_FILES]:
        note(
            f"In {source}, {_some(kinds)} {'is taken as a class' if len(kinds) == 1 else 'are taken as classes'}: keep "
            "masks, labels and the like out of a folder of images."
        )


def _note_what_is_left_out(tree: Tree, source: Path) -> None:
    unread = Counter(suffix for name in tree.files if (suffix := _suffix(name)) in UNREAD_SUFFIXES)
    if unread:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in unread.most_common(3))
        note(f"{source} holds pictures of kinds that relit doesn't read ({kinds}): convert them, to PNG for example.")
    if tree.repeated:
        note(
            f"In {source}, these links lead to folders that are there already, and aren't followed: "
            f"{_some(tree.repeated)}."
        )
    if tree.closed:
        note(f"In {source}, you may not read these folders, which are left out: {_some(tree.closed)}.")
    if tree.runs:
        note(f"In {source}, these are folders of relit's trainings, which are left out: {_some(tree.runs)}.")
    if dangling := [name for name in tree.dangling if _suffix(name) in SUFFIXES]:
        note(f"In {source}, {len(dangling)} links lead to no file and are left out: {_some(dangling)}.")


def _note_other_files(tree: Tree, folder: Path, source: Path) -> None:
    """Says which files are pictures by their first bytes only, and which folders may hold small copies."""
    unnamed = [name for name in tree.files if _suffix(name) not in SUFFIXES | UNREAD_SUFFIXES]
    # A folder may hold any number of other files; a few show what they are.
    if found := [name for name in unnamed[:SNIFFED] if _is_picture(folder / name)]:
        note(
            f"In {source}, files that are pictures, but not by their names, are left out: {_some(found)} "
            f"({len(found)}{' or more' * (len(unnamed) > SNIFFED)} in all). Give them a suffix such as .jpg."
        )
    parts = {part for name in tree.folders for part in name.split("/") if part.casefold() in THUMBNAILS}
    if parts:
        note(
            f"In {source}, the images of {_some(sorted(parts))} are taken like the others, although they may be small "
            "copies: remove the folder if they are."
        )


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(SIGNATURES) or (start.startswith(b"RIFF") and start.endswith(b"WEBP"))


def _without_wrappers(paths: list[list[str]], splits: list[int]) -> list[list[str]]:
    """Paths below the splits' folders without a folder that only repeats the split (``seg_train/seg_train/``)."""
    for split in set(splits):
        rows = [row for row, own in enumerate(splits) if own == split]
        while len({paths[row][0] for row in rows}) == 1 and all(len(paths[row]) > 1 for row in rows):
            if split_of_name(paths[rows[0]][0]) != split:
                break
            for row in rows:
                paths[row] = paths[row][1:]
    return paths


def _images(files: list[str]) -> list[str]:
    return [name for name in files if _suffix(name) in SUFFIXES]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _some(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
