"""Prototypical Networks on Omniglot."""

from experiments.budgets import GPU
from experiments.data_sets import LAKE, OMNIGLOT
from experiments.declaration import Budget, Experiment, Figure, Step

TWENTY_WAY = ("--data.test_way=20", "--data.eval_episodes_per_batch=1")
WAYS = {"5-way": (), "20-way": TWENTY_WAY}
FEW_EPISODES = (
    "--trainer.max_epochs=1",
    "--data.n_way=5",
    "--data.train_episodes=3",
    "--data.val_episodes=3",
    "--data.test_episodes=4",
    "--model.feature_maps=8",
)

ON_VALIDATION_CLASSES = ("--data.train_on_val=true", "--trainer.callbacks=null", "--checkpoint.monitor=null")
"""The authors' last training (their run_trainval.py), with which nothing is left to choose an epoch by."""
INPUTS = {"": "antialiased input", "-nearest": "nearest-pixel input, as in the authors' code"}
"""By the end of a step's name. The published accuracies are of nearest-pixel input."""

EXPERIMENT = Experiment(
    title="New characters from one or five examples",
    steps=(
        *(
            step
            for end, said in INPUTS.items()
            for shot in (1, 5)
            for resample in (("--data.resample=nearest",) if end else (),)
            for step in (
                Step(
                    f"{shot}-shot{end}",
                    f"ProtoNet, {shot}-shot, {said}",
                    "protonet",
                    f"protonet_omniglot_5way{shot}shot",
                    OMNIGLOT,
                    resample,
                    tests=WAYS,
                ),
                Step(
                    f"{shot}-shot-all{end}",
                    f"ProtoNet, {shot}-shot, trained on the validation classes, too, {said}",
                    "protonet",
                    f"protonet_omniglot_5way{shot}shot",
                    OMNIGLOT,
                    (*ON_VALIDATION_CLASSES, *resample),
                    length_of=f"{shot}-shot{end}",
                    checkpoint="last",
                    tests=WAYS,
                ),
            )
        ),
        Step("lake", "ProtoNet, Lake's one-shot runs, antialiased input", "protonet", "protonet_omniglot_lake", LAKE),
    ),
    figures=(
        *(
            Figure(
                *(f"{shot}-shot{trained_on}{end}", f"{way} accuracy / %", "test/accuracy", way, None, "percent"),
                interval="test/accuracy_ci95",
                published=f"omniglot_{way.replace('-', '')}_{shot}shot",
            )
            for end in INPUTS
            for shot in (1, 5)
            for trained_on in ("", "-all")
            for way in WAYS
        ),
        Figure(
            "lake",
            "20-way error / %",
            "test/error",
            kind="percent",
            interval="test/accuracy_ci95",
            published="omniglot_one_shot_runs",
            unlike="ours learns quarter turns of the characters as further classes",
        ),
    ),
    budgets={
        "smoke": Budget({"*": FEW_EPISODES}, patience=1),
        "cpu": Budget(
            {
                "*": ("--trainer.max_epochs=50",),
                "1-shot": ("--trainer.max_epochs=60",),
                "1-shot-nearest": ("--trainer.max_epochs=60",),
                "lake": ("--trainer.max_epochs=15",),
            },
            patience=60,
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("train/accuracy", "train/loss", "val/accuracy", "val/loss"),
)
