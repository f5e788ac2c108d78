"""The plots of a page, as lines in the units of an SVG."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_models.cli.report.reading import Record
from lit_models.cli.report.words import number_text
from lit_models.runs.reading import COLORS, FEWEST_NOISY_POINTS, STAGES, Point, color_of, smooth, stage_of

MOST_POINTS = 400
"""Points of a curve; of more, some that follow each other are put together."""
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 32
"""Size of a plot and the margins about its axes, in the SVG's units."""


@dataclass
class Line:
    """A curve of a plot, in numbers and in the SVG's units; ``dashed`` is drawn dotted."""

    label: str
    color: int
    stage: str
    points: list[Point]
    averaged: int
    run: str = ""
    dashed: bool = False
    time: list[float] | None = None
    places: list[tuple[float, float]] = field(default_factory=list)
    trend: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Plot:
    """A plot with its axes: ``ticks`` are pairs of a place and what it says there."""

    title: str
    lines: list[Line]
    legend: list[dict[str, Any]]
    remark: str = ""
    logarithmic: bool = False
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)


def draw_plots(records: Sequence[Record]) -> list[Plot]:
    """A plot for each quantity, with a line for each stage of each run; what was logged once, or never changes, has
    none."""
    several = len(records) > 1
    lines: dict[str, list[Line]] = defaultdict(list)
    for number, record in enumerate(records):
        for name, points in sorted(record.points.items(), key=lambda item: STAGES.get(stage_of(item[0]), 9)):
            stage = stage_of(name)
            label = f"{record.run.name} {stage}".rstrip() if several else name
            color = color_of(number) if several else STAGES.get(stage, 0)
            if len(points) > 1:
                dashed = several and stage == "train"
                line = Line(label, color, stage, *thinned(points), run=record.run.name, dashed=dashed)
                line.time = minutes(record, line.points)
                lines[name.removeprefix(f"{stage}/")].append(line)
    watched = {_watched(record.config) for record in records}
    plots = []
    for quantity in sorted(lines, key=lambda name: (name.partition(" (")[0] not in watched, name)):
        drawn = lines[quantity]
        values = [point.value for line in drawn for point in line.points]
        if min(values) == max(values):
            continue
        stages = {line.stage for line in drawn}
        remarks = ["dotted: train"] if several and len(stages) > 1 and "train" in stages else []
        if (averaged := max(line.averaged for line in drawn)) > 1:
            remarks.append(f"points are means of up to {averaged} values")
        names = [record.run.name for record in records]
        legend = dict.fromkeys(
            (names[line.color] if several and len(names) <= len(COLORS) else line.label, line.color) for line in drawn
        )
        entries = [{"text": text, "color": color} for text, color in legend]
        plots.append(laid_out(Plot(quantity, drawn, entries, "; ".join(remarks))))
    return plots


def minutes(record: Record, points: Sequence[Point]) -> list[float] | None:
    """When each point was logged, in minutes of training; None if the training time isn't known.

    Between the epochs' ends whose times were kept, and before the first, the pace is taken to be constant.
    """
    last = max((point.epoch for series in record.points.values() for point in series), default=0.0)
    seconds = record.run.seconds
    if seconds is None or last == 0:
        return None
    # The last epoch ends with the last point: training may stop within it.
    clock = [(0.0, 0.0), *((min(epoch, last), end) for epoch, end in record.clock if epoch < last + 1)]
    done, end = clock[-1]
    if done < last:
        if seconds <= end:  # still training: as fast as in the epoch before
            seconds = end + (end - clock[-2][1]) * (last - done) / (done - clock[-2][0]) if len(clock) > 1 else 0.0
        clock.append((last, seconds))
    known, ends = zip(*clock, strict=True)
    return [round(float(at) / 60, 3) for at in np.interp([point.epoch for point in points], known, ends)]


def _watched(config: dict[str, Any]) -> str:
    """The quantity by which the best checkpoint is chosen."""
    return str((config.get("checkpoint") or {}).get("monitor")).rpartition("/")[2]


def thinned(points: list[Point]) -> tuple[list[Point], int]:
    """At most ``MOST_POINTS`` points, each the mean of so many that follow each other, and that number."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size == 1:
        return points, 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [
        Point(
            sum(point.epoch for point in group) / len(group),
            group[-1].step,
            sum(point.value for point in group) / len(group),
        )
        for group in groups
    ]
    return means, size


def laid_out(plot: Plot) -> Plot:
    """The plot with axes and with its lines in the SVG's units."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    epochs = [point.epoch for line in plot.lines for point in line.points]
    values = [point.value for line in plot.lines for point in line.points]
    low, high = min(values), max(values)
    plot.logarithmic = low > 0 and high > 30 * low
    scale = math.log10 if plot.logarithmic else float
    bottom, top = scale(low), scale(high)
    margin = 0.05 * (top - bottom)
    bottom, top = bottom - margin, top + margin
    first, last = min(epochs), max(epochs)
    first = 0.0 if first < last / 3 else math.floor(first)  # a phase that begins late has the width to itself

    def x_of(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - first) / (last - first or 1)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (scale(value) - bottom) / (top - bottom)

    for line in plot.lines:
        line.places = [(x_of(point.epoch), y_of(point.value)) for point in line.points]
        if len(line.points) >= FEWEST_NOISY_POINTS:
            course = smooth([point.value for point in line.points])
            line.trend = [(x_of(point.epoch), y_of(value)) for point, value in zip(line.points, course, strict=True)]
    whole = MaxNLocator(6, integer=last - first >= 2).tick_values(first, last)
    plot.x_ticks = [(x_of(tick), number_text(tick)) for tick in whole if first <= tick <= last]
    if plot.logarithmic:
        ticks = LogLocator(subs=(1.0,) if top - bottom > 2 else (1.0, 2.0, 5.0)).tick_values(low, high)
    else:
        ticks = MaxNLocator(5).tick_values(bottom, top)
    plot.y_ticks = [
        (y_of(tick), number_text(0.0 if abs(tick) < 1e-12 else tick))
        for tick in ticks
        if bottom <= _safely(scale, tick) <= top
    ]
    return plot


def svg_path(places: Iterable[tuple[float, float]]) -> str:
    """A line through the places, as the ``d`` of an SVG path."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def hoverable(line: Line, seeds: str | None = None) -> dict[str, Any]:
    """What the page's script needs of a line to draw it again and to show its values.

    Args:
        line: The line.
        seeds: The name of the runs with other seeds that it belongs to.
    """
    return {
        "label": line.label,
        "color": line.color,
        "averaged": line.averaged,
        "run": line.run,
        "group": seeds or line.run,
        "groupLabel": seeds,
        "stage": line.stage,
        "dashed": line.dashed,
        "time": line.time,
        "epoch": [round(point.epoch, 4) for point in line.points],
        "step": [point.step for point in line.points],
        "value": [point.value for point in line.points],
        "x": [round(x, 1) for x, _ in line.places],
        "y": [round(y, 1) for _, y in line.places],
    }


def _safely(scale: Any, value: float) -> float:
    return scale(value) if scale is float or value > 0 else -math.inf
