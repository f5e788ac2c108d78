"""The sizes of the complete data sets, by which a record is marked as a subset."""

from experiments.declaration import Data

MNIST = Data("MNIST", 60_000, 10_000)
DIGITS = Data("scikit-learn's digits", 1_297 + 200, 300)
FIFTY_LABELS = Data("MNIST, 50 labels", 100, 10_000)  # these images are the validation split, too
CIFAR10 = Data("CIFAR-10", 50_000, 10_000, own_test=10_000)
STL10 = Data("STL-10", 5_000, 8_000)
TINY_IMAGENET = Data("Tiny ImageNet", 105_000, 5_000)  # half of the official validation images are for the test
OMNIGLOT = Data("Omniglot", 20 * (4_112 + 688), 20 * 1_692)  # Vinyals's split, whose classes include quarter turns
LAKE = Data("Omniglot, Lake's runs", 4 * 20 * 964, 4 * 20 * 659)  # each drawing in four positions
MAPS = Data("maps", 1_096, 549)
LFW = Data("LFW, one person", 424 + 53, 53)
