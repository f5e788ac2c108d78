"""Entry point of the ``relit`` command, also as ``python -m lit_models``; quick where torch isn't needed."""

import sys
from importlib import import_module
from importlib.metadata import version

USAGE = """\
usage: relit COMMAND [--config FILE ...] [--NAME VALUE ...]

The classic deep-learning methods for images, each run by one command from YAML.

commands:
  fit       train a model            relit fit --config configs/dcgan_digits.yaml
  validate  measure it on the validation split
  test      measure it on the test split
                                     relit test --config configs/dcgan_digits.yaml --ckpt_path last
  predict   make images or predictions with a checkpoint alone
                                     relit predict --ckpt_path runs/…/checkpoints/last.ckpt
  prepare   download and prepare a data set, without training
                                     relit prepare --data MNIST
  compare   put runs beside each other, in a table and in figures
                                     relit compare runs/dcgan_mnist runs/sngan_mnist
  report    write a page about a run, or about several in comparison
                                     relit report runs/dcgan_mnist runs/sngan_mnist
  export    write a checkpoint's weights, or its networks as ONNX
                                     relit export runs/dcgan_mnist --format onnx
  doctor    check this machine: versions, kernels, speed

options of every command but compare, report, export and doctor:
  --config FILE     values from a YAML file; several are laid over each other, the later one wins
  --NAME VALUE      any single value, such as --model.latent_dim 8 --data.batch_size 32 --trainer.max_epochs 3
  --model CLASS     a method by name; --model.help CLASS lists its arguments
  --data CLASS      a data set by name; --data.help CLASS lists its arguments
  --ckpt_path FILE  a checkpoint, or `last` or `best` of the experiment's newest run
  --weights FILE    weights that `relit export` wrote, in place of a checkpoint (not for fit)
  --print_config    print the whole resolved configuration and stop
  --debug           show where an error came from
  --help            all arguments of a command, as in: relit fit --help
  --version         print relit's version
"""


def main(args: list[str] | None = None) -> int:
    """Runs ``relit``; returns the exit code: 0 on success, 2 if the arguments are wrong, 1 for any other error."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if args else 2
    if args[0] == "--version":
        print(f"relit {version('relit')}")
        return 0
    try:
        if args[0] in ("compare", "report", "export", "doctor"):
            return import_module(f"lit_models.cli.{args[0]}").main(args[1:])
        from lit_models.cli.command import run

        return run(args)
    except KeyboardInterrupt:  # while it was importing, or drawing
        print("relit: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
