"""Impossible arguments of every method are refused by a sentence that names them, before anything is built."""

import pytest

from lit_models.errors import ModelError
from tests.methods import Settings
from tests.support.small_models import built

SIZES = "image_size is {}; it must be one of 16, 32, 64, 128, 256."
HINGE = "The hinge loss has no labels: leave data_label and label_noise out, or take loss: bce."
RESNET = "image_size is 16; architecture resnet needs one of 32, 48, 64, 128"
FRACTION = "it must be at least 0 and less than 1."
REFUSED: dict[str, list[tuple[Settings, str]]] = {
    "DCGAN": [
        ({"n_critic": 0}, "n_critic is 0; it must be at least 1."),
        ({"ema_decay": 1.5}, "ema_decay is 1.5; it must lie between 0 and 1 (0.999 is usual)."),
        ({"gradient_clip_norm": -1.0}, "gradient_clip_norm is -1.0; it must be positive, or null for no clipping."),
        ({"label_noise": -1.0}, "label_noise is -1.0; it must be at least 0 and less than 0.5."),
        ({"schedule_interval": "batch"}, "schedule_interval is batch; it must be epoch or step."),
        ({"image_size": 48}, SIZES.format(48)),
    ],
    "SNGAN": [
        ({"loss": "hinge", "label_noise": 0.1}, HINGE),
        ({"loss": "hinge", "data_label": 0}, HINGE),
        ({"label_noise": 0.7}, "label_noise is 0.7; it must be at least 0 and less than 0.5."),
        ({"image_size": 48}, SIZES.format(48)),
        ({"architecture": "resnet"}, RESNET),
        ({"r1_weight": -1.0}, "r1_weight is -1.0; it must not be negative."),
        (
            {"architecture": "cnn", "image_size": 20},
            "image_size is 20; architecture cnn needs a multiple of 8 from 16 on.",
        ),
    ],
    "WGAN": [
        ({"gradient_penalty_weight": 10.0}, "set clip_value to null, or gradient_penalty_weight to 0."),
        (
            {"clip_value": None},
            "Nothing bounds the critic's slope: set clip_value (0.01), gradient_penalty_weight",
        ),
        ({"clip_value": 0.0}, "clip_value is 0.0; it must be positive, or null for no clipping."),
        (
            {"clip_value": None, "gradient_penalty_weight": -1.0},
            "gradient_penalty_weight is -1.0; it must not be negative.",
        ),
        ({"n_critic": 0}, "n_critic is 0; it must be at least 1."),
        ({"architecture": "resnet"}, RESNET),
    ],
    "TripletGAN": [
        ({"embedding_dim": 0}, "embedding_dim is 0; it must be at least 1."),
        ({"margin": -1.0}, "margin is -1.0; it must not be negative."),
        ({"image_size": 17}, SIZES.format(17)),
    ],
    "LatentGAN": [
        ({"decoder_checkpoint": None}, "LatentGAN generates codes for a trained decoder: name an autoencoder's"),
        ({"image_size": 20}, SIZES.format(20)),
    ],
    "ConditionalGAN": [
        ({"num_classes": 0}, "num_classes is 0; it must be at least 1."),
        ({"embedding_dim": 0}, "embedding_dim is 0; it must be at least 1."),
        ({"image_size": 20}, SIZES.format(20)),
        ({"num_classes": 1, "matching_aware": True}, "matching_aware needs wrong classes, but num_classes is 1: set"),
        *(
            ({"architecture": "resnet", **other}, "architecture resnet has its own place for the class: set discrimi")
            for other in ({}, {"discriminator": "projection", "condition": "image"})
        ),
    ],
    "Pix2Pix": [
        ({"image_size": 48}, "image_size is 48; it must be one of 32, 64"),
        ({"lambda_l1": -1.0}, "lambda_l1 is -1.0; it must not be negative."),
        ({"dropout": 1.0}, f"dropout is 1.0; {FRACTION}"),
        ({"decay_start": 2.0}, "decay_start is 2.0; it must be from 0 to 1."),
        ({"patch_size": 71}, "patch_size is 71; it must be one of 1, 16, 34, 70"),
    ],
    "CycleGAN": [
        ({"image_size": 30}, "image_size is 30; it must be a multiple of 4, and at least 16."),
        ({"lambda_cycle": -1.0}, "lambda_cycle is -1.0, lambda_identity 0.5 and buffer_size 50; none may be negative."),
        ({"buffer_size": -1}, "lambda_cycle is 10.0, lambda_identity 0.5 and buffer_size -1; none may be negative."),
        ({"channels": 3, "source_channels": 1}, "sources have 1 channels and the targets 3: set --model.lambda_iden"),
    ],
    "VAE": [
        *(
            ({"x_sigma2": value}, f"x_sigma2 is {value}; it must be positive, from 1e-20 to 1e20.")
            for value in (0.0, -1.0, 1e-45, float("inf"), float("nan"))
        ),
        ({"latent_dim": 0}, "latent_dim is 0; it must be at least 1."),
        *(
            ({"kl_weight": value}, f"kl_weight is {value} and kl_warmup_steps 0; both must be finite, at least 0.")
            for value in (-1.0, float("inf"), float("nan"))
        ),
        ({"importance_samples": 0}, "importance_samples is 0; it must be at least 1."),
        ({"likelihood": "laplace"}, "likelihood is 'laplace'; it must be gaussian or bernoulli."),
        ({"variance": "none"}, "variance is 'none'; it must be fixed, learned or optimal."),
        (
            {"variance": "optimal", "likelihood": "bernoulli"},
            "variance is 'optimal', but a Bernoulli likelihood has none: leave it out.",
        ),
        *(
            ({"image_size": size}, f"image_size is {size}; it must be one of 8, 16, 32, 64, 128, 256, 512.")
            for size in (4, 28, 96, 1024)
        ),
    ],
    "DenoisingAutoencoder": [
        ({"noise_std": -0.1}, "noise_std is -0.1; it must be at least 0"),
        ({"latent_dim": 0}, "latent_dim is 0; it must be at least 1."),
        ({"max_rotation": 90.0}, "max_rotation is 90.0; it must be at least 0 and less than 90."),
        ({"max_scaling": 1.0}, f"max_scaling is 1.0; {FRACTION}"),
    ],
    "DigitClassifier": [
        ({"widths": []}, "widths is []; it must name at least one block of at least one feature map."),
        (
            {"image_size": 4, "widths": [2, 2, 2]},
            "image_size is 4, which can't be halved 3 times: shorten --model.widths.",
        ),
        ({"label_smoothing": 1.0}, f"label_smoothing is 1.0; {FRACTION}"),
        ({"max_lr": -0.01}, "max_lr is -0.01; it must be positive."),
    ],
    "TransferClassifier": [
        ({"folds": 1}, "folds is 1; it must be at least 2, or 0 for data with a validation split."),
        ({"dropout": 1.0}, f"dropout is 1.0; {FRACTION}"),
        ({"image_size": 48}, "image_size is 48; it must be one of 8, 16, 32"),
        ({"encoder_checkpoint": None}, "A frozen encoder must have learnt before: name an autoencoder's checkpoint"),
    ],
    "LayerwiseMLP": [
        ({"widths": []}, "widths is []; it must name at least one layer, each of at least 1 unit."),
        ({"widths": [10, 0]}, "widths is [10, 0]; it must name at least one layer, each of at least 1 unit."),
        (
            {"code_layer": 3},
            "code_layer is 3, but widths names 2 layers: set it to one of 1 to 2, or add layers.",
        ),
        ({"code_layer": 0}, "code_layer is 0, but widths names 2 layers"),
        ({"pretrain_epochs": -1}, "pretrain_epochs is -1; it must be at least 0."),
        ({"finetune_epochs": 0}, "finetune_epochs is 0; it must be at least 1."),
        ({"mask_fraction": 1.0}, f"mask_fraction is 1.0; {FRACTION}"),
        ({"dropout": -0.1}, f"dropout is -0.1; {FRACTION}"),
        *(
            ({"labeled_fraction": share}, f"labeled_fraction is {share}; it must be greater than 0 and at most 1.")
            for share in (0.0, 1.5)
        ),
    ],
    "MetricResNet": [
        (
            {"channels": 1},
            "mean is [0.485, 0.456, 0.406]; it must have 1 numbers, one for each of --model.channels.",
        ),
        ({"std": [1.0, 0.0, 1.0]}, "std is [1.0, 0.0, 1.0]; it must have 3 positive numbers, one for each of"),
        ({"margin": -1.0}, "margin is -1.0; it must be at least 0, or soft."),
        ({"label_smoothing": 1.0}, f"label_smoothing is 1.0; {FRACTION}"),
        ({"center_rate": 1.5}, "the rate greater than 0, by the paper's rule at most 1."),
        ({"feature_maps": 0}, "feature_maps is 0; it must be at least 1."),
    ],
    "ProtoNet": [
        ({"image_size": 15}, "image_size is 15; four halvings need at least 16."),
        ({"cosine_scale": 0.0}, "cosine_scale is 0.0; it must be positive."),
        ({"lr_halving_episodes": 0}, "lr_halving_episodes is 0; it must be at least 1, or null."),
        ({"freeze_encoder": True}, "A frozen encoder needs weights: set --model.pretrained to a file with weights of"),
        (
            {"encoder": "torchvision:resnet18", "freeze_encoder": True, "channels": 3},
            "set --model.pretrained to imagenet, or to a file of torchvision:resnet18",
        ),
        ({"freeze_encoder": True, "pretrained": "w.pt"}, "only a layer on top of it learns: set --model.embedding_dim"),
        ({"pretrained": "imagenet"}, "conv4 has no weights of ImageNet: set --model.pretrained to a file"),
        ({"embedding_dim": 0}, "embedding_dim is 0; it must be at least 1"),
    ],
    "DARTSSearch": [
        ({"image_size": 30}, "image_size is 30; two halvings need a multiple of 4."),
        ({"init_channels": 3}, "init_channels is 3; it must be even, as reductions are made of two halves."),
        ({"layers": 2}, "layers is 2; it must be at least 3."),
        ({"arch_init_std": -1.0}, "arch_init_std is -1.0; it must be at least 0."),
        ({"order": 3}, "order is 3; it must be 1 or 2."),
        ({"mixed_product": "none"}, "mixed_product is 'none'; it must be finite_difference or exact."),
        ({"eval_statistics": "none"}, "eval_statistics is 'none'; it must be batch or running."),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm must be positive, and last_learning_rate at least 0."),
        ({"epochs": 0}, "epochs is 0; it must be at least 1."),
    ],
    "DARTSRetrain": [
        ({"genotype": "DARTS_V9"}, "genotype is 'DARTS_V9', but there is no such file: give the genotype.json"),
        ({"auxiliary_weight": 0.4}, "image_size is 16; the auxiliary classifier needs at least 32: set auxiliary_"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight is -1.0; it must be at least 0."),
        ({"drop_path": 1.0}, f"drop_path is 1.0; {FRACTION}"),
        ({"layers": 2}, "layers is 2; it must be at least 3."),
        ({"image_size": 30}, "image_size is 30; two halvings need a multiple of 4."),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm is 0.0; it must be positive."),
    ],
}
"""By method: arguments that differ from those of its tiny model, and the sentence or a part of it."""


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [(method, arguments, sentence) for method, cases in REFUSED.items() for arguments, sentence in cases],
    ids=str,
)
def test_impossible_arguments_are_refused_in_a_sentence(method: str, arguments: Settings, sentence: str) -> None:
    with pytest.raises(ModelError) as error:
        built(method, **arguments)
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")
