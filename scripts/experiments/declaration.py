"""What an experiment is made of: trainings with their tests, reported values, and budgets.

An experiment is read from top to bottom: its trainings, the values reported of them, and how much a budget shortens
them. Budget "paper" cuts nothing from the configurations in `configs/`.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Data:
    """A data set, and how large it is when it is complete.

    Attributes:
        name: What the results call it.
        train: Images of the training and the validation split together.
        test: Images of the test split.
        own_test: So many of the training images are the test split where the published test images can't be had.
    """

    name: str
    train: int
    test: int
    own_test: int = 0


@dataclass(frozen=True)
class Step:
    """A training with its tests.

    Attributes:
        name: Names the step on the command line and its run folders.
        method: What the results call it.
        page: The method's page, `docs/methods/<page>.md`.
        config: The configuration, `configs/<config>.yaml`.
        data: What it learns from.
        arguments: What is given to `relit fit` in addition to the configuration; `{seed}` stands for the seed.
        uses: Arguments whose value is the run folder of an earlier step, or a file in it.
        length_of: An earlier step. This one lasts as many epochs as that step took to its lowest `val/loss` (counted
            from 0), plus the budget's patience.
        checkpoint: Which one is tested.
        tests: The tests by name, each with what it changes in the run's own configuration.
        smaller: Whether the configuration itself is smaller, or trained for fewer epochs, than in the paper.
    """

    name: str
    method: str
    page: str
    config: str
    data: Data
    arguments: tuple[str, ...] = ()
    uses: dict[str, str] = field(default_factory=dict)
    length_of: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    tests: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"test": ()})
    smaller: bool = False


@dataclass(frozen=True)
class Figure:
    """A number that is reported of a step.

    Attributes:
        step: The step's name.
        label: What the results call it.
        metric: The logged metric: below `test/`, or below `val/` with an epoch.
        test: Which of the step's tests.
        epoch: The epoch (from 1) after which a metric of validation is read.
        kind: How it is shown: "number", "percent", or "error" (what a share lacks to 100 %).
        interval: Metric of half a confidence interval, which is shown where there is but one seed.
        of_images: Whether it is a share of the test images: of one seed, the 95 % interval over them is shown.
        main: Whether the README's table has it, too, and not the method's page alone.
        digits: Decimals; chosen by size if None.
        features: Of a score of generated images, the features that it goes over; values over others aren't shown.
        argument: An argument on which the figure depends, such as "data.evaluation"; values of records from before it
            existed aren't shown.
        published: Its published counterpart, by its name in `lit_models/runs/published.yaml`. It stands in the row if
            the training had all of the data, else in a list below the tables.
        unlike: Why the published counterpart can't stand in the row at all.
    """

    step: str
    label: str
    metric: str
    test: str = "test"
    epoch: int | None = None
    kind: Literal["number", "percent", "error"] = "number"
    interval: str | None = None
    of_images: bool = False
    main: bool = True
    digits: int | None = None
    features: str | None = None
    argument: str | None = None
    published: str | None = None
    unlike: str = ""


@dataclass(frozen=True)
class Budget:
    """How much an experiment is shortened; `reproduce.py --list` says what that keeps and cuts.

    Attributes:
        arguments: What is given to `relit fit` for it, by step; "*" for all steps.
        configs: Configurations in place of the steps' own.
        only: The steps that are affordable; all of them if None.
        analysis: What the experiment's scripts are given for it.
        patience: Epochs that a step with `length_of` lasts beyond the earlier step's best one.
        note: What the arguments don't show.
    """

    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] | None = None
    analysis: tuple[str, ...] = ()
    patience: int = 200
    note: str = ""

    def of(self, step: Step) -> tuple[str, ...]:
        """The arguments for one step."""
        return (*self.arguments.get("*", ()), *self.arguments.get(step.name, ()))


@dataclass(frozen=True)
class Analysis:
    """A script that is run on the first seed's runs when all steps are done.

    Attributes:
        command: The script and its arguments; `{run:STEP}` stands for a step's run folder, `{folder}` for the folder of
            the experiment's figures.
        needs: The steps whose runs it takes.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """Trainings that belong together, and what is reported of them.

    Attributes:
        title: What it asks.
        steps: In the order in which they are run.
        figures: In the order in which they are reported.
        budgets: By name; "smoke" shows within minutes that everything runs, and measures nothing.
        drawn: Metrics whose curves are drawn in one figure.
        analyses: Run at the end.
    """

    title: str
    steps: tuple[Step, ...]
    figures: tuple[Figure, ...]
    budgets: dict[str, Budget]
    drawn: tuple[str, ...] = ()
    analyses: tuple[Analysis, ...] = ()

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)
