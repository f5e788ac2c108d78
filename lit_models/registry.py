"""The methods' modules by name; imports none of them."""

METHODS = {
    "ConditionalGAN": "lit_models.conditional_gan",
    "CycleGAN": "lit_models.cycle_gan",
    "DARTSRetrain": "lit_models.darts.retrain",
    "DARTSSearch": "lit_models.darts.search",
    "DCGAN": "lit_models.dcgan",
    "DenoisingAutoencoder": "lit_models.autoencoder",
    "DigitClassifier": "lit_models.digit_classifier",
    "LatentGAN": "lit_models.latent_gan",
    "LayerwiseMLP": "lit_models.layerwise_mlp",
    "MetricResNet": "lit_models.metric_resnet",
    "Pix2Pix": "lit_models.pix2pix",
    "ProtoNet": "lit_models.protonet",
    "SNGAN": "lit_models.sngan",
    "TransferClassifier": "lit_models.transfer_classifier",
    "TripletGAN": "lit_models.triplet_gan",
    "VAE": "lit_models.vae",
    "WGAN": "lit_models.wgan",
}
"""Module of each method's class."""
