"""Mistakes on purpose, each with words that the message must hold: what is wrong, and what to type in its place."""

# ruff: noqa: E501 (a row of a table is a line)
import contextlib
import io
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

Relit = Callable[..., int]

WITHOUT_TORCH = """
reprot                                       | `relit report`
fti                                          | `relit fit`
pedict x                                     | `relit predict`
compere a b                                  | `relit compare`
exprot x                                     | `relit export`
complete bash                                | `relit completion`
train dcgan_digits                           | `relit fit`
eval dcgan_digits                            | `relit test`
generate                                     | `relit predict`
sample                                       | `relit predict`
download                                     | `relit prepare`
ls                                           | `relit list`
dcgan_digits                                 | relit fit dcgan_digits
configs/dcgan_digits.yaml                    | relit fit configs/dcgan_digits.yaml
mine.yaml                                    | relit fit mine.yaml
DCGAN                                        | relit help DCGAN
mnist                                        | relit help MNIST
xyzzy                                        | no command 'xyzzy' | fit, validate, test
trian dcgan_digits                           | `relit fit`
-c x.yaml fit                                | comes first | relit fit -c x.yaml
--config dcgan_digits fit                    | relit fit --config dcgan_digits
--model DCGAN                                | relit fit --model DCGAN
fit dcgan_digit                              | dcgan_digits
fit dcgan-digits                             | dcgan_digits
fit DCGAN_digits                             | dcgan_digits
fit wgan_gp_mnsit                            | wgan_gp_mnist
fit mnist_dcgan                              | dcgan_mnist
fit dcgan_digits vae_digits                  | one at a time
fit protonet                                 | --model ProtoNet
fit DCGAN                                    | --model DCGAN
fit MNIST                                    | --data MNIST
fit x.yaml                                   | no configuration x.yaml | relit list experiments
fit --config dcgan_digit                     | dcgan_digits
fit --config configs/dcgan_digit.yaml        | dcgan_digits
fit --config configs/dcgan_mnst              | dcgan_mnist
fit --config                                 | --config needs the name
fit --config folder                          | folder is a folder
fit --config a_run                           | --config a_run/config.yaml
fit a_run                                    | --config a_run/config.yaml
fit last.ckpt                                | --ckpt_path last.ckpt
fit dcgan.safetensors                        | --weights dcgan.safetensors
fit dcgan_digits test                        | test follows fit
fit dcgan_digits model.latent_dim=8          | --model.latent_dim=8
fit dcgan_digits -model DCGAN                | --model
fit dcgan_digits --epochs 3                  | --trainer.max_epochs
fit dcgan_digits --max_epochs 3              | --trainer.max_epochs
fit dcgan_digits --num_epochs=3              | --trainer.max_epochs
fit dcgan_digits --max_steps 3               | --trainer.max_steps
fit dcgan_digits --lr 0.1                    | --model.generator_optimizer.lr | --model.discriminator_optimizer.lr
fit vae_digits --lr 0.1                      | --model.optimizer.lr
fit vae_digits --learning_rate 0.1           | --model.optimizer.lr
fit --model VAE --lr 0.1                     | --model.optimizer.lr
fit vae_digits --beta1 0.9                   | Set --model.optimizer.beta1
fit dcgan_digits --weight_decay 0.1          | Set --model.discriminator_optimizer.weight_decay
fit dcgan_digits --trainer.lr 0.1            | --model.generator_optimizer.lr
fit vae_digits --optimizer Adam              | --model.optimizer
fit dcgan_digits --optimizer Adam            | --model.generator_optimizer
fit vae_digits --optimizer.lr 0.1            | --model.optimizer
fit vae_digits --lr_scheduler StepLR         | set --model.lr_scheduler
fit dcgan_digits --lr_scheduler StepLR       | set --model.discriminator_scheduler and --model.generator_scheduler
fit resnet18_digits --scheduler StepLR       | MetricResNet sets its schedule itself
fit dcgan_digits --trainer.plugins SLURMEnvironmen   | Did you mean SLURMEnvironment?
fit vae_digits --seed 5                      | --seed_everything
fit vae_digits --batch_size 5                | --data.batch_size
fit vae_digits --latent_dim 5                | --model.latent_dim
fit vae_digits --kl_weight 5                 | --model.kl_weight
fit vae_digits --image_size 5                | --model.image_size
fit vae_digits --gpus 2                      | --trainer.devices
fit vae_digits --device cuda                 | --trainer.accelerator
fit vae_digits --accelerator cuda            | --trainer.accelerator
fit vae_digits --precision 16                | --trainer.precision
fit vae_digits --fp16                        | --trainer.precision 16-mixed
fit vae_digits --fast_dev_run                | --trainer.fast_dev_run
fit vae_digits --cpu                         | --trainer.accelerator cpu
fit vae_digits --no-cuda                     | --trainer.accelerator cpu
fit vae_digits --ddp                         | --trainer.strategy ddp
fit vae_digits --patience 3                  | --trainer.callbacks+ EarlyStopping
fit vae_digits --tensorboard                 | --config logger/tensorboard
fit vae_digits --save_every 5                | --checkpoint.every_n_steps
fit vae_digits --data.path                   | --data.path needs a value
fit vae_digits --wandb                       | --wandb.enabled
fit vae_digits --wandb.tags a b              | '[a,b]'
fit vae_digits --callbacks EarlyStopping     | --trainer.callbacks
fit vae_digits --num_workers 4               | without worker processes
fit vae_digits --resume last                 | --ckpt_path
fit vae_digits --ckpt last                   | --ckpt_path
fit vae_digits --output_dir x                | --run.root
fit vae_digits --default_root_dir x          | --run.root
fit vae_digits --trainer.default_root_dir x  | --run.root
fit vae_digits --name x                      | --run.experiment
fit vae_digits --dataset MNIST               | use --data.
fit vae_digits --arch VAE                    | --model
fit vae_digits --print_confg                 | --print_config
fit vae_digits --modle VAE                   | --model
fit vae_digits --modle.latent_dim 3          | --model.latent_dim
fit vae_digits --trianer.max_epochs 3        | --trainer.max_epochs
fit vae_digits --trainer.max_epoch 3         | --trainer.max_epochs
fit vae_digits --trainer.epochs 3            | --trainer.max_epochs
fit vae_digits --trainer.acelerator cpu      | --trainer.accelerator
fit vae_digits --run.name x                  | --run.experiment
fit vae_digits --run.rot x                   | Did you mean --run.root?
fit vae_digits --checkpoint.monitr x         | Did you mean --checkpoint.monitor?
fit vae_digits --wandb.projct x              | Did you mean --wandb.project?
fit vae_digits --count 3                     | `relit predict`
fit vae_digits --class 3                     | `relit predict`
fit vae_digits --picture x.png               | relit prepare
fit --model dcgan                            | DCGAN
fit --model DCGANN                           | Did you mean DCGAN?
fit --model Digits                           | --data Digits
fit --model=vea                              | VAE
fit --model ResNet                           | MetricResNet
fit vae_digits --data mnist                  | MNIST
fit vae_digits --data VAE                    | --model VAE
fit vae_digits --data Imagefolder            | ImageFolder
fit vae_digits --data.images mnist           | MNIST
fit vae_digits --trainer.callbacks EarlyStoping       | EarlyStopping
fit vae_digits --trainer.callbacks+=EarlyStoping      | EarlyStopping
fit vae_digits --trainer.callbacks+ SampleGird        | SampleGrid
fit vae_digits --trainer.logger TensorbordLogger      | TensorBoardLogger
fit vae_digits --trainer.logger+ WandLogger           | WandbLogger
fit vae_digits --trainer.profiler simpel              | simple
fit vae_digits --model.optimizer Adamm                | Did you mean Adam?
fit vae_digits --model.optimizer sdg                  | SGD
fit vae_digits --model.lr_scheduler StepLRR           | Did you mean StepLR?
fit conditional_gan_digits --data.labels 1 2 3        | '[1,2]'
fit broken.yaml                              | broken.yaml | line 2
fit empty.yaml                               | empty.yaml is empty
fit list.yaml                                | list.yaml | a list in place of settings
fit picture.yaml                             | picture.yaml | text
fit modle.yaml                               | modle.yaml | model
fit epochs.yaml                              | epochs.yaml | trainer.max_epochs
fit trainer.yaml                             | trainer.yaml | max_epochs
fit class.yaml                               | class.yaml | DCGAN
fit callback.yaml                            | callback.yaml | SampleGrid
fit init_arg.yaml                            | init_arg.yaml | Did you mean model.init_args?
predict --weights dcgan_mnst                 | dcgan_mnist
predict --weights missing                    | no weights missing | conditional_gan_mnist
predict --weights dcgan_mnist --class seven  | --class | 3,7
predict --weights dcgan_mnist --class        | --class | 3,7
predict --weights dcgan_mnist --count many   | --count | whole number
predict --weights dcgan_mnist --class 7 8    | classes as 3,7
predict --weights dcgan_mnist --labels 7     | use --class.
predict --weights dcgan_mnist --classes 7    | use --class.
predict --weights dcgan_mnist --n_samples 7  | --count
predict --weights dcgan_mnist --output x     | --predictions.folder
list methds                                  | methods
copy dcgan_digit                             | dcgan_digits
copy dcgan_digits broken.yaml                | broken.yaml is there already
copy                                         | needs NAME: relit copy dcgan_digits
report                                       | needs RUN: relit report runs/
compare --metric val/fid                     | needs RUN
report a_run --ouput x.html                  | --output
completion tcsh                              | bash, zsh, fish
help fitt                                    | Did you mean fit?
help Dcgan                                   | DCGAN
fit --model.help dcgan                       | DCGAN
fit --help=trainr                            | --help=trainer
"""
BY_THE_PARSER = """
fit dcgan_digits --data ImageFolder                          | ImageFolder needs --data.path: the folder or archive
fit dcgan_digits --data EpisodeDataModule                    | EpisodeDataModule needs --data.images
fit dcgan_digits --data SupportQuery                         | SupportQuery needs --data.support
prepare --data FewLabels                                     | FewLabels needs --data.images
fit dcgan_digits --trainer.callbacks+=EarlyStopping          | EarlyStopping needs --trainer.callbacks.monitor
fit dcgan_digits --trainer.logger TensorBoardLogger          | TensorBoardLogger needs --trainer.logger.save_dir | --config logger/tensorboard
fit dcgan_digits --model.generator_scheduler StepLR          | StepLR needs --model.generator_scheduler.step_size
fit dcgan_digits --trainer.precision fp16                    | --trainer.precision is fp16 | 16-mixed | Did you mean 16-mixed?
fit dcgan_digits --seed_everything abc                       | --seed_everything is abc | whole number
fit dcgan_digits --seed_everything -1                        | from 0 to 4294967295
fit resnet18_digits --model.margin hard                      | --model.margin is hard | a number or soft
fit dcgan_digits --model.latent_dim -3                       | latent_dim is -3 | at least 1
fit dcgan_digits --model.latent_dim 8.5                      | --model.latent_dim is 8.5 | a whole number
fit dcgan_digits --model.latent_dimm 3                       | --model.latent_dim?
fit --model Pix2Pix --data Maps --model.generatr unet        | --model.generator?
fit dcgan_digits --model.generator_optimizer.lrr 3           | FusedAdam | --model.generator_optimizer.lr?
fit dcgan_digits --model.generator_optimizer.lr fast         | --model.generator_optimizer.lr is fast | a number
fit dcgan_digits --model.generator_scheduler.gamma 3         | add --model.generator_scheduler CLASS
fit dcgan_digits --model.lr 0.01                             | --model.generator_optimizer.lr
fit dcgan_digits --model.beta1 0.9                           | --model.generator_optimizer.beta1
fit dcgan_digits --model.optimizer Adam                      | --model.generator_optimizer
fit dcgan_digits --data.num_workers 4                        | without worker processes
fit dcgan_digits --data.batch_size large                     | --data.batch_size is large | a whole number
fit dcgan_digits --data.bach_size 3                          | --data.batch_size?
fit dcgan_digits --trainer.max_epochs three                  | --trainer.max_epochs is three | a whole number
fit dcgan_digits --trainer.max_epochs                        | --trainer.max_epochs needs a value
fit dcgan_digits --trainer.max_epochs -5                     | --trainer.max_epochs is -5 | at least 0
fit dcgan_digits --trainer.accelerator tpus                  | --trainer.accelerator is tpus | cpu
fit dcgan_digits --trainer.devices many                      | --trainer.devices | whole number
fit dcgan_digits --trainer.strategy dpp                      | --trainer.strategy is dpp | Did you mean ddp?
fit dcgan_digits --trainer.limit_train_batches -1            | --trainer.limit_train_batches is -1 | 0.0 to 1.0
fit dcgan_digits --trainer.val_check_interval 7.5            | --trainer.val_check_interval is 7.5 | 0.0 to 1.0
fit dcgan_digits --trainer.max_time soon                     | --trainer.max_time is soon | DD:HH:MM:SS
fit dcgan_digits --trainer.num_nodes 0                       | --trainer.num_nodes is 0 | at least 1
fit dcgan_digits --trainer.gradient_clip_algorithm foo       | --trainer.gradient_clip_algorithm is foo | value or norm
fit dcgan_digits --trainer.callbacks+=Timer                  | Timer | --trainer.max_time
fit dcgan_digits --trainer.callbacks.cout 3                  | --trainer.callbacks.count?
fit dcgan_digits --trainer.callbacks.every_n_epochs x        | --trainer.callbacks.every_n_epochs is x | a whole number
fit dcgan_digits --checkpoint.mode biggest                   | --checkpoint.mode is biggest | min or max
fit dcgan_digits --lr_scaling square                         | --lr_scaling is square | none, linear, sqrt
fit dcgan_digits --compile maybe                             | --compile is maybe | true or false
fit dcgan_digits --model mine.Nothing                        | mine.Nothing | no module 'mine', neither installed nor in | mine.py
fit dcgan_digits --model lit_models.Nothing                  | lit_models.Nothing | has no Nothing
fit resnet18_digits --model.loss tripplet                    | --model.loss is tripplet | Did you mean triplet?
fit vae_digits --model.likelihood poisson                    | --model.likelihood is poisson | gaussian or bernoulli
fit vae_digits --model.importance_samples none_              | --model.importance_samples is none_ | a whole number
fit vae_digits --model.image_size 50                         | image_size is 50 | 32, 64
fit vae_digits --model.latent_dim null                       | latent_dim is null | a whole number of at least 1
fit dcgan_digits --wandb true                                | --wandb.enabled true
fit dcgan_digits --run.experiment                            | --run.experiment needs a value
fit dcgan_digits --run.id a/b                                | --run.id | letters, digits
fit --model.latent_dim 3                                     | --config FILE or --model CLASS
fit --model DCGAN                                            | needs data
fit --data Digits                                            | needs a model
test dcgan_digits --ckpt_path best                           | --ckpt_path last | --checkpoint.monitor
predict --ckpt_path nothing.ckpt                             | no checkpoint nothing.ckpt
predict --weights dcgan_mnist --class 7 --count 3            | DCGAN knows no classes
predict --weights conditional_gan_mnist --class 17           | no class 17
"""
WHEN_IT_STARTS = """
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 64 --data.channels 3  | set --model.image_size 64 and --model.channels 3
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 32 --data.channels 1  | set --data.batch_size to 20
fit dcgan_digits --data ImageFolder --data.path nowhere      | no folder or archive | set --data.path to one
fit dcgan_digits --data ImageFolder --data.path nothing      | holds no images | set --data.path
fit dcgan_digits --data ImageFolder --data.path text.txt     | text.txt is neither a zip nor a tar archive
fit dcgan_digits --data ImageFolder --data.path bad          | None of the 1 images | a/1.png (not an image)
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 0        | image_size | at least 1
fit dcgan_digits --data ImageFolder --data.path own --data.channels 2          | --data.channels is 2 | 1, 3
fit dcgan_digits --data ImageFolder --data.path own --data.val_fraction 1.5    | val_fraction | leave something for training
fit resnet18_digits --data ImageFolder --data.path own --data.image_size 32 --data.channels 1  | set --model.num_classes 2
fit resnet18_digits --data ImageFolder --data.path flat --data.image_size 32 --data.channels 1 | without classes
fit resnet18_digits --model.num_classes 3                    | set --model.num_classes 10
fit resnet18_digits --model.channels 3                       | mean is [0.5] | 3 numbers | --model.channels
fit dcgan_digits --model.image_size 64                       | set --model.image_size 32
fit dcgan_digits --model.channels 3                          | --model.channels 1
fit vae_digits --model.image_size 64                         | set --model.image_size 32
fit dcgan_digits --data.batch_size 0                         | --data.batch_size | is 0 | at least 1
fit dcgan_digits --data.batch_size 5000                      | set --data.batch_size to 1297 or less
fit dcgan_digits --model.feature_maps 0                      | feature_maps is 0 | at least 1
fit vae_digits --model.feature_maps -2                       | feature_maps is -2 | at least 1
fit dcgan_digits --model.feature_maps 1000000                | more memory | feature_maps is 1000000
fit dcgan_digits --model.n_critic 0                          | n_critic is 0 | at least 1
fit wgan_gp_digits --model.gradient_penalty_weight -1        | gradient_penalty_weight is -1.0 | not be negative
fit wgan_gp_digits --model.lipschitz clip                    | WGAN has no argument 'lipschitz' | clip_value
fit vae_digits --model.kl_weight -1                          | kl_weight is -1.0 | less than 0
fit --model ProtoNet --data Digits                           | set --data EpisodeDataModule --data.images Digits
fit --model Pix2Pix --data Digits                            | pairs of images | set --data
fit --model CycleGAN --data Digits                           | pairs of images | set --data
fit --model DARTSSearch --data Digits                        | set --model.image_size 32 and --model.channels 1
fit --model DARTSRetrain --data Digits --model.genotype missing.json           | no such file | genotype.json | DARTS_V2
fit --model DARTSRetrain --data Digits --model.genotype genotype.json          | "normal" and "reduction"
fit --model TransferClassifier --data Digits --model.encoder_checkpoint missing.ckpt | set --model.folds 0
fit --model LatentGAN --data Digits --model.decoder_checkpoint missing.ckpt    | no checkpoint of an autoencoder in missing.ckpt
fit --model LayerwiseMLP --data Digits --model.widths []     | widths is [] | at least one layer
fit --model ConditionalGAN --data Digits --model.num_classes 3 | set --model.num_classes 10
fit --model DigitClassifier --data ImageFolder --data.path flat --data.image_size 32 --data.channels 1 | without classes
fit --model MetricResNet --data Digits --model.loss triplet  | set --model.image_size 32 and --model.channels 1
fit dcgan_digits --data Pictures --data.path own             | can only be predicted from | --data
fit dcgan_digits --data FewLabels --data.images Digits --data.count 0          | count is 0 | at least 2 folds
fit protonet_folder --data.images.path own                   | set --data.n_way to 2 or less
fit dcgan_digits --ckpt_path last                            | No run in runs/dcgan_digits | without --ckpt_path starts a new run
fit dcgan_digits --ckpt_path text.ckpt                       | text.ckpt can't be read as a checkpoint
fit dcgan_digits --ckpt_path missing.ckpt                    | no checkpoint missing.ckpt | `last` or `best`
fit dcgan_digits --ckpt_path nothing                         | no checkpoint nothing | a run's folder
fit dcgan_digits --weights text.safetensors                  | has no card | text.json
fit dcgan_digits --weights nothing                           | nothing holds no checkpoint | .safetensors
fit vae_digits --weights dcgan_mnist                         | No layer of this VAE fits | choose weights of a VAE
fit dcgan_digits --weights dcgan_mnist --ckpt_path last      | leave one of them out
test dcgan_digits                                            | needs a trained model | --ckpt_path last
predict --weights text.safetensors                           | has no card | text.json
predict --weights dcgan_mnist --count 0                      | count is 0 | at least 1
predict --weights dcgan_mnist --predictions.columns 0        | --predictions.columns is 0 | at least 1
predict --weights digit_classifier_mnist --data ImageFolder --data.path nowhere | set --data.path
test --weights dcgan_mnist --data ImageFolder --data.path own --data.image_size 64 --data.channels 3 | set --data.image_size 32 and --data.channels 1
export nothing                                               | no checkpoint in nothing | a run's folder
export text.ckpt                                             | text.ckpt can't be read as a checkpoint
report nothing                                               | nothing is not the folder of a run | metrics.csv
compare nothing text.txt                                     | nothing is not the folder of a run
report nowhere                                               | no folder nowhere | relit runs
sweep dcgan_digits                                           | --vary NAME VALUE
sweep dcgan_digits --vary model.nothing 1                    | DCGAN has no argument 'nothing' | latent_dim
sweep nothing_here --vary model.latent_dim 1                 | no configuration nothing_here | relit list experiments
demo nothing                                                 | nothing holds no checkpoint
fit dcgan_digits --trainer.accelerator mps                   | --trainer.accelerator asks for MPS | leave the option out
fit dcgan_digits --trainer.devices 0                         | --trainer.devices | at least 1
fit dcgan_digits --trainer.devices -3                        | --trainer.devices | at least 1
fit dcgan_digits --trainer.strategy fsdp                     | --trainer.strategy fsdp needs a GPU | leave the option out
fit dcgan_digits --trainer.strategy deepspeed                | deepspeed | leave the option out
fit dcgan_digits --trainer.precision bf16-true               | set bf16-mixed
fit dcgan_digits --trainer.precision 16-true                 | set 16-mixed
fit dcgan_digits --trainer.gradient_clip_val 1               | use --model.gradient_clip_norm
fit dcgan_digits --trainer.accumulate_grad_batches 2         | a larger --data.batch_size
fit dcgan_digits --trainer.sync_batchnorm true               | GPUs only | leave it out
fit dcgan_digits --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/nothing --trainer.max_epochs 1 --trainer.limit_train_batches 1 --model.feature_maps 2 | val/nothing, which isn't logged | val/generator_loss
fit dcgan_digits --run.root text.txt                         | choose another place with --run.root
"""
FILES = {
    "broken.yaml": "model: DCGAN\n  data: [\n",
    "empty.yaml": "# nothing\n",
    "list.yaml": "- model\n",
    "modle.yaml": "modle: {class_path: DCGAN}\n",
    "epochs.yaml": "epochs: 3\n",
    "trainer.yaml": "trainer: {max_epoch: 3}\n",
    "class.yaml": "model: {class_path: Dcgan}\n",
    "init_arg.yaml": "model: {class_path: VAE, init_arg: {latent_dim: 3}}\n",
    "callback.yaml": "trainer: {callbacks: [{class_path: SampelGrid}]}\n",
    "a_run/config.yaml": "model: {class_path: DCGAN}\n",
    "folder/x.txt": "",
    "text.txt": "x",
    "text.ckpt": "x",
    "text.safetensors": "x",
    "genotype.json": "{}",
    "bad/a/1.png": "no picture",
}
PICTURES = {"own/a": 12, "own/b": 12, "flat": 10, "nothing": 0}
"""Folders, each with how many pictures it holds."""


IN_PASSING = ("relit: note: ", "relit: add --debug", "decoding ")
"""Lines around the message."""


def table(text: str) -> list[tuple[str, list[str]]]:
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [(row[0].strip(), [word.strip() for word in row[1:]]) for row in rows]


@cache
def picture(number: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), (10 * number, 0, 0)).save(content, "PNG")
    return content.getvalue()


def check(relit: Relit, capsys: pytest.CaptureFixture[str], line: str, words: list[str], folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, count in PICTURES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(picture(number))
    (folder / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with contextlib.suppress(SystemExit):  # as argparse ends
        assert relit(*shlex.split(line)) != 0
    said = capsys.readouterr().err.splitlines()
    told = "\n".join(line for line in said if line.strip() and not line.startswith(IN_PASSING))
    assert told.startswith("relit: ")
    assert [word for word in words if word not in told] == [], told
    for dump in ("Namespace", "<class", " object at ", "jsonargparse", "Union", "Exception", "Traceback"):
        assert dump not in told
    assert len(told.splitlines()[0]) < 400


@pytest.mark.parametrize(
    ("line", "words"), table(WITHOUT_TORCH), ids=lambda value: value if isinstance(value, str) else ""
)
def test_told_before_torch_is_imported(
    relit: Relit,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    words: list[str],
) -> None:
    monkeypatch.setitem(sys.modules, "lit_models.cli.command", None)  # its import would fail
    check(relit, capsys, line, words, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"), table(BY_THE_PARSER), ids=lambda value: value if isinstance(value, str) else ""
)
def test_told_by_the_parser(
    relit: Relit, capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, words: list[str]
) -> None:
    check(relit, capsys, line, words, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"), table(WHEN_IT_STARTS), ids=lambda value: value if isinstance(value, str) else ""
)
def test_told_when_it_starts(
    relit: Relit, capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, words: list[str]
) -> None:
    check(relit, capsys, line, words, tmp_path)


def test_no_message_passes_by_repeating_the_command() -> None:
    """Each row asks for a word that isn't typed: the name or the value that was meant, or what to do."""
    rows = [row for rows in (WITHOUT_TORCH, BY_THE_PARSER, WHEN_IT_STARTS) for row in table(rows)]
    assert [line for line, words in rows if all(word in line for word in words)] == []


def test_there_are_as_many_as_were_tried() -> None:
    """Of 217 mistakes tried on purpose, 108 had a message that named the thing and the remedy."""
    lines = [line for rows in (WITHOUT_TORCH, BY_THE_PARSER, WHEN_IT_STARTS) for line, _ in table(rows)]
    assert len(set(lines)) == len(lines) >= 217


def test_a_misspelt_configuration_is_told_in_less_than_a_second() -> None:
    code = (
        "import sys; from lit_models.__main__ import main; code = main(['fit', '--config', 'dcgan_digit']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 2, done.stderr
        assert "Did you mean dcgan_digits?" in done.stderr
    assert min(seconds) < 1
