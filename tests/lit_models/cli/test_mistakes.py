"""Mistakes on purpose, each with words that the message must hold: what is wrong, and what to type in its place."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
-c x.yaml fit                                | comes first | relit fit -c x.yaml
--config dcgan_digits fit                    | relit fit --config dcgan_digits
--model DCGAN                                | relit fit --model DCGAN
fit dcgan_digit                              | dcgan_digits
fit dcgan-digits                             | dcgan_digits
fit DCGAN_digits                             | dcgan_digits
fit wgan_gp_mnsit                            | wgan_gp_mnist
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
fit vae_digits --optimizer Adam              | --model.optimizer
fit dcgan_digits --optimizer Adam            | --model.generator_optimizer
fit vae_digits --optimizer.lr 0.1            | --model.optimizer
fit vae_digits --lr_scheduler StepLR         | schedules
fit vae_digits --seed 5                      | --seed_everything
fit vae_digits --batch_size 5                | --data.batch_size
fit vae_digits --latent_dim 5                | --model.latent_dim
fit vae_digits --kl_weight 5                 | --model.kl_weight
fit vae_digits --image_size 5                | --model.image_size
fit vae_digits --gpus 2                      | --trainer.devices
fit vae_digits --device cuda                 | --trainer.accelerator
fit vae_digits --accelerator cuda            | --trainer.accelerator
fit vae_digits --precision 16                | --trainer.precision
fit vae_digits --fp16                        | --trainer.precision
fit vae_digits --fast_dev_run                | --trainer.fast_dev_run
fit vae_digits --callbacks EarlyStopping     | --trainer.callbacks
fit vae_digits --num_workers 4               | without worker processes
fit vae_digits --resume last                 | --ckpt_path
fit vae_digits --ckpt last                   | --ckpt_path
fit vae_digits --output_dir x                | --run.root
fit vae_digits --default_root_dir x          | --run.root
fit vae_digits --trainer.default_root_dir x  | --run.root
fit vae_digits --name x                      | --run.experiment
fit vae_digits --dataset MNIST               | --data
fit vae_digits --arch VAE                    | --model
fit vae_digits --print_confg                 | --print_config
fit vae_digits --modle VAE                   | --model
fit vae_digits --modle.latent_dim 3          | --model.latent_dim
fit vae_digits --trianer.max_epochs 3        | --trainer.max_epochs
fit vae_digits --trainer.max_epoch 3         | --trainer.max_epochs
fit vae_digits --trainer.epochs 3            | --trainer.max_epochs
fit vae_digits --trainer.acelerator cpu      | --trainer.accelerator
fit vae_digits --run.name x                  | --run.experiment
fit vae_digits --run.rot x                   | --run.root
fit vae_digits --checkpoint.monitr x         | checkpoint.monitor
fit vae_digits --wandb.projct x              | wandb.project
fit vae_digits --count 3                     | `relit predict`
fit vae_digits --class 3                     | `relit predict`
fit vae_digits --picture x.png               | relit prepare
fit --model dcgan                            | DCGAN
fit --model DCGANN                           | DCGAN
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
fit vae_digits --model.optimizer Adamm                | Adam
fit vae_digits --model.optimizer sdg                  | SGD
fit vae_digits --model.lr_scheduler StepLRR           | StepLR
fit conditional_gan_digits --data.labels 1 2 3        | '[1,2]'
fit broken.yaml                              | broken.yaml | line 2
fit empty.yaml                               | empty.yaml is empty
fit list.yaml                                | list.yaml | list
fit picture.yaml                             | picture.yaml | text
fit modle.yaml                               | modle.yaml | model
fit epochs.yaml                              | epochs.yaml | trainer.max_epochs
fit trainer.yaml                             | trainer.yaml | max_epochs
fit class.yaml                               | class.yaml | DCGAN
fit callback.yaml                            | callback.yaml | SampleGrid
predict --weights dcgan_mnst                 | dcgan_mnist
predict --weights missing                    | no weights missing | conditional_gan_mnist
predict --weights dcgan_mnist --class seven  | --class | 3,7
predict --weights dcgan_mnist --class        | --class
predict --weights dcgan_mnist --count many   | --count | whole number
list methds                                  | methods
copy dcgan_digit                             | dcgan_digits
copy dcgan_digits broken.yaml                | broken.yaml is there already
help fitt                                    | fit
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
fit dcgan_digits --trainer.logger TensorBoardLogger          | TensorBoardLogger needs --trainer.logger.save_dir
fit dcgan_digits --model.generator_scheduler StepLR          | StepLR needs --model.generator_scheduler.step_size
fit dcgan_digits --trainer.precision fp16                    | --trainer.precision is fp16 | bf16-mixed
fit dcgan_digits --seed_everything abc                       | --seed_everything is abc | whole number
fit resnet18_digits --model.margin hard                      | --model.margin is hard | a number or soft
fit dcgan_digits --model.latent_dim -3                       | latent_dim is -3 | at least 1
fit dcgan_digits --model.latent_dim 8.5                      | --model.latent_dim is 8.5 | a whole number
fit dcgan_digits --model.latent_dimm 3                       | --model.latent_dim?
fit dcgan_digits --model.generator_optimizer.lrr 3           | FusedAdam | --model.generator_optimizer.lr?
fit dcgan_digits --model.generator_optimizer.lr fast         | --model.generator_optimizer.lr is fast | a number
fit dcgan_digits --model.generator_scheduler.gamma 3         | add --model.generator_scheduler CLASS
fit dcgan_digits --model.lr 0.01                             | --model.generator_optimizer.lr
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
fit dcgan_digits --trainer.callbacks+=Timer                  | Timer
fit dcgan_digits --trainer.callbacks.cout 3                  | --trainer.callbacks.count?
fit dcgan_digits --trainer.callbacks.every_n_epochs x        | --trainer.callbacks.every_n_epochs is x | a whole number
fit dcgan_digits --checkpoint.mode biggest                   | --checkpoint.mode is biggest | min or max
fit dcgan_digits --lr_scaling square                         | --lr_scaling is square | none, linear, sqrt
fit dcgan_digits --compile maybe                             | --compile is maybe | true or false
fit dcgan_digits --model mine.Nothing                        | mine.Nothing | PYTHONPATH
fit dcgan_digits --model lit_models.Nothing                  | lit_models.Nothing | has no Nothing
fit resnet18_digits --model.loss tripplet                    | --model.loss is tripplet | Did you mean triplet?
fit vae_digits --model.likelihood poisson                    | --model.likelihood is poisson | gaussian or bernoulli
fit vae_digits --model.importance_samples none_              | --model.importance_samples is none_ | a whole number
fit vae_digits --model.image_size 50                         | image_size is 50 | 32, 64
fit dcgan_digits --wandb true                                | --wandb.enabled true
fit dcgan_digits --run.experiment                            | --run.experiment needs a value
fit dcgan_digits --run.id a/b                                | --run.id
fit --model.latent_dim 3                                     | --config FILE or --model CLASS
fit --model DCGAN                                            | needs data
fit --data Digits                                            | needs a model
test dcgan_digits --ckpt_path best                           | --ckpt_path
predict --ckpt_path nothing.ckpt                             | no checkpoint nothing.ckpt
predict --weights dcgan_mnist --class 7 --count 3            | DCGAN knows no classes
predict --weights conditional_gan_mnist --class 17           | no class 17
"""
FILES = {
    "broken.yaml": "model: DCGAN\n  data: [\n",
    "empty.yaml": "# nothing\n",
    "list.yaml": "- model\n",
    "modle.yaml": "modle: {class_path: DCGAN}\n",
    "epochs.yaml": "epochs: 3\n",
    "trainer.yaml": "trainer: {max_epoch: 3}\n",
    "class.yaml": "model: {class_path: Dcgan}\n",
    "callback.yaml": "trainer: {callbacks: [{class_path: SampelGrid}]}\n",
    "a_run/config.yaml": "model: {class_path: DCGAN}\n",
    "folder/x.txt": "",
}


def table(text: str) -> list[tuple[str, list[str]]]:
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [(row[0].strip(), [word.strip() for word in row[1:]]) for row in rows]


def check(relit: Relit, capsys: pytest.CaptureFixture[str], line: str, words: list[str], folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    assert relit(*shlex.split(line)) != 0
    told = capsys.readouterr().err
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
