"""Pairs of pictures: how they lie in folders. Without torch, so that ``relit init`` doesn't wait for it."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.errors import DataError, note
from datamodules.loading.folders import TEST, TRAIN, VAL, list_images, printable, split_of_name

SIDES = {"a": "a", "source": "a", "input": "a", "b": "b", "target": "b", "output": "b"}
"""Which half the pictures of a folder are, by its name without case."""


class PairFiles(NamedTuple):
    """The picture files of one split.

    Attributes:
        a: Files of the first half, relative to the folder.
        b: Files of the second half. If they belong together they are as many and in the same order; None if each file
            of ``a`` holds both halves side by side.
    """

    a: list[str]
    b: list[str] | None


class PairListing(NamedTuple):
    """The pairs of a folder.

    Attributes:
        splits: The files of each split that is there, by ``TRAIN``, ``VAL`` and ``TEST``.
        belong_together: Whether the halves are pairs, and not two sets of pictures.
    """

    splits: dict[int, PairFiles]
    belong_together: bool


def list_pairs(folder: Path, source: Path) -> PairListing:
    """Finds pairs: side by side in one picture each; of equal names in folders ``A`` and ``B``; or two sets of pictures
    in ``trainA`` and ``trainB`` (and ``testA`` …), which don't belong together.

    Raises:
        DataError: There are none.
    """
    files = _by_number(list_images(folder, source)[1])
    if not files:
        raise DataError(
            f"{source} holds no images: set --data.path to a folder of pictures with both halves side by side, of the "
            "folders A and B, or of trainA and trainB."
        )
    placed = [_place_of(name) for name in files]
    _require_one_folder_a_split(placed, source)
    if {TRAIN, None} < {place.split for place in placed}:
        loose = [place.name for place in placed if place.split is None]
        note(
            f"In {source}, {len(loose)} images lie outside the folders of the splits and are left out, such as "
            f"{printable(loose[0])}."
        )
        placed = [place for place in placed if place.split is not None]
    sides = {place.side for place in placed}
    apart = any(place.says_both for place in placed)
    if sides == {None}:
        chosen = _by_split(placed)
        splits = {split: PairFiles([place.name for place in places], None) for split, places in chosen.items()}
        return PairListing(splits, belong_together=True)
    if count := sum(place.side is None for place in placed):
        note(f"In {source}, {count} images lie outside the folders of the two halves and are left out.")
    if sides - {None} != {"a", "b"}:
        missing = "B" if "a" in sides else "A"
        raise DataError(f"{source} holds one half of the pairs only: there is no folder {missing} with images.")
    halves = {side: _by_split([place for place in placed if place.side == side]) for side in ("a", "b")}
    splits = {}
    for split in sorted(halves["a"].keys() | halves["b"].keys()):
        a, b = (halves[side].get(split, []) for side in ("a", "b"))
        if not a or not b:
            which = ("training", "validation", "test")[split]
            raise DataError(
                f"In {source}, the {which} images are of one half only, such as {printable((a or b)[0].name)}: add "
                "the other half, or remove them."
            )
        unmatched = PairFiles([place.name for place in a], [place.name for place in b])
        splits[split] = unmatched if apart else _matched(a, b, source)
    return PairListing(splits, belong_together=not apart)


class _Place(NamedTuple):
    """What the folders of a file say.

    Attributes:
        name: The file, relative to the folder of all.
        split: ``TRAIN``, ``VAL`` or ``TEST``, if a folder is named after it.
        side: The half, "a" or "b", if a folder is named after it.
        says_both: Whether one folder says both (``trainA``).
        split_folder: The name of the split's folder, without case and without the letter of the half.
        within: The file's path without its suffix and these folders; pairs have the same.
    """

    name: str
    split: int | None
    side: str | None
    says_both: bool
    split_folder: str
    within: str


def _place_of(name: str) -> _Place:
    path = PurePosixPath(name)
    split, side, split_folder, within = None, None, "", []
    for part in path.parts[:-1]:
        lower = part.lower()
        if split is None and lower[-1:] in ("a", "b") and split_of_name(part[:-1]) in (TRAIN, VAL, TEST):
            return _Place(name, split_of_name(part[:-1]), lower[-1], True, lower[:-1].rstrip("_- "), path.stem)
        if side is None and lower in SIDES:
            side = SIDES[lower]
        elif split is None and split_of_name(part) in (TRAIN, VAL, TEST):
            split, split_folder = split_of_name(part), lower
        else:
            within.append(part)
    return _Place(name, split, side, False, split_folder, "/".join([*within, path.stem]))


def _require_one_folder_a_split(placed: list[_Place], source: Path) -> None:
    names: dict[int, set[str]] = {}
    for place in placed:
        if place.split is not None:
            names.setdefault(place.split, set()).add(place.split_folder)
    for same in names.values():
        if len(same) > 1:
            some = ", ".join(printable(name) for name in sorted(same))
            raise DataError(f"{source} has more than one folder for one split: {some}. Rename or remove some.")


def _by_split(placed: list[_Place]) -> dict[int, list[_Place]]:
    splits: dict[int, list[_Place]] = {}
    for place in placed:
        splits.setdefault(TRAIN if place.split is None else place.split, []).append(place)
    return splits


def _matched(a: list[_Place], b: list[_Place], source: Path) -> PairFiles:
    """The files of both halves that have the same name, and lie in equal sub-folders, whatever their suffix. If there
    are none, the sub-folders don't count."""
    both = _of_equal_names({}, a, b, source)
    if not both:
        stems = {place.name: PurePosixPath(place.name).stem for place in (*a, *b)}
        both = _of_equal_names(stems, a, b, source)
    if not both:
        raise DataError(
            f"In {source}, no picture of one half has the name of one of the other, such as {printable(a[0].name)} and "
            f"{printable(b[0].name)}: give pairs equal names, or name the folders trainA and trainB if they aren't "
            "pairs."
        )
    alone = len(a) + len(b) - 2 * len(both)
    if alone:
        note(f"In {source}, {alone} images have no partner of the same name and are left out.")
    return PairFiles([first for first, _ in both], [second for _, second in both])


def _of_equal_names(names: dict[str, str], a: list[_Place], b: list[_Place], source: Path) -> list[tuple[str, str]]:
    """Pairs of files that have the same name: by ``names``, or else their path within the half's folder.

    Raises:
        DataError: Two files of one half have the same name, of which one of the other half has it too.
    """
    halves = []
    for half in (a, b):
        files: dict[str, list[str]] = {}
        for place in half:
            files.setdefault(names.get(place.name, place.within), []).append(place.name)
        halves.append(files)
    first, second = halves
    for name in first.keys() & second.keys():
        for same in (first[name], second[name]):
            if len(same) > 1:
                raise DataError(
                    f"In {source}, {printable(same[0])} and {printable(same[1])} have the same name, so that it isn't "
                    "clear which of them belongs to the other half: rename or remove one."
                )
    return [(files[0], second[name][0]) for name, files in first.items() if name in second]


def _by_number(files: list[str]) -> list[str]:
    """2.jpg before 10.jpg."""
    return sorted(files, key=lambda name: (len(name), name))
