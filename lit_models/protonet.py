"""Prototypical Networks (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175): few-shot classification.

An encoder f is trained on episodes, small classification tasks of N classes, drawn again for each step. The
prototype of a class is the mean embedding of its few support images (eq. 1), ``c_k = mean f(x_i)``, and a query image
belongs to class k with probability ``p(y = k | x) ∝ exp(−d(f(x), c_k))`` (eq. 2), d being the squared Euclidean
distance. The loss is the queries' mean ``−log p``. New classes need no training, only some support images each.

Differences from the paper and the authors' code (https://github.com/jakesnell/prototypical-networks):

1. Omniglot's drawings are resized with antialiasing unless ``--data.resample nearest`` is given. The authors' code
   takes the nearest pixel, and transposes every drawing, which is left out.
2. An encoder's block takes the maximum before the ReLU, not after it. The result is the same, as the ReLU is monotonic,
   for a quarter of the work.
3. The scales of batch normalization start at 1. The PyTorch of the authors' code (0.4) drew them from [0, 1).
4. Several episodes may make one step; batch normalization then takes its statistics over all of their images together
   (in the authors' code over the support and query images of one episode).
5. Validation goes through the same 100 episodes after every epoch. The authors' code draws others each time.
6. The cosine distance, which the paper tries, too, is multiplied by ``cosine_scale``.
7. There are configurations for Omniglot and for a folder of classes only: neither miniImageNet (section 3.2) nor
   zero-shot classification (sections 2.7 and 3.3).
8. Optional: other encoders, pretrained or frozen, and a linear layer on top.
"""

import math
from typing import Any, Literal, Self

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from datamodules import Episodes, LabeledImages, SupportQuery
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32, in_float64
from lit_models.losses.prototypical import cosine, episode_accuracy, prototypical_loss, squared_euclidean
from lit_models.module import Export
from lit_models.networks.conv4 import Conv4 as Conv4  # its place until version 0.2
from lit_models.networks.encoders import build_encoder, load_encoder, require_encoder, train_unless_frozen
from lit_models.optimizers import FusedAdam, encoder_groups
from lit_models.support.checks import require_at_least, require_image_shape
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.pretrained import StartsFromWeights
from lit_models.support.ranks import gather_rows


class ProtoNet(StartsFromWeights):
    """Prototypical Network on episodes of images in [0, 1], with the paper's values for Omniglot.

    Logged: ``train/loss``, ``train/accuracy`` (each batch's value); ``val/loss``, ``val/accuracy``, ``test/loss``,
    ``test/accuracy`` (means over all episodes); of more than one test episode ``test/accuracy_ci95``, half of the 95 %
    confidence interval of that mean, ``1.96 · s / √n`` with s the standard deviation of the n episodes' accuracies;
    ``test/error``, the share of wrong answers (on Lake's one-shot runs, his error rate).

    Args:
        image_size: Height and width of the images, at least 16 for "conv4".
        channels: Channels of the images.
        encoder: "conv4", the paper's four blocks; "resnet18", relit's; ``torchvision:NAME`` or ``timm:NAME`` (extra
            ``relit[timm]``), with the library's normalization; or ``MODULE.NAME`` of a user-defined network
            (:func:`lit_models.networks.user_network.register_encoder`).
        pretrained: Weights that the encoder starts from: "imagenet" for the library's; or a file (``.pth``,
            ``.safetensors``), such as a checkpoint of a ``MetricResNet`` with the same encoder.
        freeze_encoder: Leave the encoder as it is and train ``embedding_dim`` only.
        encoder_lr: Learning rate of the encoder; the optimizer's if None.
        embedding_dim: Outputs of a linear layer on top of the encoder; none if None, as in the paper.
        feature_maps: Width of each of the four blocks, or of the first stage of "resnet18".
        distance: "squared_euclidean", or "cosine" for ``cosine_scale * (1 - cosine)``.
        cosine_scale: Factor of the cosine distance, without which the softmax could never be sure.
        lr_halving_episodes: The learning rate is halved whenever so many training episodes more have been seen, by all
            processes together; never if None.
        optimizer: Optimizer of all parameters.
    """

    exports = (Export("encoder", "forward", ("image",), "embedding"),)

    def __init__(
        self,
        image_size: int = 28,
        channels: int = 1,
        feature_maps: int = 64,
        encoder: str = "conv4",
        pretrained: str | None = None,
        distance: Literal["squared_euclidean", "cosine"] = "squared_euclidean",
        cosine_scale: float = 10.0,
        lr_halving_episodes: int | None = 2000,
        freeze_encoder: bool = False,
        encoder_lr: float | None = None,
        embedding_dim: int | None = None,
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
    ) -> None:
        super().__init__()
        require_encoder(encoder, image_size, channels, pretrained, freeze_encoder)
        require_at_least(1, embedding_dim=embedding_dim)
        if freeze_encoder and embedding_dim is None:
            raise ModelError("With a frozen encoder only a layer on top of it learns: set --model.embedding_dim.")
        if cosine_scale <= 0:
            raise ModelError(f"cosine_scale is {cosine_scale}; it must be positive.")
        if lr_halving_episodes is not None and lr_halving_episodes < 1:
            raise ModelError(f"lr_halving_episodes is {lr_halving_episodes}; it must be at least 1, or null.")
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.encoder = build_encoder(encoder, image_size, channels, feature_maps, freeze_encoder)
        self.freeze_encoder = freeze_encoder
        self.encoder_lr = encoder_lr
        self.projection: nn.Module = nn.Identity()
        if embedding_dim is not None:
            self.projection = nn.Linear(self.encoder.out_features, embedding_dim)
        self.pretrained = pretrained
        self.distance = distance
        self.cosine_scale = cosine_scale
        self.lr_halving_episodes = lr_halving_episodes
        self.optimizer_callable = optimizer
        self.episodes_seen = 0
        self.inverted = False
        self.test_accuracies: list[Tensor] = []

    def setup(self, stage: str) -> None:
        if stage == "predict":
            if not isinstance(self.data, SupportQuery):
                raise ModelError(
                    "ProtoNet predicts the classes of a folder of examples: add --data SupportQuery --data.support "
                    "FOLDER (with a sub-folder of images for each class) --data.query FOLDER (with the images in "
                    "question)."
                )
            return
        require_image_shape(self, self.image_shape, takes="episodes")
        if stage == "fit":
            self.inverted = self.facts.inverted

    def load_starting_weights(self) -> None:
        if self.pretrained is not None:
            load_encoder(self.encoder, self.pretrained)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        train_unless_frozen(self.encoder, self.freeze_encoder, mode)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings, ``(B, D)`` in float32, of images ``(B, C, H, W)`` in [0, 1]."""
        self.start_from_weights()
        return at_least_float32(self.projection(self.encoder(image)))

    def distances(self, query: Tensor, prototype: Tensor) -> Tensor:
        """``(..., M, N)`` from embeddings ``(..., M, D)`` and prototypes ``(..., N, D)``, in float32."""
        with torch.autocast(query.device.type, enabled=False):
            if self.distance == "cosine":
                return cosine(query, prototype, self.cosine_scale)
            return squared_euclidean(query, prototype)

    def episode_distances(self, batch: Episodes) -> Tensor:
        """``(E, N, Q, N)``: of the Q queries of the N classes of E episodes to the N prototypes."""
        shots = batch.support.shape[2]
        image = torch.cat(batch, dim=2)
        embedding = self(image.flatten(0, 2)).unflatten(0, image.shape[:3])
        prototype, query = embedding[:, :, :shots].mean(2), embedding[:, :, shots:]
        return self.distances(query.flatten(1, 2), prototype).unflatten(1, query.shape[1:3])

    def training_step(self, batch: Episodes, batch_idx: int) -> Tensor:
        distance = self.episode_distances(batch)
        loss = prototypical_loss(distance)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/accuracy", episode_accuracy(distance).mean(), prog_bar=True)
        self.episodes_seen += len(distance) * self.trainer.world_size
        return loss

    def validation_step(self, batch: Episodes, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Episodes, batch_idx: int) -> None:
        self.test_accuracies.append(self._evaluate(batch, "test"))

    def _evaluate(self, batch: Episodes, stage: str) -> Tensor:
        """Logs the means over the episodes; returns the episodes' accuracies, ``(E,)``."""
        distance = self.episode_distances(batch)
        accuracy = episode_accuracy(distance)
        means = {"loss": prototypical_loss(distance), "accuracy": accuracy.mean()}
        self.log_means(stage, means, len(distance), prog_bar=stage == "val")
        return accuracy

    def on_test_start(self) -> None:
        super().on_test_start()
        self.test_accuracies = []

    def on_test_epoch_end(self) -> None:
        accuracy = in_float64(gather_rows(self.trainer, torch.cat(self.test_accuracies)))
        figures = {"test/error": 1 - float(accuracy.mean())}
        if len(accuracy) > 1:
            figures["test/accuracy_ci95"] = 1.96 * float(accuracy.std()) / math.sqrt(len(accuracy))
        self.log_dict(figures, sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_callable(encoder_groups(self, self.encoder, self.encoder_lr))
        every = self.lr_halving_episodes
        if every is None:
            return optimizer
        schedule = LambdaLR(optimizer, lambda step: 0.5 ** (self.episodes_seen // every))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["protonet"] = {"episodes_seen": self.episodes_seen, "inverted": self.inverted}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get("protonet", {})
        self.episodes_seen = state.get("episodes_seen", 0)
        self.inverted = state.get("inverted", False)

    @torch.no_grad()
    def prototypes(self, support: LabeledImages) -> Tensor:
        """The prototypes ``(N, D)`` of classes 0 .. N - 1, of each of which ``support`` has one or more images.

        The images are floats in [0, 1] of the polarity that the model was trained on (see :meth:`polarized`). Call
        ``eval()`` first.
        """
        embedding = torch.cat([self(part) for part in support.image.split(256)])
        count = support.label.bincount()
        total = embedding.new_zeros(len(count), embedding.shape[1]).index_add_(0, support.label, embedding)
        return total / count[:, None]

    @torch.no_grad()
    def classify(self, image: Tensor, prototype: Tensor) -> Tensor:
        """The probabilities ``(B, N)`` of the classes with the given prototypes, for images ``(B, C, H, W)``."""
        return (-self.distances(self(image), prototype)).softmax(-1)

    def polarized(self, image: Tensor) -> Tensor:
        """Pictures in [0, 1] as the model was trained to see them: inverted if its training data invert theirs."""
        return 1 - image if self.inverted else image

    polarised = polarized  # the name until version 0.2

    def on_predict_start(self) -> None:
        super().on_predict_start()
        data = self.data
        assert isinstance(data, SupportQuery)  # as `setup` has checked
        image, label = data.support_images()
        support = LabeledImages(self.polarized(image.to(self.device)), label.to(self.device))
        self.known, self.class_names = self.prototypes(support), data.class_names

    def predict_step(self, batch: LabeledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(self.classify(self.polarized(batch.image), self.known))
