"""Grids of samples side by side, each below its name: of several methods, settings or epochs.

    python scripts/analyses/compare_samples.py "n_critic 1=runs/wgan_mnist/ONE/samples/epoch_0020.png" \\
        "n_critic 5=runs/wgan_mnist/FIVE/samples/epoch_0020.png" --figure samples.png

Every grid keeps its pixels; nothing is selected.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GAP, TEXT = 8, 18
"""Pixels between grids, and the height of a name."""


def side_by_side(grids: dict[str, Image.Image], across: int) -> Image.Image:
    """One picture of several.

    Args:
        grids: Pictures of one size, by name.
        across: How many in a row.

    Raises:
        ValueError: They differ in size.
    """
    sizes = {grid.size for grid in grids.values()}
    if len(sizes) != 1:
        found = ", ".join(f"{name} {grid.width}x{grid.height}" for name, grid in grids.items())
        raise ValueError(f"the pictures differ in size: {found}")
    width, height = sizes.pop()
    columns, rows = min(across, len(grids)), -(-len(grids) // across)
    step_x, step_y = width + GAP, height + GAP + TEXT
    whole = Image.new("RGB", (columns * step_x - GAP, rows * step_y - GAP), "white")
    write, font = ImageDraw.Draw(whole), ImageFont.load_default(TEXT - 4)
    for place, (name, grid) in enumerate(grids.items()):
        x, y = place % across * step_x, place // across * step_y
        write.text((x, y), name, fill="black", font=font)
        whole.paste(grid, (x, y + TEXT))
    return whole


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--across", type=int, default=4, help="grids in a row (default: %(default)s)")
    parser.add_argument("--figure", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    files = dict(grid.partition("=")[::2] for grid in given.grids)
    if missing := [f"{name}={file}" for name, file in files.items() if not Path(file).is_file()]:
        sys.exit(f"compare_samples: no such file: {', '.join(missing)}.")
    try:
        whole = side_by_side({name: Image.open(file) for name, file in files.items()}, given.across)
    except ValueError as error:
        sys.exit(f"compare_samples: {error}.")
    whole.save(given.figure, optimize=True)


if __name__ == "__main__":
    main()
