"""Lays out a W&B workspace for runs of relit: samples, losses, metrics and the machine, a section each.

    pip install -e '.[workspace]'
    python scripts/analyses/wandb_workspace.py runs/dcgan_mnist/RUN [runs/wgan_mnist/RUN …] --project NAME --entity NAME

What there is to show is read from the run folders: every quantity that one of them has logged gets its panel, with
training, validation and test in one plot. The workspace is saved as a view of the project and its address printed; with
--print, the panels are printed and nothing is asked of the network.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lit_models.runs.reading import metric_names

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

STEP = "trainer/global_step"
GRIDS = {"epoch_": "samples", "reconstructions_": "reconstructions"}
"""Files in ``samples/`` by the beginnings of their names, and the keys that they have in W&B."""
SYSTEM: dict[str, list[Any]] = {
    "CPU / %": ["system/cpu"],
    "memory / %": ["system/memory_percent"],
    "GPU / %": [f"system/gpu.{number}.gpu" for number in range(8)],
    "GPU memory / %": [f"system/gpu.{number}.memoryAllocated" for number in range(8)],
    "GPU power / W": [f"system/gpu.{number}.powerWatts" for number in range(8)],
    "network / bytes": ["system/network.sent", "system/network.recv"],
}


def main() -> int:
    """Builds the workspace and saves it; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders with what is to be shown")
    parser.add_argument("--project", default="relit", help="W&B project (default: %(default)s)")
    parser.add_argument("--entity", help="user or team that owns the project (default: that of your key)")
    parser.add_argument("--name", default="relit", help="the workspace's name (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the panels instead of saving them")
    given = parser.parse_args()
    if missing := [str(run) for run in given.runs if not (run / "metrics.csv").is_file()]:
        parser.error(
            f"no metrics.csv in {', '.join(missing)}: name folders of runs, like runs/dcgan_mnist/20261124-120000"
        )
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} isn't installed: pip install -e '.[workspace]'")

    try:
        entity = given.entity or ("" if given.print else str(wandb.Api().default_entity))
        workspace = build(entity, given.project, given.name, metrics(given.runs), pictures(given.runs))
        if not given.print:
            print(workspace.save().url)
            return 0
    except wandb.Error as error:  # no key, no network
        print(f"wandb: {error}", file=sys.stderr)
        return 1
    for section in workspace.sections:
        print(section.name)
        for panel in cast(list[Any], section.panels):
            print(f"  {panel.title}: {', '.join(getattr(panel, 'media_keys', None) or panel.y)}")
    return 0


def metrics(runs: Iterable[Path]) -> list[str]:
    """The names of all metrics that the runs have logged."""
    return sorted({name for run in runs for name in metric_names(run / "metrics.csv")})


def pictures(runs: Iterable[Path]) -> list[str]:
    """The W&B keys of all pictures that the runs have drawn, samples first."""
    samples, figures = set(), set()
    for run in runs:
        samples |= {key for start, key in GRIDS.items() if any(run.glob(f"samples/{start}*.png"))}
        figures |= {f"figures/{path.stem}" for path in run.glob("figures/*.png")}
    return sorted(samples, reverse=True) + sorted(figures)


def build(entity: str, project: str, name: str, metrics: Iterable[str], pictures: Iterable[str]) -> "Workspace":
    """The workspace, not yet saved: asks nothing of the network.

    Args:
        entity: User or team.
        project: W&B project.
        name: Of the workspace.
        metrics: Names of metrics, ``<stage>/<quantity>``.
        pictures: Keys of pictures.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    quantities: dict[str, list[Any]] = defaultdict(list)
    for metric in metrics:
        quantities[metric.rpartition("/")[2]].append(metric)
    plots = [wr.LinePlot(title=quantity, x=STEP, y=keys) for quantity, keys in quantities.items()]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            section("Samples", [wr.MediaBrowser(title=key, media_keys=[key], num_columns=1) for key in pictures]),
            section("Losses", [plot for plot in plots if "loss" in str(plot.title)]),
            section("Metrics", [plot for plot in plots if "loss" not in str(plot.title)]),
            section("System", [wr.LinePlot(title=title, x="_runtime", y=keys) for title, keys in SYSTEM.items()]),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def section(name: str, panels: list) -> "Section":
    """An open section with as many rows as its panels need."""
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=3, rows=max(1, -(-len(panels) // 3)))
    return ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout)


if __name__ == "__main__":
    sys.exit(main())
