"""The commands of ``relit``: the table that help, completion and suggestions are made from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: What it does.
        example: How it is called.
        module: The module whose ``main`` runs it; None for those of the Trainer.
    """

    summary: str
    example: str
    module: str | None = None


COMMANDS = {
    "fit": Command("train a model", "relit fit dcgan_digits"),
    "validate": Command("measure a checkpoint on the validation split", "relit validate dcgan_digits --ckpt_path best"),
    "test": Command("measure a checkpoint on the test split", "relit test dcgan_digits --ckpt_path last"),
    "predict": Command("make images or predictions", "relit predict --weights dcgan_mnist --count 16"),
    "prepare": Command("download and prepare a data set, without training", "relit prepare --data MNIST"),
    "init": Command("look at a folder of pictures and write a configuration", "relit init my_pictures", "init"),
    "list": Command("list methods, data sets, experiments, weights, runs", "relit list experiments", "listing"),
    "runs": Command("list the runs of this folder: state, best value, age", "relit runs", "runs_table"),
    "copy": Command("write a configuration of relit's for editing", "relit copy dcgan_digits mine.yaml", "copying"),
    "compare": Command(
        "compare runs in a table and in figures", "relit compare runs/dcgan_mnist runs/sngan_mnist", "compare"
    ),
    "report": Command("write a page about a run, or comparing several", "relit report runs/dcgan_digits", "report"),
    "sweep": Command(
        "train an experiment with many values of its arguments",
        "relit sweep dcgan_digits --vary model.latent_dim 8 64 --metric val/fid --direction minimize",
        "sweep",
    ),
    "demo": Command("play with trained models in the browser", "relit demo", "demo"),
    "export": Command(
        "write a checkpoint's weights, or its networks as ONNX", "relit export runs/dcgan_mnist", "export"
    ),
    "push": Command("publish weights on the Hugging Face Hub", "relit push runs/dcgan_mnist OWNER/NAME", "push"),
    "doctor": Command("check this machine: versions, kernels, speed", "relit doctor", "doctor"),
    "completion": Command("print a script that completes commands in a shell", "relit completion bash", "completion"),
    "help": Command("explain a command", "relit help fit", "helps"),
}
TRAINER_COMMANDS = tuple(name for name, command in COMMANDS.items() if command.module is None)
NEED_EVERY_PACKAGE = (*TRAINER_COMMANDS, "sweep", "demo", "export", "push")
"""Those that import torch and Lightning, whose versions are checked first. (`doctor` reports them itself.)"""

SYNONYMS = {
    **dict.fromkeys(("train", "run", "start", "learn", "training"), "fit"),
    **dict.fromkeys(("eval", "evaluate", "score", "measure"), "test"),
    **dict.fromkeys(("generate", "sample", "draw", "infer", "inference"), "predict"),
    **dict.fromkeys(("download", "fetch"), "prepare"),
    **dict.fromkeys(("ls", "methods", "models", "experiments", "configs"), "list"),
    **dict.fromkeys(("ps", "status"), "runs"),
    **dict.fromkeys(("show", "plot", "view"), "report"),
    **dict.fromkeys(("save", "convert", "onnx"), "export"),
    "cp": "copy",
    "diff": "compare",
}
"""Words of other programs, each with the command that does the same here."""

OPTIONS = {
    "config": "A configuration, by name or file. Later ones override earlier ones.",
    "model": "A method by name. --model.help lists them, --model.help DCGAN lists its arguments.",
    "data": "A data set by name. --data.help lists them, --data.help MNIST lists its arguments.",
    "trainer": "Options of the Trainer: --help=trainer lists them.",
    "ckpt_path": "A checkpoint, or `last` or `best` of the experiment's newest run.",
    "weights": "Weights to start from (fit) or to use: a file or run, hf:OWNER/NAME, or a name that comes with relit.",
    "seed_everything": "Seed of all random numbers.",
    "run": "Where the run's folder lies.",
    "checkpoint": "Which checkpoints are kept.",
    "predictions": "How `relit predict` writes its images.",
    "wandb": "Logging to Weights & Biases.",
    "channels_last": "Keep images and weights of convolutions in channels-last order (often faster).",
    "compile": "Compile the networks with torch.compile, for GPUs (a CPU gains nothing).",
    "lr_scaling": "Multiply the learning rates by the number of batches in a step: none, linear or sqrt.",
    "print_config": "Print the resolved configuration and stop.",
    "picture": "For prepare: PNG file in which to draw a training batch with its labels.",
    "verbose": "For validate and test: print the results.",
    "debug": "Show where an error came from.",
    "help": "Explain the command; --help=trainer the Trainer's options, --help=all every option.",
}
"""The options of the Trainer's commands, by the first part of their names."""
GROUPS = ("model", "data", "trainer", "run", "checkpoint", "predictions", "wandb")
"""Groups of options, each given by the group's name, a dot and its own, such as ``--run.root``."""
SWITCHES = (
    *(
        "channels_last",
        "compile",
        "wandb.enabled",
        "wandb.checkpoints",
        "predictions.grid",
        "predictions.gif",
        "predictions.mp4",
    ),
    *("trainer.fast_dev_run", "trainer.detect_anomaly", "trainer.sync_batchnorm", "trainer.benchmark"),
    *("trainer.deterministic", "trainer.inference_mode", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.enable_checkpointing"),
)
"""Options that stand for true when no value follows."""
