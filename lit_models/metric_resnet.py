"""ResNet18 trained by three losses, to compare them on equal terms: cross-entropy, the triplet loss (Hermans, Beyer &
Leibe 2017, https://arxiv.org/abs/1703.07737) and the center loss (Wen, Zhang, Li & Qiao 2016,
https://ydwen.github.io/papers/WenECCV16.pdf).

An encoder f turns an image x_i of class y_i into an embedding f_i, of which is learned

    cross_entropy   L_S = E −log p(y_i | f_i), p being the softmax of a linear layer;
    center          L_S + λ/2 E ‖f_i − c_{y_i}‖² (Wen et al., eq. 5). Each class's centre c_j follows its embeddings:
                    after each batch c_j ← c_j − α Σ_{y_i = j} (c_j − f_i) / (1 + n_j) (eq. 4), n_j being its images;
    triplet         E ln(1 + exp(D(a, p) − D(a, n))), or E [m + D(a, p) − D(a, n)]₊, over anchors a with the farthest
                    positive p and the nearest negative n of the batch (Hermans et al., eq. 5). A batch is P classes x K
                    images. There is no linear layer: an image is of the class whose centroid, the mean embedding of its
                    training images, is the nearest.

Differences from the papers:

1. The losses are means over images, so that the learning rate need not change with the batch size. As both sums of
   eq. 5 become means, λ is the paper's.
2. Under DDP the triplets are those of all ranks' images together, and so are the batches that the centres follow:
   several processes do what one would with their joined batch.
3. Probabilities of a network trained by triplets are softmax(−β ‖f − centroid‖²), β being fitted to training images.
4. Weight decay is for the weights of convolutions and linear layers only, not for biases and batch normalisation (He
   et al. 2019, https://arxiv.org/abs/1812.01187, section 3.1).
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from datamodules import ImageDataModule, LabelledImages
from datamodules.loading.samplers import ClassBalancedBatches
from lit_models.errors import ModelError
from lit_models.losses.center import center_loss, moved_by_rule, moved_by_sgd
from lit_models.losses.precision import at_least_float32
from lit_models.losses.triplet import MININGS, Margin, Mining, TripletLoss, distances
from lit_models.metrics.retrieval import (
    centroid_scores,
    class_centroids,
    first_of_each_class,
    fitted_sharpness,
    hits,
    nearest,
    neighbour_votes,
)
from lit_models.networks.resnet import ResNet18, load_weights
from lit_models.optimizers import one_cycle
from lit_models.support.checks import require_image_shape, require_labels, require_num_classes, require_several_images
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.parts import Part
from lit_models.support.ranks import batch_weight, gather_on_device

EVALUATED_CLASSES, EVALUATED_SAMPLES = 32, 4
"""P and K of the batches of embeddings of which the triplet loss is measured in evaluation."""


class MetricResNet(LightningModule):
    """ResNet18 on images in [0, 1], by default with 64 pixels and 200 classes as in Tiny ImageNet.

    Logged, for every loss:

    - ``train/loss``, ``train/accuracy``: each batch's values. (Networks trained by triplets have no classifier; theirs
      is the accuracy of the reference images, see below.) ``train/center_loss``: ½ ‖f − c‖² without its weight.
      ``train/active_triplets``: the share of the mined triplets with ``D(a, p) + m > D(a, n)``, m = 0 if it is soft.
    - ``val/…`` and ``test/…``: ``loss`` as in training (of triplets: of batches of 32 classes x 4 embeddings);
      ``cross_entropy``, the mean −log p of the right class in nats, to compare losses by; ``accuracy`` and
      ``accuracy_top5`` of the classifier (of triplets: of the nearest centroids).
    - The same from nothing but embeddings: ``centroid_accuracy``, ``centroid_accuracy_top5`` by the nearest centroids;
      ``knn_accuracy``, ``knn_accuracy_top5`` by the nearest neighbours among the reference images, which vote with the
      weight 1 / distance; ``recall_at_1``, ``recall_at_5``, the share of images with an image of their class among
      their 1 or 5 nearest neighbours in the same split.
    - ``train/centroid_accuracy``: of the reference images themselves, whenever there is a validation.

    Reference images are training images, not augmented, embedded anew by the network as it is: all of them in a test,
    the first ``references_per_class`` in validation.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        num_classes: Number of classes.
        loss: "cross_entropy", "triplet" or "center".
        stem: "3x3", a convolution that keeps the size; or "7x7", the paper's convolution and max-pooling, which leave
            the first stage a sixteenth of the pixels.
        feature_maps: Channels of the first of the four stages.
        embedding_dim: Size of the embeddings, by a linear layer on top; if None, they are the encoder's ``8 *
            feature_maps`` averaged features.
        pretrained: Weights of a ResNet18 to start from: "imagenet" for torchvision's, or a file (``.pth``, ``.ckpt``,
            ``.safetensors``).
        mean: What is subtracted from each channel of an image (by default ImageNet's mean), one number a channel.
        std: What each channel is then divided by.
        label_smoothing: Share of the label that is spread over all classes in cross-entropy.
        mining: Which triplets of a batch count: "batch_hard", the farthest positive and the nearest negative of each
            anchor; "semi_hard", the nearest negative that is farther than the positive, for each anchor and positive;
            "batch_all", all that have a loss.
        margin: m of the triplet loss, or "soft".
        squared_distance: D is the squared Euclidean distance, not the distance.
        unit_length: Embeddings are compared by their direction: scaled to length 1 in the triplet loss, for centroids
            and for neighbours.
        center_weight: λ.
        center_rule: How centres follow: "paper" (eq. 4), or "sgd", a step of gradient descent on the loss E ½ ‖f − c‖².
        center_rate: α, or the learning rate of that step. (Its gradient is a mean over the batch, of which a class has
            a small part: it takes a rate of about half the number of classes.)
        references_per_class: Reference images of each class in validation; all training images if None.
        knn_neighbours: Neighbours that vote.
        schedule: "constant" learning rate, or "one_cycle": up from a 25th to the optimiser's rate in 30 % of the steps,
            then down to nothing, along half cosines (Smith & Topin 2019, https://arxiv.org/abs/1708.07120), at constant
            momentum.
        optimizer: Optimiser of all parameters.
    """

    exports = (
        Part("classifier", "forward", ("image",), "logits"),
        Part("encoder", "embed", ("image",), "embedding"),
    )

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
        stem: Literal["3x3", "7x7"] = "3x3",
        feature_maps: int = 64,
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
        center_rule: Literal["paper", "sgd"] = "paper",
        center_rate: float = 0.5,
        references_per_class: int | None = 50,
        knn_neighbours: int = 20,
        schedule: Literal["constant", "one_cycle"] = "constant",
        optimizer: OptimizerCallable = lambda p: SGD(p, lr=1e-3, momentum=0.9),
    ) -> None:
        for name, number, least in (
            ("image_size", image_size, 1),
            ("channels", channels, 1),
            ("num_classes", num_classes, 2),
            ("feature_maps", feature_maps, 1),
            ("embedding_dim", embedding_dim, 1),
            ("references_per_class", references_per_class, 1),
            ("knn_neighbours", knn_neighbours, 1),
        ):
            if number is not None and number < least:
                raise ModelError(f"{name} is {number}; it must be at least {least}.")
        for name, value in (("mean", mean), ("std", std)):
            if len(value) != channels or (name == "std" and min(value) <= 0):
                raise ModelError(
                    f"{name} is {list(value)}; it must have {channels} {'positive ' * (name == 'std')}numbers, one for "
                    "each of --model.channels."
                )
        if not 0 <= label_smoothing < 1:
            raise ModelError(f"label_smoothing is {label_smoothing}; it must be at least 0 and less than 1.")
        if margin != "soft" and margin < 0:
            raise ModelError(f"margin is {margin}; it must be at least 0, or soft.")
        if center_weight < 0 or center_rate <= 0 or (center_rule == "paper" and center_rate > 1):
            raise ModelError(
                f"center_weight is {center_weight} and center_rate {center_rate}; the weight must be at least 0, and "
                "the rate greater than 0, by the paper's rule at most 1."
            )
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.class_names: tuple[str, ...] = ()
        self.loss = loss
        self.pretrained = pretrained
        self.label_smoothing = label_smoothing
        self.mining, self.margin, self.squared_distance = MININGS[mining], margin, squared_distance
        self.unit_length = unit_length
        self.center_weight, self.center_rate = center_weight, center_rate
        self.move_centers = {"paper": moved_by_rule, "sgd": moved_by_sgd}[center_rule]
        self.references_per_class = references_per_class
        self.knn_neighbours = knn_neighbours
        self.schedule = schedule
        self.optimizer_callable = optimizer

        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.encoder = ResNet18(channels, feature_maps, stem)
        size = embedding_dim or self.encoder.out_features
        self.projection = nn.Linear(self.encoder.out_features, size) if embedding_dim else nn.Identity()
        if loss == "triplet":
            self.register_buffer("centroid", torch.zeros(num_classes, size))
            self.register_buffer("sharpness", torch.ones(()))
        else:
            self.classifier = nn.Linear(size, num_classes)
        if loss == "center":
            self.register_buffer("center", torch.zeros(num_classes, size))
        self._reference = self._reference_label = self._reference_centroid = torch.empty(0)
        self._evaluated: list[tuple[Tensor, Tensor]] = []
        self._restored = False

    # --- from images to classes ---------------------------------------------------------------------------------------

    def features(self, image: Tensor) -> Tensor:
        """``(B, D)`` in float32 of images ``(B, C, H, W)`` in [0, 1]: what the classifier and the center loss get."""
        return at_least_float32(self.projection(self.encoder((image - self.mean) / self.std)))

    def embed(self, image: Tensor) -> Tensor:
        """The embeddings ``(B, D)`` of images ``(B, C, H, W)`` in [0, 1], as their distances are taken."""
        return self.compared(self.features(image))

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

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)
        if stage == "predict":
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise ModelError("MetricResNet is measured with training images at hand: give it a data module of relit's.")
        require_num_classes(self, self.num_classes)
        require_labels(self)
        if stage != "fit":
            return
        self.class_names = tuple(data.class_names)
        if self.encoder.size_after_last_stage(self.image_shape[1]) == 1:
            require_several_images(self)
        if self.schedule == "one_cycle" and self.trainer.max_epochs == self.trainer.max_steps == -1:
            raise ModelError("A one-cycle schedule needs to know its end: set --trainer.max_epochs or max_steps.")
        images = data.batch_size * self.trainer.world_size
        if (
            self.loss == "triplet"
            and getattr(data, "classes_per_batch", None) is None
            and images < 2 * self.num_classes
        ):
            remedy = (
                "set --data.classes_per_batch 32 --data.samples_per_class 4"
                if hasattr(data, "classes_per_batch")
                else f"set --data.batch_size to {2 * self.num_classes} or more"
            )
            raise ModelError(
                f"The triplet loss needs several images of a class in a batch, and {images} images drawn from "
                f"{self.num_classes} classes hardly have them: {remedy}."
            )

    def on_fit_start(self) -> None:
        if self.pretrained is None or self._restored:
            return
        kept = load_weights(self.encoder, self.pretrained)
        if kept and self.trainer.is_global_zero:
            warnings.warn(
                f"The stem isn't that of {self.pretrained}, and starts untrained: {', '.join(kept)}.", stacklevel=1
            )

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        feature = self.features(batch.image)
        if self.loss == "triplet":
            loss, active = self.triplet_loss(self.joined(self.compared(feature)), self.joined(batch.label))
            self.log("train/active_triplets", active)
        else:
            score = self.scores(feature)
            loss = functional.cross_entropy(score, batch.label, label_smoothing=self.label_smoothing)
            accuracy = (score.argmax(1) == batch.label).float().mean()
            self.log("train/accuracy", accuracy)
        if self.loss == "center":
            distance = center_loss(feature, batch.label, self.center)
            loss = loss + self.center_weight * distance
            self.log("train/center_loss", distance.detach())
            self.update_centers(feature, batch.label)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def joined(self, values: Tensor) -> Tensor:
        """The rows of all ranks, ``(world_size * B, ...)``, through which gradients flow back to each rank's own.

        Each rank then has the whole loss, and the sum of all ranks' gradients of it, of which DDP takes the mean.
        """
        joined = self.all_gather(values, sync_grads=values.requires_grad)
        return cast(Tensor, joined).view(-1, *values.shape[1:])

    def triplet_loss(self, embedding: Tensor, label: Tensor) -> TripletLoss:
        """The loss of embeddings ``(B, D)`` of classes ``(B,)``, in float32."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.mining(distances(embedding, self.squared_distance), label, self.margin)

    @torch.no_grad()
    def update_centers(self, feature: Tensor, label: Tensor) -> None:
        """Lets the centres follow the features ``(B, D)`` of all ranks."""
        with torch.autocast(feature.device.type, enabled=False):
            joined = self.joined(feature.detach()), self.joined(label)
            self.center.copy_(self.move_centers(*joined, self.center, self.center_rate))

    def configure_optimizers(self) -> Any:
        parameters = list(self.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = self.optimizer_callable(groups)
        if self.schedule == "constant":
            return optimizer
        schedule = LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _learning_rate_factor(self, step: int) -> float:
        # The number of steps is known when the loader is there; the first step doesn't need it.
        return one_cycle(step, int(self.trainer.estimated_stepping_batches) if step else 1)

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._embed_references(1 if self.trainer.sanity_checking else self.references_per_class)

    def on_test_epoch_start(self) -> None:
        self._embed_references(None)

    def _embed_references(self, per_class: int | None) -> None:
        """Embeds training images, each rank its share, and finds the classes' centroids.

        Args:
            per_class: The first so many of each class; all if None.
        """
        self._evaluated = []
        data = cast(ImageDataModule, cast(Any, self.trainer).datamodule)
        label = data.train_set.column("label")
        rows = torch.arange(len(label)) if per_class is None else first_of_each_class(label.cpu(), per_class)
        rows = rows[self.trainer.global_rank :: self.trainer.world_size]
        own = []
        for part in rows.split(data.eval_batch_size):
            batch = self.transfer_batch_to_device(data.train_set.__getitems__(part), self.device, 0)
            plugin = self.trainer.precision_plugin
            with plugin.forward_context():
                image = plugin.convert_input(data.transform(batch, training=False)).image
                own.append((self.embed(image), batch.label))
        embedding, label = (gather_on_device(torch.cat(values)) for values in zip(*own, strict=True))
        self._reference, self._reference_label = embedding, label
        self._reference_centroid = class_centroids(embedding, label, self.num_classes)
        # Those of a sanity check, of an image a class before the first step, are none to be kept and predicted by.
        if self.loss == "triplet" and not self.trainer.sanity_checking:
            self.centroid.copy_(self._reference_centroid)
            self.sharpness.copy_(fitted_sharpness(centroid_scores(embedding, self.centroid), label))

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        """Returns the logits, for callbacks."""
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: LabelledImages, stage: str) -> Tensor:
        """Logs what is known of each batch; returns the logits."""
        feature, label = self.features(batch.image), batch.label
        score, embedding = self.scores(feature), self.compared(feature)
        self._evaluated.append((embedding, label))
        figures = {f"{stage}/cross_entropy": functional.cross_entropy(score, label)}
        if self.loss != "triplet":
            loss = functional.cross_entropy(score, label, label_smoothing=self.label_smoothing)
            if self.loss == "center":
                loss = loss + self.center_weight * center_loss(feature, label, self.center)
            figures[f"{stage}/loss"] = loss
        with torch.autocast(feature.device.type, enabled=False):
            square, row = nearest(embedding, self._reference, min(self.knn_neighbours, len(self._reference)))
            votes = neighbour_votes(square, self._reference_label[row], self.num_classes)
            by_centroid = centroid_scores(embedding, self._reference_centroid)
        for name, by in (("", score), ("centroid_", by_centroid), ("knn_", votes)):
            ranked = by.topk(min(5, self.num_classes)).indices
            figures[f"{stage}/{name}accuracy"] = hits(ranked[:, :1], label)
            figures[f"{stage}/{name}accuracy_top5"] = hits(ranked, label)
        accuracy = f"{stage}/accuracy"
        size = batch_weight(len(label))
        self.log(accuracy, figures.pop(accuracy), batch_size=size, sync_dist=True, prog_bar=stage == "val")
        self.log_dict(figures, batch_size=size, sync_dist=True)
        return score

    def on_validation_epoch_end(self) -> None:
        self._evaluate_split("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            scores = centroid_scores(self._reference, self._reference_centroid)
            accuracy = hits(scores.argmax(1, keepdim=True), self._reference_label)
            names = ["train/centroid_accuracy", *["train/accuracy"] * (self.loss == "triplet")]
            self.log_dict(dict.fromkeys(names, accuracy), sync_dist=True)
        self._forget()

    def on_test_epoch_end(self) -> None:
        self._evaluate_split("test")
        self._forget()

    def _evaluate_split(self, stage: str) -> None:
        """Logs what is known of the split as a whole only."""
        own, own_label = (torch.cat(values) for values in zip(*self._evaluated, strict=True))
        embedding, label = gather_on_device(own), gather_on_device(own_label)
        itself = torch.arange(len(embedding), device=own.device)[self.trainer.global_rank :: self.trainer.world_size]
        _, row = nearest(own, embedding, min(5, len(embedding) - 1), itself)
        recall = {f"{stage}/recall_at_{k}": hits(label[row[:, :k]], own_label) for k in (1, 5)}
        self.log_dict(recall, batch_size=batch_weight(len(own)), sync_dist=True)
        if self.loss == "triplet":
            self.log(f"{stage}/loss", self._split_triplet_loss(embedding, label), sync_dist=True)

    def _split_triplet_loss(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The mean triplet loss of batches of P classes x K samples of a split's embeddings, always the same ones."""
        sizes = label.bincount()
        samples = min(EVALUATED_SAMPLES, int(sizes.max()))
        rows = (sizes[label] >= samples).nonzero().flatten()
        classes = min(EVALUATED_CLASSES, int((sizes >= samples).sum()))
        batches = ClassBalancedBatches(label[rows].cpu(), classes, samples).epoch(0)
        return torch.stack([self.triplet_loss(embedding[rows[i]], label[rows[i]]).loss for i in batches]).mean()

    def _forget(self) -> None:
        self._evaluated = []
        self._reference = self._reference_label = self._reference_centroid = torch.empty(0)

    def on_predict_start(self) -> None:
        if self.loss == "triplet" and not self.centroid.any():
            raise ModelError(
                "MetricResNet, trained by triplets, predicts by the class centroids of its last validation, and this "
                "one has had none: train it for one more epoch, without --trainer.limit_val_batches 0."
            )

    def predict_step(self, batch: LabelledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(self(batch.image).softmax(1))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_names"] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = True
        self.class_names = tuple(checkpoint["class_names"])
