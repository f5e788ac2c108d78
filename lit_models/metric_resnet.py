"""ResNet18 trained by three losses, to compare them on equal terms: cross-entropy, the triplet loss (Hermans, Beyer &
Leibe 2017, https://arxiv.org/abs/1703.07737) and the center loss (Wen, Zhang, Li & Qiao 2016,
https://ydwen.github.io/papers/WenECCV16.pdf).

An encoder f turns an image x_i of class y_i into an embedding f_i, of which is learned

    cross_entropy   L_S = E −log p(y_i | f_i), p being the softmax of a linear layer;
    center          L_S + λ/2 E ‖f_i − c_{y_i}‖² (Wen et al., eq. 5). Each class's center c_j follows its embeddings:
                    after each batch c_j ← c_j − α Σ_{y_i = j} (c_j − f_i) / (1 + n_j) (eq. 4), n_j being its images;
    triplet         E ln(1 + exp(D(a, p) − D(a, n))), or E [m + D(a, p) − D(a, n)]₊, over anchors a with the farthest
                    positive p and the nearest negative n of the batch (Hermans et al., eq. 5). A batch is P classes x K
                    images. There is no linear layer: an image is of the class whose centroid, the mean embedding of its
                    training images, is the nearest.

Differences from the papers:

1. One encoder for all losses. Hermans et al. train a ResNet-50 and a smaller network on persons, Wen et al. a network
   with local convolutions on faces.
2. The triplet loss: the paper's head (a linear layer to 1,024, batch normalization, ReLU, a linear layer to 128) takes
   ``--model.head mlp``. By default embeddings are the encoder's averaged features, after a ReLU, and not negative. The
   head starts with PyTorch's initial weights; in the authors' code its last layer starts orthogonal.
3. The triplet loss: one cycle of the learning rate and clipped gradients. The paper's rate of Adam is constant for
   15,000 steps and decays until step 25,000, with β₁ = 0.5 while it does. Images are cropped after padding, where the
   paper crops images enlarged by 1/8; nothing is augmented in the test. An epoch has as many batches as would show
   every image once; the authors' shows each person once. A class with fewer than K images is refused; the paper
   repeats them.
4. The center loss: the paper's features are 512 outputs of a linear layer, ``--model.embedding_dim 512``. By default
   they are the encoder's averaged features. One cycle, 15 epochs in batches of 128, clipped gradients and label
   smoothing replace batches of 256 and a rate of 0.1 that is divided by 10 after 16,000 and 24,000 of 28,000 steps.
   Images are cropped after padding and mirrored, in the paper only mirrored.
5. The center loss: the paper joins the features of an image and of its mirror image, reduces them by PCA and compares
   by the cosine. Here they are compared by Euclidean distance, as they are.
6. The losses are means over images, so the learning rate need not change with the batch size. As both sums of eq. 5
   become means, λ is the paper's (0.008 in the authors' code). Centers start at 0 and follow by eq. 4; in the code they
   start as Xavier's weights and are moved by SGD with the network's rate and momentum, for faces with weight decay.
7. Under DDP the triplets, and the batches that the centers follow, are of all ranks' images together.
8. Probabilities of a network trained by triplets are softmax(−β ‖f − centroid‖²), β being fitted to training images.
9. Weight decay is for the weights of convolutions and linear layers only, not for biases and batch normalization (He
   et al. 2019, https://arxiv.org/abs/1812.01187, section 3.1).
10. The center loss's toy (``encoder: lenet``, section 3.1): no activation follows the layer of two features, where the
    authors' code has a PReLU, and the classifier after it has biases, which the code leaves out. The last pooling has
    windows of 2x2, in the code of 3x3. Weights start as PyTorch's; the code starts from Xavier's and trains biases at
    twice the rate. Gradients are clipped. The configuration has a quarter of the width, λ = 0.1 (the code 0.01), 5
    epochs at a constant rate (the code 10,000 steps, 21 epochs, with a rate that falls by a fifth twice), and images
    in [0, 1] (in the code [−1, 1]).
11. The ResNet starts with He's initial weights, or pretrained ones, and batch normalization's scales at 1, as in
    torchvision. Images are normalized by ImageNet's mean and deviation; the authors' code of the triplet loss subtracts
    the mean only, Wen et al. bring images to [−1, 1]. The checkpoint is chosen by validation accuracy, not by length.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from datamodules import LabeledImages
from lit_models.errors import ModelError
from lit_models.losses.center import RULES, CenterRule, center_loss, require_center
from lit_models.losses.precision import at_least_float32
from lit_models.losses.triplet import MININGS, Margin, Mining, TripletLoss, distances
from lit_models.metrics.retrieval import best_sharpness, centroid_scores
from lit_models.networks.backbones import Backbone
from lit_models.networks.encoders import build_encoder, load_encoder, require_encoder, train_unless_frozen
from lit_models.networks.heads import Head, embedding_head
from lit_models.networks.resnet import ResNet18
from lit_models.optimizers import decayed_weights, with_one_cycle
from lit_models.support.checks import (
    require_at_least,
    require_fraction,
    require_normalization,
    require_positives,
    require_several_images,
)
from lit_models.support.classes import CLASSIFIER
from lit_models.support.embedding_module import EmbeddingEvaluation, EmbeddingModule
from lit_models.support.pretrained import StartsFromWeights


class MetricResNet(StartsFromWeights, EmbeddingModule):
    """ResNet18 on images in [0, 1], by default with 64 pixels and 200 classes as in Tiny ImageNet.

    Logged in training: ``train/loss``, ``train/accuracy``, each batch's values (networks trained by triplets have no
    classifier; theirs is that of the reference images); ``train/center_loss``, ½ ‖f − c‖² without its weight;
    ``train/active_triplets``, the share of the mined triplets with ``D(a, p) + m > D(a, n)``, m = 0 if it is soft. For
    what is logged in evaluation see :class:`lit_models.support.embedding_module.EmbeddingModule`.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        num_classes: Number of classes.
        loss: "cross_entropy", "triplet" or "center".
        encoder: "resnet18"; "conv4", the few-shot networks' four blocks; "lenet" for the center loss's toy (LeNet++;
            give it ``embedding_dim: 2``); ``torchvision:NAME`` or ``timm:NAME`` (extra ``relit[timm]``), with the
            library's normalization in place of ``mean`` and ``std``; or ``MODULE.NAME`` of a user-defined network
            (:func:`lit_models.networks.user_network.register_encoder`).
        freeze_encoder: Leave the encoder as it is; train the head and the classifier only.
        encoder_lr: Learning rate of the encoder; the optimizer's if None.
        stem: "3x3", a convolution that keeps the size; or "7x7", the paper's convolution and max-pooling, which leave
            the first stage a sixteenth of the pixels.
        feature_maps: Channels of the first stage.
        head: What turns the encoder's features into embeddings: "linear", a layer of ``embedding_dim`` outputs (none if
            that is None); or "mlp", a layer of 1,024 outputs, batch normalization, ReLU and a layer of
            ``embedding_dim`` outputs (128 if None), as Hermans et al. have it.
        embedding_dim: Size of the embeddings, 128 for Hermans et al. and 512 for Wen et al.; if None, that of the
            encoder's averaged features (``8 * feature_maps``) or of the head "mlp".
        pretrained: Weights of the encoder to start from: "imagenet" for torchvision's or timm's, or a file (``.pth``,
            ``.ckpt``, ``.safetensors``).
        mean: What is subtracted from each channel of an image (by default ImageNet's mean), one number a channel.
        std: What each channel is then divided by.
        label_smoothing: Share of the label that is spread over all classes in cross-entropy.
        mining: Which triplets of a batch count: "batch_hard", the farthest positive and the nearest negative of each
            anchor; "semi_hard", the nearest negative that is farther than the positive, for each anchor and positive;
            "batch_all", all that have a loss.
        margin: m of the triplet loss, or "soft".
        squared_distance: D is the squared Euclidean distance, not the distance.
        unit_length: Embeddings are compared by their direction: scaled to length 1 in the triplet loss, for centroids
            and for neighbors.
        center_weight: λ.
        center_rule: How centers follow: "paper" (eq. 4), or "sgd", a step of gradient descent on the loss E ½ ‖f − c‖².
        center_rate: α, or the learning rate of that step. (Its gradient is a mean over the batch, of which a class has
            a small part: it takes a rate of about half the number of classes.)
        references_per_class: Reference images of each class in validation; all training images if None.
        knn_neighbors: Neighbors that vote.
        schedule: "constant" learning rate, or "one_cycle": up from a 25th to the optimizer's rate in 30 % of the steps,
            then down to nothing, along half cosines (Smith & Topin 2019, https://arxiv.org/abs/1708.07120), at constant
            momentum.
        optimizer: Optimizer of all parameters.
    """

    exports = CLASSIFIER
    trained_for = ("predict",)  # by a classifier, or by centroids

    center: Tensor
    centroid: Tensor
    sharpness: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        num_classes: int = 200,
        loss: Literal["cross_entropy", "triplet", "center"] = "cross_entropy",
        encoder: str = "resnet18",
        freeze_encoder: bool = False,
        encoder_lr: float | None = None,
        stem: Literal["3x3", "7x7"] = "3x3",
        feature_maps: int = 64,
        head: Head = "linear",
        embedding_dim: int | None = None,
        pretrained: str | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        label_smoothing: float = 0.0,
        mining: Mining = "batch_hard",
        margin: Margin = "soft",
        squared_distance: bool = False,
        unit_length: bool = False,
        center_weight: float = 0.003,
        center_rule: CenterRule = "paper",
        center_rate: float = 0.5,
        references_per_class: int | None = 50,
        knn_neighbors: int = 20,
        schedule: Literal["constant", "one_cycle"] = "constant",
        optimizer: OptimizerCallable = lambda p: SGD(p, lr=1e-3, momentum=0.9),
    ) -> None:
        require_at_least(1, image_size=image_size, channels=channels, feature_maps=feature_maps)
        require_at_least(
            1, references_per_class=references_per_class, knn_neighbors=knn_neighbors, embedding_dim=embedding_dim
        )
        require_at_least(2, num_classes=num_classes)
        require_normalization(channels, mean, std)
        require_fraction(label_smoothing=label_smoothing)
        if margin != "soft" and margin < 0:
            raise ModelError(f"margin is {margin}; it must be at least 0, or soft.")
        require_center(center_weight, center_rate, center_rule)
        require_encoder(encoder, image_size, channels, pretrained, freeze_encoder, others=("resnet18", "lenet"))
        if freeze_encoder and loss == "triplet" and embedding_dim is None and head == "linear":
            raise ModelError("With a frozen encoder the triplet loss trains a head only: set --model.embedding_dim.")
        super().__init__(num_classes, references_per_class, knn_neighbors)
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.loss, self.pretrained, self.label_smoothing = loss, pretrained, label_smoothing
        self.mining, self.margin, self.squared_distance = MININGS[mining], margin, squared_distance
        self.center_weight, self.center_rate, self.move_centers = center_weight, center_rate, RULES[center_rule]
        self.unit_length, self.schedule = unit_length, schedule
        self.optimizer_callable = optimizer

        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.encoder = build_encoder(encoder, image_size, channels, feature_maps, freeze_encoder, stem)
        self.freeze_encoder, self.encoder_lr = freeze_encoder, encoder_lr
        self.projection, size = embedding_head(self.encoder.out_features, head, embedding_dim)
        self.head = f"{head}, {size}"
        if loss == "triplet":
            self.register_buffer("centroid", torch.zeros(num_classes, size))
            self.register_buffer("sharpness", torch.ones(()))
        else:
            self.classifier = nn.Linear(size, num_classes)
        if loss == "center":
            self.register_buffer("center", torch.zeros(num_classes, size))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        train_unless_frozen(self.encoder, self.freeze_encoder, mode)
        return self

    # --- from images to classes ---------------------------------------------------------------------------------------

    def features(self, image: Tensor) -> Tensor:
        """``(B, D)`` in float32 of images ``(B, C, H, W)`` in [0, 1]: what the classifier and the center loss get."""
        self.start_from_weights()
        if not isinstance(self.encoder, Backbone):  # those normalize by themselves
            image = (image - self.mean) / self.std
        return at_least_float32(self.projection(self.encoder(image)))

    def compared(self, feature: Tensor) -> Tensor:
        """Features as embeddings: of length 1 with ``unit_length``."""
        return functional.normalize(feature) if self.unit_length else feature

    def scores(self, feature: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` in float32 of features ``(B, D)``."""
        if self.loss != "triplet":
            return at_least_float32(self.classifier(feature))
        with torch.autocast(feature.device.type, enabled=False):
            return self.sharpness * centroid_scores(self.compared(feature), self.centroid)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of images ``(B, C, H, W)`` in [0, 1]."""
        return self.scores(self.features(image))

    # --- training -----------------------------------------------------------------------------------------------------

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("pretrained", "mean", "std")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        if isinstance(self.encoder, ResNet18) and self.encoder.size_after_last_stage(self.image_shape[1]) == 1:
            require_several_images(self)
        if self.schedule == "one_cycle" and self.trainer.max_epochs == self.trainer.max_steps == -1:
            raise ModelError("A one-cycle schedule needs to know its end: set --trainer.max_epochs or max_steps.")
        if self.loss == "triplet":
            require_positives(self)

    def load_starting_weights(self) -> None:
        if self.pretrained is not None:
            load_encoder(self.encoder, self.pretrained, normalizes=True)

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        feature = self.features(batch.image)
        if self.loss == "triplet":
            loss, active = self.triplet_loss(self.joined(self.compared(feature)), self.joined(batch.label))
            self.log("train/active_triplets", active)
        else:
            score = self.scores(feature)
            loss = self.classification_loss(feature, score, batch.label)
            self.log("train/accuracy", (score.argmax(1) == batch.label).float().mean())
        if self.loss == "center":
            self.log("train/center_loss", center_loss(feature, batch.label, self.center).detach())
            self.update_centers(feature, batch.label)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def triplet_loss(self, embedding: Tensor, label: Tensor) -> TripletLoss:
        """The loss of embeddings ``(B, D)`` of classes ``(B,)``, in float32."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.mining(distances(embedding, self.squared_distance), label, self.margin)

    @torch.no_grad()
    def update_centers(self, feature: Tensor, label: Tensor) -> None:
        """Lets the centers follow the features ``(B, D)`` of all ranks."""
        with torch.autocast(feature.device.type, enabled=False):
            joined = self.joined(feature.detach()), self.joined(label)
            self.center.copy_(self.move_centers(*joined, self.center, self.center_rate))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_callable(decayed_weights(self, self.encoder, self.encoder_lr))
        return optimizer if self.schedule == "constant" else with_one_cycle(optimizer, self.trainer)

    def classification_loss(self, feature: Tensor, score: Tensor, label: Tensor) -> Tensor:
        """The loss that a batch has by itself; that of triplets is measured in batches of P classes x K images."""
        loss = functional.cross_entropy(score, label, label_smoothing=self.label_smoothing)
        if self.loss == "center":
            loss = loss + self.center_weight * center_loss(feature, label, self.center)
        return loss

    def keep_centroids(self, evaluation: EmbeddingEvaluation) -> None:
        if self.loss == "triplet":
            self.centroid.copy_(evaluation.centroid)
            score = centroid_scores(evaluation.reference, self.centroid)
            self.sharpness.copy_(best_sharpness(score, evaluation.label))
