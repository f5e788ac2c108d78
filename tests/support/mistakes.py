"""Mistakes on purpose: command lines, each with words that its message must hold.

The words name what is wrong and what to type in its place.
"""

# ruff: noqa: E501 (a row of a table is a line)

WITHOUT_TORCH = """
# commands and files
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
fit --config folder                          | folder is a folder
fit --config a_run                           | --config a_run/config.yaml
fit a_run                                    | --config a_run/config.yaml
fit dcgan_digits test                        | test follows fit
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
list methds                                  | methods
copy dcgan_digit                             | dcgan_digits
copy dcgan_digits broken.yaml                | broken.yaml is there already
completion tcsh                              | bash, zsh, fish
help fitt                                    | Did you mean fit?
help Dcgan                                   | DCGAN
runz                                         | no command 'runz' | `relit runs`
validat dcgan_digits                         | no command 'validat' | `relit validate`
sweeep x                                     | no command 'sweeep' | `relit sweep`
dmo                                          | no command 'dmo' | `relit demo`
doktor                                       | no command 'doktor' | `relit doctor`
hlep fit                                     | no command 'hlep' | `relit help`
finetune dcgan_digits                        | no command 'finetune' | `relit fit`
fit tab.yaml                                 | tab.yaml isn't valid YAML, line 2 | a tab | indent by spaces
fit utf16.yaml                               | utf16.yaml is UTF-16 text | save it as UTF-8
fit words.yaml                               | words.yaml | holds text in place of settings
fit flat.yaml                                | flat.yaml: model.latent_dim | put it below model.init_args
fit name.yaml                                | name.yaml: There is no setting model.name | Did you mean model.class_path?
fit seed.yaml                                | seed.yaml: There is no setting seed | use seed_everything
fit lr.yaml                                  | lr.yaml: There is no setting lr | Set model.optimizer.lr
fit mnist.yaml                               | mnist.yaml: There is no data set 'MNISTT' | Did you mean MNIST?
fit dcgan_digits --config run.yaml           | run.yaml: There is no setting run.name | Did you mean run.experiment?
fit dcgan_digits --config monitr.yaml        | monitr.yaml: There is no setting checkpoint.monitr | Did you mean checkpoint.monitor?
fit --config trainer/gpuu                    | no configuration trainer/gpuu | Did you mean trainer/gpu?
fit --config configs/logger/tensorbord.yaml  | no configuration configs/logger/tensorbord.yaml | Did you mean logger/tensorboard?
fit --config dcgan_digits.yml                | no configuration dcgan_digits.yml | Did you mean dcgan_digits? `relit list
list everything                              | no list of everything | methods, data, experiments
help nothing                                 | no help on 'nothing' | `relit help` lists
copy dcgan_digits a.yaml b.yaml              | b.yaml | `relit copy --help`
fit argument.yaml                            | argument.yaml: DCGAN has no argument 'latent_dimm' | Did you mean model.latent_dim?
fit learning.yaml                            | learning.yaml: VAE has no argument 'lr' | Set model.optimizer.lr
fit adam.yaml                                | adam.yaml: There is no optimizer 'Adamm' | Did you mean Adam?
fit dcgan_digits --config folder.yaml        | folder.yaml: ImageFolder needs data.path: the folder or archive
fit dcgan_digits --config logger.yaml        | logger.yaml: There is no logger 'TensorbordLogger' | Did you mean TensorBoardLogger?
fit twice.yaml                               | twice.yaml gives 'seed_everything' twice | line 2 | put them together
report nothing                               | nothing is not the folder of a run | metrics.csv
compare nothing text.txt                     | nothing is not the folder of a run
report nowhere                               | no folder nowhere | relit runs
sweep nothing_here --vary model.latent_dim 1 | no configuration nothing_here | relit list experiments
init empty.yaml                              | empty.yaml is a file | name a folder of pictures
init own --output own                        | own is there already | --force
sweep nowhere --vary model.latent_dim 8      | no configuration nowhere | relit list experiments
compare nowhere                              | no folder nowhere | relit runs
report text.txt                              | text.txt is not the folder of a run | `relit runs`
fit sgd.yaml                                 | sgd.yaml: There is no optimizer 'SDG' | Did you mean SGD?
fit --model dcgan_digits                     | dcgan_digits is a configuration | relit fit dcgan_digits
fit --data dcgan_digits                      | dcgan_digits is a configuration | --data takes a class
list data sets                               | has sets | `relit list data`
help Digits MNIST                            | one thing at a time | relit help Digits
export a_run b_run                           | no use for b_run | `relit export --help`
doctor x                                     | no use for x | `relit doctor --help`
test runs/dcgan_digits                       | runs/dcgan_digits isn't a configuration | --ckpt_path runs/dcgan_digits
fit value.yaml                               | value.yaml: data.batch_size is large | a whole number
fit dcgan_digits --config three.yaml         | three.yaml: trainer.max_epochs is three | a whole number
fit dcgan_digits --config mode.yaml          | mode.yaml: checkpoint.mode is biggest | min or max
fit dcgan_digits --config abc.yaml           | abc.yaml: seed_everything is abc | a whole number
fit dcgan_digits --config compile.yaml       | compile.yaml: compile is maybe | true or false
fit below.yaml                               | below.yaml: There is no setting fit | the top level
# flags
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
predict --weights dcgan_mnist --labels 7     | use --class.
predict --weights dcgan_mnist --classes 7    | use --class.
predict --weights dcgan_mnist --n_samples 7  | --count
predict --weights dcgan_mnist --output x     | --predictions.folder
report a_run --ouput x.html                  | --output
fit --help=trainr                            | --help=trainer
fit dcgan_digits -v                          | no option -v | `relit fit --help`
fit dcgan_digits --verbose                   | --verbose is an option of `relit validate` | leave it out
fit dcgan_digits --shuffle                   | no option --shuffle | always shuffled
fit dcgan_digits ––lr 3 | ––lr begins with a dash of print | type --lr
fit vae_digits lr=0.1 | no option --lr | Set --model.optimizer.lr
fit dcgan_digits --dropout 0.1               | no option --dropout | `relit help DCGAN`
fit dcgan_digits --momentum 0.9              | no option --momentum | Set --model.discriminator_optimizer.beta1
fit dcgan_digits --val_every 3               | no option --val_every | use --trainer.check_val_every_n_epoch
fit dcgan_digits --nproc_per_node 2          | no option --nproc_per_node | use --trainer.devices
fit dcgan_digits --amp                       | no option --amp | use --trainer.precision 16-mixed
fit dcgan_digits --use_wandb                 | no option --use_wandb | use --wandb.enabled
fit dcgan_digits --logdir x                  | no option --logdir | use --run.root
fit dcgan_digits --pretrained x              | no option --pretrained | use --weights
fit dcgan_digits --z_dim 3                   | no option --z_dim | use --model.latent_dim
fit dcgan_digits --dataroot x                | no option --dataroot | use --data.root
predict --weights dcgan_mnist --gird         | no option --gird | Did you mean --grid?
predict --weights dcgan_mnist --predictions.foldr x | no option --predictions.foldr | Did you mean --predictions.folder?
init own --model DCGANN                      | no option --model | Did you mean --method?
export a_run --fromat onnx                   | no option --fromat | Did you mean --format?
fit dcgan_digits --model.latent_dimm 3       | --model.latent_dim?
fit --model Pix2Pix --data Maps --model.generatr unet | --model.generator?
fit dcgan_digits --model.lr 0.01             | --model.generator_optimizer.lr
fit dcgan_digits --model.beta1 0.9           | --model.generator_optimizer.beta1
fit dcgan_digits --model.optimizer Adam      | --model.generator_optimizer
fit dcgan_digits --data.num_workers 4        | without worker processes
fit dcgan_digits --data.bach_size 3          | --data.batch_size?
fit autoencoder_digits --model.code_dim 0    | DenoisingAutoencoder has no argument 'code_dim' | latent_dim
fit dcgan_digits --data.val_fraction 0.1     | Digits has no argument 'val_fraction' | split_seed
fit dcgan_digits --data ImageFolder --data.path own --data.people 3 | ImageFolder has no argument 'people' | val_fraction
fit --model VAE --data TorchDataset --data.train FashionMNIST --data.tran x | TorchDataset has no argument 'tran' | Did you mean --data.train?
fit dcgan_digits --model VAE --model.n_critic 3 | VAE has no argument 'n_critic' | kl_weight
fit wgan_gp_digits --model.lipschitz clip    | WGAN has no argument 'lipschitz' | clip_value
sweep dcgan_digits --vary model.nothing 1    | DCGAN has no argument 'nothing' | latent_dim
fit dcgan_digits --trainer max_epochs=3      | --trainer is a group of options | --trainer.max_epochs 3
fit dcgan_digits --run x                     | --run is a group of options | --run.experiment NAME
fit dcgan_digits --checkpoint best           | --checkpoint is a group of options | --checkpoint.monitor val/loss
sweep dcgan_digits --vary latent_dim 8       | no option --latent_dim | use --model.latent_dim
export a_run --part generator                | --part chooses a network | --format onnx
export a_run --format onnx --hub-card me/gan | --hub-card describes safetensors | leave --format out
fit dcgan_digits --predictions x             | --predictions is a group of options | --predictions.folder FOLDER
fit dcgan_digits --model.class_path VAE --model.n_critic 3 | VAE has no argument 'n_critic' | kl_weight
# names
fit --model dcgan                            | DCGAN
fit --model DCGANN                           | Did you mean DCGAN?
fit --model Digits                           | --data Digits
fit --model=vea                              | VAE
fit --model ResNet                           | MetricResNet
fit vae_digits --data mnist                  | MNIST
fit vae_digits --data VAE                    | --model VAE
fit vae_digits --data Imagefolder            | ImageFolder
fit vae_digits --data.images mnist           | MNIST
fit vae_digits --trainer.callbacks EarlyStoping | EarlyStopping
fit vae_digits --trainer.callbacks+=EarlyStoping | EarlyStopping
fit vae_digits --trainer.callbacks+ SampleGird | SampleGrid
fit vae_digits --trainer.logger TensorbordLogger | TensorBoardLogger
fit vae_digits --trainer.logger+ WandLogger  | WandbLogger
fit vae_digits --trainer.profiler simpel     | simple
fit vae_digits --model.optimizer Adamm       | Did you mean Adam?
fit vae_digits --model.optimizer sdg         | SGD
fit vae_digits --model.lr_scheduler ReduceLROnPlateau | Write --model.lr_scheduler lightning.pytorch.cli.ReduceLROnPlateau | .monitor val/loss
fit vae_digits --model.lr_scheduler StepLRR  | Did you mean StepLR?
fit --model.help dcgan                       | DCGAN
prepare --data MNST                          | no data set 'MNST' | Did you mean MNIST?
fit --model SupportQuery                     | SupportQuery is a data set | use --data SupportQuery
fit --model mine.py                          | --model takes a class, not a file | --model mine.NAME
fit dcgan_digits --model.generator_optimizer FusedAdamm | no optimizer 'FusedAdamm' | Did you mean FusedAdam?
fit dcgan_digits --trainer.logger WandbLoger | no logger 'WandbLoger' | Did you mean WandbLogger?
fit dcgan_digits --trainer.profiler advnced  | no profiler 'advnced' | Did you mean advanced?
export a_run --format onxx                   | --format is onxx | Did you mean onnx?
fit dcgan_digits --trainer.callbacks SampleGrid,EarlyStopping | one class at a time | --trainer.callbacks+ EarlyStopping
# values
fit vae_digits --wandb.tags a b              | '[a,b]'
predict --weights conditional_gan_mnist --data Samples --data.labels 1 2 3 | '[1,2]'
predict --weights dcgan_mnist --class seven  | --class | 3,7
predict --weights dcgan_mnist --class        | --class | 3,7
predict --weights dcgan_mnist --count many   | --count | whole number
predict --weights dcgan_mnist --class 7 8    | classes as 3,7
predict --weights conditional_gan_mnist --class 3-7 | --class needs a class's number | 3,7, not 3-7
predict --weights dcgan_mnist --count -3     | --count needs a whole number, not -3
fit dcgan_digits --run.id a/b                | --run.id | letters, digits
fit dcgan_digits --run.experiment a/b        | --run.experiment is 'a/b' | use letters, digits
sweep dcgan_digits --vary model.latent_dim 8 --trials 0 | --trials is 0 | at least 1
sweep dcgan_digits --range model.latent_dim 64 8 --sampler tpe | --range model.latent_dim 64 8 is no range | LOW HIGH
demo --port 99999                            | Port 99999 can't be used | choose another --port
fit dcgan_digits --run.id ../x               | --run.id is '../x' | use letters, digits
fit dcgan_digits --seed_everything abc       | --seed_everything is abc | whole number
fit dcgan_digits --data.batch_size large     | --data.batch_size is large | a whole number
fit dcgan_digits --trainer.max_epochs three  | --trainer.max_epochs is three | a whole number
fit dcgan_digits --checkpoint.mode biggest   | --checkpoint.mode is biggest | min or max
fit dcgan_digits --lr_scaling square         | --lr_scaling is square | none, linear, sqrt
fit dcgan_digits --compile maybe             | --compile is maybe | true or false
fit resnet18_digits --model.loss tripplet    | --model.loss is tripplet | Did you mean triplet?
fit vae_digits --model.likelihood poisson    | --model.likelihood is poisson | gaussian or bernoulli
fit vae_digits --model.importance_samples none_ | --model.importance_samples is none_ | a whole number
fit dcgan_digits --model.latent_dim=eight    | --model.latent_dim is eight | a whole number
fit vae_digits --model.likelihood gauss      | --model.likelihood is gauss | Did you mean gaussian?
fit vae_digits --model.variance best         | --model.variance is best | one of fixed, learned, optimal
fit dcgan_digits --data.on_device maybe      | --data.on_device is maybe | true, false, null
fit dcgan_digits --trainer.max_steps many    | --trainer.max_steps is many | a whole number
fit dcgan_digits --trainer.gradient_clip_val abc | --trainer.gradient_clip_val is abc | a number or null
fit dcgan_digits --checkpoint.every_n_steps x | --checkpoint.every_n_steps is x | a whole number or null
fit dcgan_digits --checkpoint.diverged continue | --checkpoint.diverged is continue | stop or go_on
fit dcgan_digits --wandb.enabled perhaps     | --wandb.enabled is perhaps | true or false
fit dcgan_digits --data ImageFolder --data.path own --data.split_by klass | --data.split_by is klass | Did you mean class?
fit dcgan_digits --data ImageFolder --data.path own --data.background blue | --data.background is blue | white or black
# missing arguments
fit --config= | --config needs the name
fit --config                                 | --config needs the name
fit vae_digits --data.path                   | --data.path needs a value
fit vae_digits --wandb                       | --wandb.enabled
copy                                         | needs NAME: relit copy dcgan_digits
report                                       | needs RUN: relit report runs/
compare --metric val/fid                     | needs RUN
init                                         | `relit init` needs FOLDER: relit init my_pictures
export                                       | `relit export` needs CHECKPOINT: relit export runs/dcgan_mnist
push a_run                                   | `relit push` needs OWNER/NAME: relit push runs/dcgan_mnist OWNER/NAME
sweep                                        | `relit sweep` needs EXPERIMENT: relit sweep dcgan_digits --vary
fit dcgan_digits --wandb.project             | --wandb.project needs a value
fit dcgan_digits --ckpt_path                 | --ckpt_path needs a value
fit dcgan_digits --data ImageFolder          | ImageFolder needs --data.path: the folder or archive
fit dcgan_digits --data EpisodeDataModule    | EpisodeDataModule needs --data.images
fit dcgan_digits --data SupportQuery         | SupportQuery needs --data.support
prepare --data FewLabels                     | FewLabels needs --data.images
fit dcgan_digits --trainer.max_epochs        | --trainer.max_epochs needs a value
fit dcgan_digits --run.experiment            | --run.experiment needs a value
fit --model.latent_dim 3                     | --config FILE or --model CLASS
fit --model DCGAN                            | needs data
fit --data Digits                            | needs a model
predict --weights protonet_omniglot_1shot --data SupportQuery | SupportQuery needs --data.support (and query): folder or archive
prepare --data ImageFolder                   | ImageFolder needs --data.path: the folder or archive
prepare --data PairedFolder                  | PairedFolder needs --data.path: the folder or archive
prepare --data TorchDataset                  | TorchDataset needs --data.train: class of the training images
prepare --data Pictures                      | Pictures needs --data.path: the folder
fit                                          | `relit fit` needs a model: --config FILE
prepare                                      | `relit prepare` needs data: --config FILE or --data CLASS
sweep dcgan_digits                           | --vary NAME VALUE
fit dcgan_digits --model=                    | --model needs a value
fit dcgan_digits --run.root=                 | --run.root needs a value
fit dcgan_digits --compile=                  | --compile needs a value
sweep dcgan_digits --vary model.latent_dim=8,16 | has no value | --vary model.latent_dim 8 16
# checkpoints and weights
predict --ckpt_path nothing.ckpt             | no checkpoint nothing.ckpt
fit dcgan_digits --ckpt_path missing.ckpt    | no checkpoint missing.ckpt | `last` or `best`
fit dcgan_digits --ckpt_path dcgan_mnist     | no checkpoint dcgan_mnist | --weights dcgan_mnist
fit last.ckpt                                | --ckpt_path last.ckpt
fit dcgan.safetensors                        | --weights dcgan.safetensors
predict --weights dcgan_mnst                 | dcgan_mnist
predict --weights missing                    | no weights missing | conditional_gan_mnist
predict --weights dcgan_mnist.ckpt           | no weights dcgan_mnist.ckpt | Did you mean dcgan_mnist?
predict --weights hf:nothing                 | no weights hf:nothing | hf:OWNER/NAME
fit dcgan_digits --weights dcgan_mnst        | no weights dcgan_mnst | Did you mean dcgan_mnist?
test dcgan_digits --ckpt_path best           | --ckpt_path last | --checkpoint.monitor
test                                         | `relit test` needs a trained model | --ckpt_path last
predict dcgan_mnist                          | needs a trained model | `relit predict --weights dcgan_mnist`
predict conditional_gan_mnist --class 7      | needs a trained model | `relit predict --weights conditional_gan_mnist`
test digit_classifier_mnist                  | needs a trained model | `relit test --weights digit_classifier_mnist`
validate vae_digits                          | needs a trained model | --ckpt_path last
test --ckpt_path last                        | `--ckpt_path last` of which experiment? | --run.experiment
predict dcgan_mnist --ckpt_path last         | No run in runs/dcgan_mnist | `relit fit`
predict --weights https://example.org/x.safetensors | no weights https://example.org/x.safetensors | a run's folder
fit dcgan_digits --ckpt_path last            | No run in runs/dcgan_digits | without --ckpt_path starts a new run
fit dcgan_digits --ckpt_path nothing         | no checkpoint nothing | a run's folder
fit dcgan_digits --weights text.safetensors  | has no card | text.json
fit dcgan_digits --weights nothing           | nothing holds no checkpoint | .safetensors
fit dcgan_digits --weights dcgan_mnist --ckpt_path last | leave one of them out
test dcgan_digits                            | needs a trained model | --ckpt_path last
predict --weights text.safetensors           | has no card | text.json
export nothing                               | no checkpoint in nothing | a run's folder
demo nothing                                 | nothing holds no checkpoint
demo dcgan_mnst                              | no weights dcgan_mnst | Did you mean dcgan_mnist?
export dcgan_mnst                            | no checkpoint in dcgan_mnst | name a run's folder
export nowhere                               | no checkpoint in nowhere | name a run's folder
export text.safetensors                      | text.safetensors has no card | text.json
push nowhere me/gan                          | no weights nowhere | a run's folder
push a_run me                                | 'me' names no repository | write OWNER/NAME
push dcgan_mnst me/gan                       | no weights dcgan_mnst | Did you mean dcgan_mnist?
push hf:nothing me/gan                       | hf:nothing names no weights on the Hub | write hf:OWNER/NAME
demo text.safetensors                        | text.safetensors has no card | text.json
fit dcgan_digits --ckpt_path a_run           | no checkpoint a_run | a run's folder
test dcgan_digits --ckpt_path last --run.id monday | The run runs/dcgan_digits/monday has no checkpoints/last.ckpt | --run.id
# machine
fit dcgan_digits --trainer.plugins SLURMEnvironmen | Did you mean SLURMEnvironment?
fit dcgan_digits --wandb true                | --wandb.enabled true
fit dcgan_digits --trainer.num_nodes x       | --trainer.num_nodes is x | a whole number
fit dcgan_digits --trainer.benchmark x       | --trainer.benchmark is x | true, false
# own files
init bad                                     | None of the pictures in | a/1.png (not an image) | Save them as PNG or JPEG files
init nowhere                                 | There is no folder | name one that holds pictures
init nothing                                 | nothing holds no pictures | name a folder that does
report a_run                                 | a_run is not the folder of a run | `relit runs`
predict --weights dcgan_mnist --predictions.folder text.txt | --predictions.folder is text.txt | name a folder
"""
BY_THE_PARSER = """
# commands and files
fit size.yaml                                | size.yaml: model.latent_dim is 8.5 | a whole number
fit rate.yaml                                | rate.yaml: model.optimizer.lr is fast | a number
fit negative.yaml                            | negative.yaml: latent_dim is -3 | at least 1
fit dcgan_digits --config precision.yaml     | precision.yaml: trainer.precision is fp16 | Did you mean 16-mixed?
fit dcgan_digits --config every.yaml         | every.yaml: SampleGrid has no argument 'every_n_epoch' | every_n_epochs?
fit dcgan_digits --config save_dir.yaml      | save_dir.yaml: TensorBoardLogger needs trainer.logger.save_dir | --config logger/tensorboard
# flags
fit dcgan_digits --model.generator_optimizer.lrr 3 | FusedAdam | --model.generator_optimizer.lr?
fit dcgan_digits --model.generator_scheduler.gamma 3 | add --model.generator_scheduler CLASS
fit dcgan_digits --trainer.callbacks.cout 3  | --trainer.callbacks.count?
fit vae_digits --model.optimizer.betas 0.9   | no argument 'betas' | Set --model.optimizer.beta1
fit vae_digits --model.optimizer SGD --model.optimizer.betas [0.5,0.9] | SGD has no argument 'betas' | momentum
fit dcgan_digits --model.generator_optimizer Adam --model.generator_optimizer.momentum 0.9 | Adam has no argument 'momentum' | betas
fit dcgan_digits --model.generator_optimizer.learning_rate 0.1 | no argument 'learning_rate' | Did you mean --model.generator_optimizer.lr?
# names
fit dcgan_digits --trainer.callbacks+=Timer  | Timer | --trainer.max_time
fit dcgan_digits --model mine.Nothing        | mine.Nothing | no module 'mine', neither installed nor in | mine.py
fit dcgan_digits --model lit_models.Nothing  | lit_models.Nothing | has no Nothing
fit dcgan_digits --trainer.callbacks+ mine.Callback | --trainer.callbacks is mine.Callback | as mine.py
# values
fit vae_digits --model.latent_dim null       | latent_dim is null | a whole number of at least 1
fit dcgan_digits --seed_everything -1        | from 0 to 4294967295
fit resnet18_digits --model.margin hard      | --model.margin is hard | a number or soft
fit dcgan_digits --model.latent_dim -3       | latent_dim is -3 | at least 1
fit dcgan_digits --model.latent_dim 8.5      | --model.latent_dim is 8.5 | a whole number
fit dcgan_digits --model.generator_optimizer.lr fast | --model.generator_optimizer.lr is fast | a number
fit dcgan_digits --trainer.max_epochs -5     | --trainer.max_epochs is -5 | at least 0
fit dcgan_digits --trainer.limit_train_batches -1 | --trainer.limit_train_batches is -1 | 0.0 to 1.0
fit dcgan_digits --trainer.val_check_interval 7.5 | --trainer.val_check_interval is 7.5 | 0.0 to 1.0
fit dcgan_digits --trainer.max_time soon     | --trainer.max_time is soon | DD:HH:MM:SS
fit dcgan_digits --trainer.gradient_clip_algorithm foo | --trainer.gradient_clip_algorithm is foo | value or norm
fit dcgan_digits --trainer.callbacks.every_n_epochs x | --trainer.callbacks.every_n_epochs is x | a whole number
fit vae_digits --model.lr_scheduler StepLR --model.lr_scheduler.step_size 0 | --model.lr_scheduler.step_size is 0 | at least 1
fit vae_digits --model.lr_scheduler OneCycleLR --model.lr_scheduler.max_lr 0.1 | --model.lr_scheduler OneCycleLR (max_lr 0.1) can't work | total_steps
fit dcgan_digits --model.generator_optimizer SGD --model.generator_optimizer.momentum -1 | --model.generator_optimizer.momentum is -1.0 | at least 0
fit dcgan_digits --model.generator_optimizer SparseAdam | --model.generator_optimizer SparseAdam (lr 0.0002) can't work | dense gradients
fit schedule.yaml                            | schedule.yaml: model.lr_scheduler.T_max is 0 | at least 1
predict --weights dcgan_mnist --class 7 --count 3 | DCGAN has no classes
predict --weights conditional_gan_mnist --class 17 | no class 17
fit layerwise_mlp_digits --model.widths 100  | --model.widths is 100 | '[100]'
fit dcgan_digits --data.batch_size 8.5       | --data.batch_size is 8.5 | a whole number
fit dcgan_digits --trainer.deterministic maybe | --trainer.deterministic is maybe | warn, true, false
fit dcgan_digits --trainer.callbacks+ SampleGrid --trainer.callbacks.count x | --trainer.callbacks.count is x | a whole number
fit dcgan_digits --data ImageFolder --data.path own --data.augmentation flipp | --data.augmentation is flipp | Did you mean flip?
fit dcgan_digits --data ImageFolder --data.path own --data.value_range 3 | --data.value_range is 3 | a list
# missing arguments
fit dcgan_digits --trainer.callbacks+=EarlyStopping | EarlyStopping needs --trainer.callbacks.monitor
fit dcgan_digits --trainer.logger TensorBoardLogger | TensorBoardLogger needs --trainer.logger.save_dir | --config logger/tensorboard
fit dcgan_digits --model.generator_scheduler StepLR | StepLR needs --model.generator_scheduler.step_size
fit vae_digits --model.lr_scheduler CosineAnnealingLR | CosineAnnealingLR needs --model.lr_scheduler.T_max
fit vae_digits --model.lr_scheduler MultiStepLR | MultiStepLR needs --model.lr_scheduler.milestones
# data that don't fit
fit vae_digits --model.image_size 50         | image_size is 50 | 32, 64
# checkpoints and weights
test vae_digits --weights dcgan_mnist        | checkpoint of DCGAN | model is VAE | leave --config and --model out
fit vae_digits --ckpt_path text.safetensors  | text.safetensors holds weights only | with --weights
# machine
fit dcgan_digits --trainer.precision fp16    | --trainer.precision is fp16 | 16-mixed | Did you mean 16-mixed?
fit dcgan_digits --trainer.accelerator tpus  | --trainer.accelerator is tpus | cpu
fit dcgan_digits --trainer.devices many      | --trainer.devices | whole number
fit dcgan_digits --trainer.strategy dpp      | --trainer.strategy is dpp | Did you mean ddp?
fit dcgan_digits --trainer.num_nodes 0       | --trainer.num_nodes is 0 | at least 1
fit dcgan_digits --trainer.precision bf17    | --trainer.precision is bf17 | bf16-mixed
"""
WHEN_IT_STARTS = """
# values
fit dcgan_digits --data.batch_size 0         | --data.batch_size | is 0 | at least 1
fit dcgan_digits --model.feature_maps 0      | feature_maps is 0 | at least 1
fit vae_digits --model.feature_maps -2       | feature_maps is -2 | at least 1
fit dcgan_digits --model.feature_maps 100000000 | more memory | feature_maps is 100000000
fit dcgan_digits --model.n_critic 0          | n_critic is 0 | at least 1
fit wgan_gp_digits --model.gradient_penalty_weight -1 | gradient_penalty_weight is -1.0 | not be negative
fit vae_digits --model.kl_weight -1          | kl_weight is -1.0 | at least 0
fit --model LayerwiseMLP --data Digits --model.widths [] | widths is [] | at least one layer
fit dcgan_digits --data FewLabels --data.images Digits --data.count 0 | count is 0 | at least 2 folds
predict --weights dcgan_mnist --count 0      | count is 0 | at least 1
predict --weights dcgan_mnist --predictions.columns 0 | --predictions.columns is 0 | at least 1
fit dcgan_digits --trainer.gradient_clip_val 1 | use --model.gradient_clip_norm
fit dcgan_digits --trainer.accumulate_grad_batches 2 | a larger --data.batch_size
fit dcgan_digits --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/nothing --trainer.max_epochs 1 --trainer.limit_train_batches 1 --model.feature_maps 2 | val/nothing, which isn't logged | val/generator_loss
fit dcgan_digits --run.root text.txt         | choose another place with --run.root
# data that don't fit
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 64 --data.channels 3 | set --model.image_size 64 and --model.channels 3
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 32 --data.channels 1 | set --data.batch_size to 20
fit resnet18_digits --data ImageFolder --data.path own --data.image_size 32 --data.channels 1 | set --model.num_classes 2
fit resnet18_digits --data ImageFolder --data.path flat --data.image_size 32 --data.channels 1 | without classes
fit resnet18_digits --model.num_classes 3    | set --model.num_classes 10
fit resnet18_digits --model.channels 3       | mean is [0.5] | 3 numbers | --model.channels
fit dcgan_digits --model.image_size 64       | set --model.image_size 32
fit dcgan_digits --model.channels 3          | --model.channels 1
fit vae_digits --model.image_size 64         | set --model.image_size 32
fit dcgan_digits --data.batch_size 5000      | set --data.batch_size to 1297 or less
fit --model ProtoNet --data Digits           | set --data EpisodeDataModule --data.images Digits
fit --model Pix2Pix --data Digits            | pairs of images | set --data
fit --model CycleGAN --data Digits           | pairs of images | set --data
fit --model DARTSSearch --data Digits        | set --model.image_size 32 and --model.channels 1
fit --model ConditionalGAN --data Digits --model.num_classes 3 | set --model.num_classes 10
fit --model DigitClassifier --data ImageFolder --data.path flat --data.image_size 32 --data.channels 1 | without classes
fit --model MetricResNet --data Digits --model.loss triplet | set --model.image_size 32 and --model.channels 1
fit dcgan_digits --data Pictures --data.path own | can only be predicted from | --data
fit protonet_folder --data.images.path own --data.n_way 20 | set --data.n_way to 2 or less
test --weights dcgan_mnist --data ImageFolder --data.path own --data.image_size 64 --data.channels 3 | set --data.image_size 32 and --data.channels 1
# own files
fit dcgan_digits --data ImageFolder --data.path nowhere | no folder or archive | set --data.path to one
fit dcgan_digits --data ImageFolder --data.path nothing | holds no images | set --data.path
fit dcgan_digits --data ImageFolder --data.path text.txt | text.txt is neither a zip nor a tar archive
fit dcgan_digits --data ImageFolder --data.path bad | None of the 1 images | a/1.png (not an image)
fit dcgan_digits --data ImageFolder --data.path own --data.image_size 0 | image_size | at least 1
fit dcgan_digits --data ImageFolder --data.path own --data.channels 2 | --data.channels is 2 | 1, 3
fit dcgan_digits --data ImageFolder --data.path own --data.val_fraction 1.5 | val_fraction | leave something for training
predict --weights digit_classifier_mnist --data ImageFolder --data.path nowhere | set --data.path
prepare --data Digits --picture p.txt        | --picture is p.txt | end its name in .png
prepare --data TorchDataset --data.train FashionMINST | FashionMINST | set --data.train to FashionMNIST
# checkpoints and weights
fit --model DARTSRetrain --data Digits --model.genotype missing.json | no such file | genotype.json | DARTS_V2
fit --model DARTSRetrain --data Digits --model.genotype genotype.json | "normal" and "reduction"
fit --model TransferClassifier --data Digits --model.encoder_checkpoint missing.ckpt | set --model.folds 0
fit --model LatentGAN --data Digits --model.decoder_checkpoint missing.ckpt | no checkpoint of an autoencoder in missing.ckpt
fit dcgan_digits --ckpt_path text.ckpt       | text.ckpt can't be read as a checkpoint
fit vae_digits --weights dcgan_mnist         | No layer of this VAE fits | choose weights of a VAE
export text.ckpt                             | text.ckpt can't be read as a checkpoint
# machine
fit dcgan_digits --trainer.accelerator mps   | --trainer.accelerator asks for MPS | leave the option out
fit dcgan_digits --trainer.devices 0         | --trainer.devices | at least 1
fit dcgan_digits --trainer.devices -3        | --trainer.devices | at least 1
fit dcgan_digits --trainer.strategy fsdp     | --trainer.strategy fsdp needs a GPU | leave the option out
fit dcgan_digits --trainer.strategy deepspeed | deepspeed | leave the option out
fit dcgan_digits --trainer.precision bf16-true | set bf16-mixed
fit dcgan_digits --trainer.precision 16-true | set 16-mixed
fit dcgan_digits --trainer.sync_batchnorm true | GPUs only | leave it out
"""
WHEN_IT_STARTS_LONG = """
# commands and files
fit clip.yaml                                | clip.yaml: gradient_penalty_weight is -1.0 | not be negative
fit kl.yaml                                  | kl.yaml: kl_weight is -1.0 | at least 0
fit dcgan_digits --config strategy.yaml      | strategy.yaml: trainer.strategy is dpp | Did you mean ddp?
fit dcgan_digits --config accelerator.yaml   | accelerator.yaml: trainer.accelerator is tpus | cpu
# values
fit dcgan_digits --model.image_size 0        | image_size is 0 | at least 1
fit dcgan_digits --model.channels 0          | channels is 0 | at least 1
fit vae_digits --model.latent_dim 0          | latent_dim is 0 | at least 1
fit vae_digits --model.optimizer.lr -1       | lr is -1.0 | at least 0
fit vae_digits --model.optimizer.beta1 2     | --model.optimizer.beta1 is 2.0 | less than 1
fit vae_digits --model.optimizer.eps -1      | eps is -1.0 | at least 0
fit vae_digits --model.optimizer.weight_decay -1 | weight_decay is -1.0 | at least 0
fit vae_digits --model.importance_samples 0  | importance_samples is 0 | at least 1
fit wgan_gp_digits --model.clip_value -1     | clip_value is -1.0 | null for no clipping
fit dcgan_digits --model.gradient_clip_norm -1 | gradient_clip_norm is -1.0 | null for no clipping
fit dcgan_digits --model.ema_decay 2         | ema_decay is 2.0 | between 0 and 1
fit autoencoder_digits --model.noise_std -1  | noise_std is -1.0 | at least 0
fit layerwise_mlp_digits --model.widths [0]  | widths is [0] | at least 1 unit
fit resnet18_digits --model.margin -1        | margin is -1.0 | at least 0, or soft
fit resnet18_digits --model.label_smoothing 2 | label_smoothing is 2.0 | less than 1
fit conditional_gan_digits --model.num_classes 0 | num_classes is 0 | at least 1
fit darts_search_digits --model.layers 1     | layers is 1 | at least 3
fit digit_classifier_mnist --data Digits --model.max_lr -1 | max_lr is -1.0 | positive
fit dcgan_digits --data.batch_size -1        | --data.batch_size is -1 | at least 1
fit dcgan_digits --trainer.max_steps -5      | --trainer.max_steps is -5 | -1 for no limit
fit dcgan_digits --trainer.check_val_every_n_epoch 0 | --trainer.check_val_every_n_epoch is 0 | at least 1
fit dcgan_digits --trainer.log_every_n_steps -1 | --trainer.log_every_n_steps is -1 | at least 0
fit dcgan_digits --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.patience -1 | --trainer.callbacks.patience is -1 | at least 0
fit dcgan_digits --trainer.min_epochs -1 | --trainer.min_epochs is -1 | at least 0
fit dcgan_digits --trainer.val_check_interval 0 | --trainer.val_check_interval is 0 | a share above 0.0
fit resnet18_digits --data.classes_per_batch 100 --data.samples_per_class 2 | 100 classes | set --data.classes_per_batch to 10 or less
fit protonet_folder --data.images.path own --data.n_way 2 --data.k_shot 0 | --data.k_shot is 0 | at least 1
fit --model Pix2Pix --data PairedFolder --data.path flat --data.load_size 10 --model.image_size 32 | --data.load_size is 10 | at least as much
fit dcgan_digits --trainer.limit_val_batches 2.5 | --trainer.limit_val_batches is 2.5 | 0.0 to 1.0
fit dcgan_digits --trainer.overfit_batches -1 | --trainer.overfit_batches is -1 | 0.0 to 1.0
fit dcgan_digits --trainer.max_time 10       | --trainer.max_time is 10 | DD:HH:MM:SS
fit dcgan_digits --checkpoint.every_n_steps 0 | --checkpoint.every_n_steps is 0 | at least 1, or null
fit dcgan_digits --trainer.callbacks.every_n_epochs 0 | every_n_epochs | at least 1
fit dcgan_digits --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.mode up | --trainer.callbacks.mode is up | min or max
# data that don't fit
fit --model VAE --data Samples               | Samples can only be predicted from | choose other --data
fit dcgan_digits --data SupportQuery --data.support own --data.query own | SupportQuery can only be predicted from | choose other --data
fit --model MetricResNet --data Digits --model.encoder resnet19 | encoder is resnet19 | resnet18, lenet
fit --model MetricResNet --data Digits --model.encoder timm:nothing | timm has no network nothing | did you mean
fit --model LayerwiseMLP --data Digits --model.num_classes 3 | LayerwiseMLP is built for | set --model.image_size 32
fit --model TransferClassifier --data Digits | encoder | --model.freeze_encoder false
fit --model LatentGAN --data Digits          | LatentGAN | --model.decoder_checkpoint
fit protonet_folder --data.images.path own --data.n_way 2 --data.n_query 100 | 100 samples of a class | lower --data.k_shot or --data.n_query
predict --weights digit_classifier_mnist --data Pictures --data.path own | DigitClassifier doesn't | take other data
# own files
predict --weights digit_classifier_mnist --data ImageFolder --data.path bad | None of the 1 images | Save them as PNG or JPEG files
fit dcgan_digits --data ImageFolder --data.path own --data.channels 1 --data.crop -1 | --data.crop is -1 | at least 1
fit dcgan_digits --data ImageFolder --data.path own --data.test_fraction -0.1 | test_fraction | leave something for training
fit dcgan_digits --data ImageFolder --data.path text.ckpt | text.ckpt is neither a zip nor a tar archive | get it again
fit --model Pix2Pix --data PairedFolder --data.path nothing | nothing holds no images | set --data.path
fit --model CycleGAN --data PairedFolder --data.path nowhere | There is no folder or archive | set --data.path
# checkpoints and weights
fit --model TransferClassifier --data FewLabels --data.images Digits --model.encoder_checkpoint text.ckpt | text.ckpt can't be read as a checkpoint
# machine
fit dcgan_digits --trainer.accelerator gpu   | --trainer.accelerator asks for a GPU | out
fit dcgan_digits --config trainer/gpu        | asks for a GPU | (or --config trainer/gpu) out
fit dcgan_digits --trainer.accelerator tpu   | --trainer.accelerator tpu needs | leave the option out
fit dcgan_digits --trainer.strategy ddp_spawn --trainer.devices 2 | ddp_spawn | set ddp.
fit dcgan_digits --trainer.strategy single_device --trainer.devices 2 | single_device | set --trainer.devices to one
fit dcgan_digits --trainer.devices 1.5       | --trainer.devices | whole number of at least 1
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
    "value.yaml": "model: {class_path: DCGAN}\ndata: {class_path: Digits, init_args: {batch_size: large}}\n",
    "size.yaml": "model: {class_path: DCGAN, init_args: {latent_dim: 8.5}}\ndata: Digits\n",
    "negative.yaml": "model: {class_path: DCGAN, init_args: {latent_dim: -3}}\ndata: Digits\n",
    "clip.yaml": "model: {class_path: WGAN, init_args: {gradient_penalty_weight: -1.0, image_size: 32, channels: 1}}\ndata: Digits\n",
    "kl.yaml": "model: {class_path: VAE, init_args: {kl_weight: -1.0}}\ndata: Digits\n",
    "argument.yaml": "model: {class_path: DCGAN, init_args: {latent_dimm: 3}}\ndata: Digits\n",
    "flat.yaml": "model: {class_path: DCGAN, latent_dim: 3}\ndata: Digits\n",
    "precision.yaml": "trainer: {precision: fp16}\n",
    "three.yaml": "trainer: {max_epochs: three}\n",
    "strategy.yaml": "trainer: {strategy: dpp}\n",
    "accelerator.yaml": "trainer: {accelerator: tpus}\n",
    "tab.yaml": "model:\n\tclass_path: DCGAN\n",
    "twice.yaml": "seed_everything: 1\nseed_everything: 2\n",
    "adam.yaml": "model: {class_path: VAE, init_args: {optimizer: {class_path: Adamm}}}\ndata: Digits\n",
    "sgd.yaml": "model: {class_path: VAE, init_args: {optimizer: SDG}}\ndata: Digits\n",
    "schedule.yaml": "model: {class_path: VAE, init_args: {lr_scheduler: {class_path: CosineAnnealingLR, init_args: {T_max: 0}}}}\ndata: Digits\n",
    "below.yaml": "fit: {model: {class_path: DCGAN}}\n",
    "rate.yaml": "model: {class_path: VAE, init_args: {optimizer: {class_path: FusedAdam, init_args: {lr: fast}}}}\ndata: Digits\n",
    "learning.yaml": "model: {class_path: VAE, init_args: {lr: 0.1}}\ndata: Digits\n",
    "mnist.yaml": "model: DCGAN\ndata: {class_path: MNISTT}\n",
    "name.yaml": "model: {name: DCGAN}\n",
    "seed.yaml": "seed: 3\n",
    "abc.yaml": "seed_everything: abc\n",
    "lr.yaml": "lr: 0.1\n",
    "logger.yaml": "trainer: {logger: {class_path: TensorbordLogger}}\n",
    "save_dir.yaml": "trainer: {logger: {class_path: TensorBoardLogger}}\n",
    "run.yaml": "run: {name: x}\n",
    "mode.yaml": "checkpoint: {mode: biggest}\n",
    "monitr.yaml": "checkpoint: {monitr: x}\n",
    "every.yaml": "trainer: {callbacks: [{class_path: SampleGrid, init_args: {every_n_epoch: 3}}]}\n",
    "folder.yaml": "data: {class_path: ImageFolder}\n",
    "words.yaml": "just some words\n",
    "compile.yaml": "compile: maybe\n",
    "text.txt": "x",
    "text.ckpt": "x",
    "text.safetensors": "x",
    "genotype.json": "{}",
    "bad/a/1.png": "no picture",
}
PICTURES = {"own/a": 12, "own/b": 12, "flat": 10, "nothing": 0}
"""Folders, each with how many pictures it holds."""

TABLES = (WITHOUT_TORCH, BY_THE_PARSER, WHEN_IT_STARTS, WHEN_IT_STARTS_LONG)
LEAST = {
    "commands and files": 22,
    "flags": 26,
    "names": 14,
    "values": 49,
    "missing arguments": 16,
    "data that don't fit": 28,
    "own files": 16,
    "checkpoints and weights": 33,
    "machine": 13,
}
"""How many mistakes of each kind were tried on the first version, of which 108 of 217 had such a message."""
