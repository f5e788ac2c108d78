"""What relit has to show, item by item, and which recorded trainings show it: the first table of docs/results.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """Something that a reader wants to see.

    Attributes:
        what: In a few words.
        page: The method's page that shows it.
        records: The steps of experiments behind it, `experiment/step`.
    """

    what: str
    page: str
    records: tuple[str, ...]


def steps(experiment: str, *names: str) -> tuple[str, ...]:
    """Steps of one experiment, as an item names them."""
    return tuple(f"{experiment}/{name}" for name in names)


CRITICS = (1, 2, 5, 20)
PAIRINGS = ("paired", "loose", "unpaired")
INPUTS = ("", "-nearest")
SIX = ("dcgan", "sngan", "wgan", "wgan_sn", "wgan_gp", "triplet_gan")

ITEMS = (
    Item("DCGAN on MNIST: samples over the epochs, losses, scores", "dcgan", steps("gans_mnist", "dcgan")),
    Item("DCGAN on faces", "dcgan", steps("gans_lfw", "dcgan")),
    Item("SN-GAN against DCGAN on faces", "sngan", steps("gans_lfw", "dcgan", "sngan")),
    Item(
        "SN-GAN on faces with differentiable augmentation",
        "sngan",
        steps("gans_lfw", "sngan", "sngan_augmented"),
    ),
    Item("SN-GAN on MNIST", "sngan", steps("gans_mnist", "sngan")),
    Item(
        "WGAN with 1, 2, 5 and 20 steps of the critic", "wgan", steps("wgan_n_critic", *(f"wgan-{n}" for n in CRITICS))
    ),
    Item("WGAN-SN with the same", "wgan", steps("wgan_n_critic", *(f"wgan_sn-{n}" for n in CRITICS))),
    Item("WGAN-GP draws white digits", "wgan", steps("gans_mnist", "wgan_gp")),
    Item("six GANs on MNIST, their scores by epoch", "wgan", steps("gans_mnist", *SIX)),
    Item("six GANs on faces", "wgan", steps("gans_lfw", *SIX)),
    Item("SN-GAN on CIFAR-10: the CNN with the hinge loss", "sngan", steps("gans_cifar10", "sngan_cnn")),
    Item("the ResNets of SN-GAN and WGAN-GP on CIFAR-10", "sngan", steps("gans_cifar10", "sngan", "wgan_gp")),
    Item("siamese-triplet GAN on MNIST", "triplet_gan", steps("gans_mnist", "triplet_gan")),
    Item(
        "siamese-triplet GAN with its literal objectives",
        "triplet_gan",
        ("gans_mnist/triplet_gan", *steps("triplet_losses", "no_hinge", "norm", "negative_norm")),
    ),
    Item("conditional GAN: ten different images of each digit", "conditional_gan", steps("conditional_gan", "concat")),
    Item(
        *(
            "class joined before or after decoding",
            "conditional_gan",
            steps("conditional_gan", "concat", "concat_image"),
        ),
    ),
    Item(
        *("classes as embeddings of 20 and 65 components, joined before decoding", "conditional_gan"),
        steps("conditional_gan", *(f"embedding_{size}_latent" for size in (20, 65))),
    ),
    Item(
        *("classes as embeddings of 20 and 65 components, joined after decoding", "conditional_gan"),
        steps("conditional_gan", *(f"embedding_{size}_image" for size in (20, 65))),
    ),
    Item("projection discriminator", "conditional_gan", steps("conditional_gan", "projection")),
    Item("VAE on MNIST: nats", "vae", steps("vae", "vae_bernoulli", "vae_dynamic")),
    Item("VAE on MNIST: the plane of two components", "vae", steps("vae", "vae_2d")),
    Item(
        *("VAE on faces: what variance and KL term do", "vae"),
        steps("vae", *(f"vae_faces{end}" for end in ("", "_low", "_middle", "_high", "_no_kl"))),
    ),
    Item("VAE against GAN on the same faces", "vae", ("vae/vae_faces_high", *steps("gans_lfw", "dcgan", "sngan"))),
    Item("denoising autoencoder", "autoencoder", steps("autoencoders_transfer", "autoencoder")),
    Item(
        *("classes from 50 labels, against scratch", "autoencoder"),
        steps(
            *("autoencoders_transfer", "linear_frozen", "mlp_frozen", "linear_finetuned", "mlp_finetuned", "scratch"),
        ),
    ),
    Item(
        *("classes from 50 labels, images as they are", "autoencoder"),
        steps(
            "autoencoders_transfer",
            *(f"{head}_{encoder}_plain" for head in ("linear", "mlp") for encoder in ("frozen", "finetuned")),
            "scratch_plain",
        ),
    ),
    Item(
        *("GAN in the latent space, without and with a last convolution", "latent_gan"),
        steps("autoencoders_transfer", "latent_gan", "latent_gan_convolution"),
    ),
    Item(
        *("GAN in the latent space with batch normalization in the discriminator", "latent_gan"),
        steps("autoencoders_transfer", "latent_gan_batch_norm"),
    ),
    Item(
        *("ways between digits: autoencoder, VAE, GAN", "autoencoder"),
        steps("autoencoders_transfer", "autoencoder", "vae_bernoulli", "latent_gan"),
    ),
    Item("digit classifier", "digit_classifier", steps("autoencoders_transfer", "classifier")),
    Item(
        *("ProtoNet, 1-shot and 5-shot, both inputs", "protonet"),
        steps("protonet", *(f"{shot}-shot{end}" for shot in (1, 5) for end in INPUTS)),
    ),
    Item(
        *("ProtoNet trained on the validation classes, too", "protonet"),
        steps("protonet", *(f"{shot}-shot-all{end}" for shot in (1, 5) for end in INPUTS)),
    ),
    Item("ProtoNet on Lake's one-shot runs", "protonet", steps("protonet", "lake")),
    Item("pix2pix: photographs to maps at 128x128", "pix2pix", steps("pix2pix", "128_small")),
    Item("pix2pix and CycleGAN at the papers' widths", "pix2pix", steps("pix2pix", "128", "256", "cyclegan")),
    Item(
        *("three translators on paired, loosely paired and unpaired data", "pix2pix"),
        steps(
            "translation_grid", *(f"{kind}_{pairs}" for kind in ("gan", "pix2pix", "cyclegan") for pairs in PAIRINGS)
        ),
    ),
    Item("DARTS: searches of first and second order", "darts", steps("darts", "search", "search_2nd")),
    Item("DARTS: the supernet by both statistics, on digits", "darts", steps("darts_statistics", "batch", "running")),
    Item("DARTS: found cells against random ones", "darts", steps("darts", "retrain", "retrain_2nd", "random")),
    Item("ResNet18 on 200 classes by cross-entropy", "metric_resnet", steps("resnet18", "strong")),
    Item(
        *("ResNet18 by center and triplet losses", "metric_resnet"),
        steps("resnet18", "center", "triplet", "triplet_all"),
    ),
    Item("center loss: features of two numbers", "metric_resnet", steps("center_loss", "center", "cross_entropy")),
    Item(
        *("layer-wise pretraining with 10 % of the labels", "layerwise_mlp"),
        steps("layerwise_mlp", "labels_10", "labels_10_scratch"),
    ),
    Item(
        *("layer-wise pretraining with all labels", "layerwise_mlp"),
        steps("layerwise_mlp", "masked", "pretrained", "scratch"),
    ),
    Item(
        *("layer-wise pretraining on MNIST and on images enlarged to 96x96", "layerwise_mlp"),
        steps("layerwise_mlp", "mnist", "mnist_scratch", "96", "96_scratch"),
    ),
    Item(
        *("layer-wise pretraining on STL-10", "layerwise_mlp"),
        steps("layerwise_mlp", "stl10"),
    ),
)
