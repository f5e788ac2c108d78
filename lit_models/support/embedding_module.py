"""What a network of embeddings logs in validation and test, whatever it was trained by."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional

from datamodules import ImageDataModule, LabeledImages
from datamodules.base import SANITY_IMAGES
from datamodules.loading.samplers import ClassBalancedBatches
from lit_models.errors import ModelError
from lit_models.losses.triplet import TripletLoss
from lit_models.metrics.retrieval import (
    centroid_scores,
    class_centroids,
    first_of_each_class,
    nearest,
    neighbor_votes,
    retrieval,
    share_of_hits,
)
from lit_models.support.checks import averages_weights
from lit_models.support.classes import Classifier
from lit_models.support.lightning_internals import data_of
from lit_models.support.plain_batches import reference_batches
from lit_models.support.ranks import batch_weight, gather_on_device

EVALUATED_CLASSES, EVALUATED_SAMPLES = 32, 4
"""P and K of the batches of embeddings of which the triplet loss is measured."""


class EmbeddingEvaluation:
    """Measures the embeddings of a split by reference images, and by the other images of the split.

    Args:
        num_classes: Number of classes.
        neighbors: Reference images that vote in k-nearest-neighbor classification.
    """

    def __init__(self, num_classes: int, neighbors: int) -> None:
        self.num_classes, self.neighbors = num_classes, neighbors
        self.start(torch.empty(0, 1), torch.empty(0, dtype=torch.int64))

    def start(self, reference: Tensor, label: Tensor) -> None:
        """Begins a split, with the embeddings ``(N, D)`` and labels of the reference images."""
        self.reference, self.label = reference, label
        self.centroid = class_centroids(reference, label, self.num_classes)
        self._evaluated: list[tuple[Tensor, Tensor]] = []

    def add(self, embedding: Tensor, label: Tensor) -> None:
        """Adds a batch of the split, on this rank."""
        self._evaluated.append((embedding, label))

    def scores(self, embedding: Tensor) -> dict[str, Tensor]:
        """Scores of the classes, ``(B, num_classes)``: "centroid" and "knn"."""
        with torch.autocast(embedding.device.type, enabled=False):
            square, row = nearest(embedding, self.reference, min(self.neighbors, len(self.reference)))
            votes = neighbor_votes(square, self.label[row], self.num_classes)
            return {"centroid": centroid_scores(embedding, self.centroid), "knn": votes}

    def split(self) -> tuple[Tensor, Tensor]:
        """The embeddings and labels of the split, of all ranks."""
        own, label = (torch.cat(values) for values in zip(*self._evaluated, strict=True))
        return gather_on_device(own), gather_on_device(label)

    def retrieval(self, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """The means over all ranks' queries, each of which is searched among the others; nan without any."""
        own, own_label = (torch.cat(values) for values in zip(*self._evaluated, strict=True))
        embedding, label = self.split()
        itself = torch.arange(len(embedding), device=own.device)[rank::world_size]
        values = retrieval(own, own_label, embedding, label, itself)
        return {name: gather_on_device(one).nanmean() for name, one in values.items()}


def embedded(module: "EmbeddingModule", rows: Tensor) -> tuple[Tensor, Tensor]:
    """Embeds training images, not augmented, on all ranks.

    Args:
        module: The model, attached to its trainer, with ``embed(image)``.
        rows: Rows of the training split.

    Returns:
        ``(N, D)`` and the labels ``(N,)``, of all rows.
    """
    trainer = module.trainer
    data = data_of(trainer)
    assert isinstance(data, ImageDataModule)
    own = []
    for part in rows[trainer.global_rank :: trainer.world_size].split(data.eval_batch_size):
        batch = module.transfer_batch_to_device(data.train_set.__getitems__(part), module.device, 0)
        plugin = trainer.precision_plugin
        with plugin.forward_context():
            image = plugin.convert_input(data.transform(batch, training=False)).image
            own.append((module.embed(image), batch.label))
    embedding, label = (gather_on_device(torch.cat(values)) for values in zip(*own, strict=True))
    return embedding, label


def embedded_of_loader(module: "EmbeddingModule", per_class: int | None) -> tuple[Tensor, Tensor]:
    """Embeds the images of a user's own training loader, as it gives them, on all ranks.

    Args:
        module: The model, attached to its trainer, with ``embed(image)``.
        per_class: The first so many of each class; all if None.

    Returns:
        ``(N, D)`` and the labels ``(N,)``.
    """
    plugin = module.trainer.precision_plugin
    own = []
    for batch in reference_batches(module, module.num_classes, per_class):
        with plugin.forward_context():
            image, label = module.transfer_batch_to_device(batch, module.device, 0)
            own.append((module.embed(image), label))
    if not own:
        raise ModelError(
            f"{type(module).__name__} is measured with training images at hand: give the Trainer a data module that "
            "has them."
        )
    embedding, label = (gather_on_device(torch.cat(values)) for values in zip(*own, strict=True))
    return embedding, label


class EmbeddingModule(Classifier):
    """Base of networks with ``features``, ``compared`` (features to embeddings) and ``scores`` (features to logits).

    Logged, ``val/…`` and ``test/…``:

    - ``loss`` as in training (of triplets: of batches of 32 classes x 4 embeddings); ``cross_entropy``, the mean
      −log p of the right class in nats, to compare losses by; ``accuracy`` and ``accuracy_top5`` of the classifier (of
      triplets: of the nearest centroids).
    - The same from nothing but embeddings: ``centroid_accuracy``, ``centroid_accuracy_top5`` by the nearest centroids;
      ``knn_accuracy``, ``knn_accuracy_top5`` by the nearest neighbors among the reference images, which vote with the
      weight 1 / distance.
    - Retrieval of each image's class among the other images of its split: ``map_at_r``, ``mean_average_precision``,
      ``r_precision`` and ``recall_at_1``, ``recall_at_5``, ``recall_at_10``; see :mod:`lit_models.metrics.retrieval`.
      If no class of the split was trained on (:class:`datamodules.UnseenClasses`), only these are logged, and the loss
      of triplets.
    - ``train/centroid_accuracy``: of the reference images themselves, whenever there is a validation.

    Reference images are training images, not augmented, embedded by the network as it is: all of them in a test, the
    first ``references_per_class`` in validation.

    Args:
        num_classes: Number of classes that are trained on.
        references_per_class: Reference images of each class in validation; all training images if None.
        neighbors: Reference images that vote.
    """

    loss: str
    centroid: Tensor
    head: str
    """The layers between encoder and embedding, which a checkpoint must have, too."""

    def __init__(self, num_classes: int, references_per_class: int | None, neighbors: int) -> None:
        super().__init__()
        self.num_classes, self.references_per_class = num_classes, references_per_class
        self.evaluation = EmbeddingEvaluation(num_classes, neighbors)

    @abstractmethod
    def features(self, image: Tensor) -> Tensor:
        """``(B, D)`` of images ``(B, C, H, W)`` in [0, 1]."""

    def embed(self, image: Tensor) -> Tensor:
        """The embeddings ``(B, D)`` of images ``(B, C, H, W)`` in [0, 1], as their distances are taken."""
        return self.compared(self.features(image))

    @abstractmethod
    def compared(self, feature: Tensor) -> Tensor:
        """Features as embeddings, whose distances count."""

    @abstractmethod
    def scores(self, feature: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of features."""

    @abstractmethod
    def classification_loss(self, feature: Tensor, score: Tensor, label: Tensor) -> Tensor:
        """The loss of a held-out batch."""

    @abstractmethod
    def triplet_loss(self, embedding: Tensor, label: Tensor) -> TripletLoss:
        """The triplet loss of embeddings ``(B, D)``."""

    def keep_centroids(self, evaluation: EmbeddingEvaluation) -> None:
        """Keeps what predictions need of the reference images."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["head"] = self.head

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if (head := checkpoint.get("head", self.head)) != self.head:
            raise ModelError(
                f"The checkpoint's head is {head} outputs, the model's {self.head}: leave --model.head and "
                "--model.embedding_dim as they were."
            )

    def on_predict_start(self) -> None:
        super().on_predict_start()
        if self.loss == "triplet" and not self.centroid.any():
            raise ModelError(
                f"{type(self).__name__}, trained by triplets, predicts by the class centroids of its last validation, "
                "and this one has had none: train it for one more epoch, without --trainer.limit_val_batches 0."
            )

    def on_validation_epoch_start(self) -> None:
        self._embed_references(1 if self.trainer.sanity_checking else self.references_per_class)

    def on_test_epoch_start(self) -> None:
        self._embed_references(None)

    def _embed_references(self, per_class: int | None) -> None:
        """Embeds training images, the first ``per_class`` of each class (all if None), and finds the centroids."""
        data = self.data
        if isinstance(data, ImageDataModule):
            label = data.train_set.column("label")
            rows = torch.arange(len(label)) if per_class is None else first_of_each_class(label.cpu(), per_class)
            if self.trainer.sanity_checking:  # a few show that it works
                rows = rows[: SANITY_IMAGES * self.trainer.world_size]
            self.evaluation.start(*embedded(self, rows))
        else:
            self.evaluation.start(*embedded_of_loader(self, per_class))
        if not self.trainer.sanity_checking:  # which comes before the first step
            self.keep_centroids(self.evaluation)

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        """Returns the logits, for callbacks."""
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: LabeledImages, stage: str) -> Tensor:
        """Logs each batch's losses and accuracies; returns the logits."""
        feature, label = self.features(batch.image), batch.label
        score, embedding = self.scores(feature), self.compared(feature)
        self.evaluation.add(embedding, label)
        if self.classes_are_unseen:
            return score
        values = {f"{stage}/cross_entropy": functional.cross_entropy(score, label)}
        if self.loss != "triplet":
            values[f"{stage}/loss"] = self.classification_loss(feature, score, label)
        for name, by in {"": score, **self.evaluation.scores(embedding)}.items():
            kind = f"{stage}/{name}_accuracy" if name else f"{stage}/accuracy"
            # Logits in bfloat16 are often equal; `argmax` takes the first of them, as the reports do, `topk` any.
            values[kind] = share_of_hits(by.argmax(1, keepdim=True), label)
            values[f"{kind}_top5"] = share_of_hits(by.topk(min(5, self.num_classes)).indices, label)
        size = batch_weight(len(label))
        accuracy = f"{stage}/accuracy"
        self.log(accuracy, values.pop(accuracy), batch_size=size, sync_dist=True, prog_bar=stage == "val")
        self.log_dict(values, batch_size=size, sync_dist=True)
        return score

    def joined(self, values: Tensor) -> Tensor:
        """The rows of all ranks, ``(world_size * B, ...)``, through which gradients flow back to each rank's own.

        Each rank then has the full loss, and the sum of all ranks' gradients of it, of which DDP takes the mean.
        """
        joined = self.all_gather(values, sync_grads=values.requires_grad)
        assert isinstance(joined, Tensor)
        return joined.view(-1, *values.shape[1:])

    @property
    def classes_are_unseen(self) -> bool:
        """Whether the images are of other classes than those that are trained on."""
        return self.facts.unseen

    def on_validation_epoch_end(self) -> None:
        self._evaluate_split("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            if averages_weights(self.trainer) and not self.trainer.sanity_checking:
                # The trained weights are back in place of their average, which follows their centroids, too.
                self.keep_centroids(self.evaluation)
            scores = centroid_scores(self.evaluation.reference, self.evaluation.centroid)
            accuracy = share_of_hits(scores.argmax(1, keepdim=True), self.evaluation.label)
            names = ["train/centroid_accuracy", *["train/accuracy"] * (self.loss == "triplet")]
            self.log_dict(dict.fromkeys(names, accuracy), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self._evaluate_split("test")

    def _evaluate_split(self, stage: str) -> None:
        """Logs what is measured over all images of the split."""
        found = self.evaluation.retrieval(self.trainer.global_rank, self.trainer.world_size)
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()}, sync_dist=True)
        if self.loss == "triplet":
            self.log(f"{stage}/loss", self._split_triplet_loss(*self.evaluation.split()), sync_dist=True)

    def _split_triplet_loss(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The mean triplet loss of batches of P classes x K samples of a split's embeddings, always the same ones."""
        sizes = label.bincount()
        samples = min(EVALUATED_SAMPLES, int(sizes.max()))
        rows = (sizes[label] >= samples).nonzero().flatten()
        classes = min(EVALUATED_CLASSES, int((sizes >= samples).sum()))
        batches = ClassBalancedBatches(label[rows].cpu(), classes, samples).epoch(0)
        return torch.stack([self.triplet_loss(embedding[rows[i]], label[rows[i]]).loss for i in batches]).mean()
