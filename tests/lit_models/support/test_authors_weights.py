"""The authors' networks, written from their public definition, give the same images as relit's with their weights."""

import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_models import CycleGAN, Pix2Pix
from lit_models.errors import ModelError, RunError
from lit_models.networks.patch_discriminator import PatchDiscriminator
from lit_models.networks.resnet_generator import ResNetGenerator
from lit_models.networks.unet import UNet
from lit_models.support.authors_weights import load_authors_weights
from lit_models.support.checkpoint_files import read_checkpoint
from tests.support.malicious import Malicious


class Block(nn.Module):
    """One level of the authors' U-Net; ``inside`` is the next one, or None for the innermost."""

    def __init__(self, outer: int, inner: int, inside: nn.Module | None, image_channels: int | None = None) -> None:
        super().__init__()
        self.outermost = image_channels is not None
        down = nn.Conv2d(image_channels or outer, inner, 4, 2, 1, bias=False)
        up_in = inner if inside is None else 2 * inner
        if self.outermost:
            up = nn.ConvTranspose2d(up_in, image_channels, 4, 2, 1)  # type: ignore[arg-type]
            layers = [down, inside, nn.ReLU(), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(up_in, outer, 4, 2, 1, bias=False)
            middle = [] if inside is None else [nn.BatchNorm2d(inner), inside]
            layers = [nn.LeakyReLU(0.2), down, *middle, nn.ReLU(), up, nn.BatchNorm2d(outer)]
        self.model = nn.Sequential(*layers)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image) if self.outermost else torch.cat([image, self.model(image)], 1)


class AuthorsUNet(nn.Module):
    def __init__(self, halvings: int, width: int) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(halvings)]
        block: nn.Module | None = None
        for i in range(halvings - 1, 0, -1):
            block = Block(widths[i - 1], widths[i], block)
        self.model = Block(0, widths[0], block, image_channels=3)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class AuthorsResidual(nn.Module):
    def __init__(self, width: int, dropout: bool, batch_norm: bool) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=not batch_norm), norm(width, batch_norm)]

        self.conv_block = nn.Sequential(*half(), nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *half())

    def forward(self, image: Tensor) -> Tensor:
        return image + self.conv_block(image)


def norm(width: int, batch_norm: bool) -> nn.Module:
    # Old files have running means of the instance normalization, which the authors' code removes.
    return nn.BatchNorm2d(width) if batch_norm else nn.InstanceNorm2d(width, track_running_stats=True)


class AuthorsResNet(nn.Module):
    def __init__(self, width: int, blocks: int = 9, dropout: bool = False, batch_norm: bool = False) -> None:
        super().__init__()
        bias = not batch_norm

        def after(channels: int) -> list[nn.Module]:
            return [norm(channels, batch_norm), nn.ReLU()]

        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), *after(width)]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, 2, 1, bias=bias), *after(2 * w)]
        layers += [AuthorsResidual(4 * width, dropout, batch_norm) for _ in range(blocks)]
        for w in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(w, w // 2, 3, 2, 1, output_padding=1, bias=bias), *after(w // 2)]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class AuthorsPatches(nn.Module):
    """Their discriminator of patches, with ``halvings`` strided layers."""

    def __init__(self, channels: int, width: int, halvings: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        factors = [1, *(min(2**i, 8) for i in range(1, halvings + 1))]
        for i, (before, after) in enumerate(pairwise(factors)):
            stride = 1 if i == halvings - 1 else 2
            layers += [
                nn.Conv2d(width * before, width * after, 4, stride, 1, bias=not batch_norm),
                norm(width * after, batch_norm),
                nn.LeakyReLU(0.2, True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width * factors[-1], 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class AuthorsPixels(nn.Module):
    def __init__(self, channels: int, width: int, batch_norm: bool) -> None:
        super().__init__()
        bias = not batch_norm
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            norm(2 * width, batch_norm),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def shaken(network: nn.Module) -> nn.Module:
    """Weights of a size at which all layers matter."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, 1 if parameter.ndim == 1 and "weight" in name else 0, 0.15)
    return network.train()


def by_the_image(network: nn.Module, image: Tensor) -> Tensor:
    """As the authors' test computes without ``--eval``: the statistics are the single image's; here without dropout."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        return torch.cat([network(one[None]) for one in image])


@pytest.mark.parametrize("size", [128, 256])
def test_the_unet(size: int, tmp_path: Path) -> None:
    theirs = shaken(AuthorsUNet(size.bit_length() - 1, 4))
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    ours = UNet(size, 3, 4).eval()
    load_authors_weights(ours, str(tmp_path / "latest_net_G.pth"))
    image = torch.rand(2, 3, size, size) * 2 - 1
    expected = by_the_image(theirs, image)
    assert expected.std() > 0.1
    assert torch.allclose(ours(image), expected, atol=1e-5)


@pytest.mark.parametrize(("dropout", "batch_norm"), [(False, False), (True, False), (True, True)])
def test_the_resnet(dropout: bool, batch_norm: bool, tmp_path: Path) -> None:
    theirs = shaken(AuthorsResNet(4, 9, dropout, batch_norm))
    torch.save({f"module.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "a.pth")
    ours = ResNetGenerator(3, 4, 9, "batch" if batch_norm else "instance", 0.5 * dropout).eval()
    load_authors_weights(ours, str(tmp_path / "a.pth"))
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.allclose(ours(image), by_the_image(theirs, image), atol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("patch_size", [1, 16, 34, 70, 142, 286])
def test_the_discriminators(patch_size: int, batch_norm: bool, tmp_path: Path) -> None:
    """In training, scores and the gradients that the generator learns by."""
    halvings = {16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
    pixels = patch_size == 1
    theirs = shaken(
        AuthorsPixels(6, 2, batch_norm) if pixels else AuthorsPatches(6, 2, halvings[patch_size], batch_norm)
    )
    torch.save(theirs.state_dict(), tmp_path / "latest_net_D.pth")
    ours = PatchDiscriminator(256, 6, 2, patch_size, "batch" if batch_norm else "instance").train()
    load_authors_weights(ours, str(tmp_path / "latest_net_D.pth"))
    assert pixels or sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    image = torch.rand(2, 6, 256, 256) * 2 - 1
    scores, slopes = [], []
    for network in (theirs, ours):
        seen = image.clone().requires_grad_()
        scores.append(network(seen))
        slopes.append(torch.autograd.grad(scores[-1].square().mean(), seen)[0])
    assert scores[0].std() > 0.01
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(slopes[0], slopes[1], atol=1e-6 * slopes[0].abs().max().item(), rtol=1e-3)


def test_the_papers_size_has_the_authors_names() -> None:
    with torch.device("meta"):
        pairs = (AuthorsUNet(8, 64), UNet(256, 3, 64)), (AuthorsResNet(64), ResNetGenerator(3, 64, 9, "instance"))
    for theirs, ours in pairs:
        assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


UNET = "U-Net with image_size {}, feature_maps {}, source_channels 3 and channels 3"
RESNET = "ResNet with {} normalization, {}, blocks {}, feature_maps 4, source_channels 3 and channels 3"
DISCRIMINATOR = (
    "discriminator with {} normalization, patch_size {}, discriminator_feature_maps 2, for images of {} channels"
)


def refusal(network: UNet | ResNetGenerator | PatchDiscriminator, content: object, tmp_path: Path) -> str:
    path = str(tmp_path / "a.pth")
    torch.save(content, path)
    with pytest.raises(ModelError) as refused:
        load_authors_weights(network, path)
    return str(refused.value).removeprefix(f"{path} ")


@pytest.mark.parametrize(
    ("theirs", "holds", "ours", "has"),
    [
        (AuthorsUNet(7, 4), UNET.format(128, 4), UNet(256, 3, 4), UNET.format(256, 4)),
        (AuthorsUNet(7, 4), UNET.format(128, 4), UNet(128, 3, 2), UNET.format(128, 2)),
        (
            AuthorsResNet(4, 6),
            RESNET.format("instance", "no dropout", 6),
            ResNetGenerator(3, 4, 9, "instance"),
            RESNET.format("instance", "no dropout", 9),
        ),
        (
            AuthorsResNet(4, 2, True, True),
            RESNET.format("batch", "dropout", 2),
            ResNetGenerator(3, 4, 2, "batch"),
            RESNET.format("batch", "no dropout", 2),
        ),
        (AuthorsResNet(4, 2), RESNET.format("instance", "no dropout", 2), UNet(128, 3, 4), UNET.format(128, 4)),
        (
            AuthorsPatches(6, 2, 3, True),
            DISCRIMINATOR.format("batch", 70, 6),
            PatchDiscriminator(64, 3, 2, 16, "batch"),
            DISCRIMINATOR.format("batch", 16, 3),
        ),
        (
            AuthorsPixels(6, 2, False),
            DISCRIMINATOR.format("instance", 1, 6),
            PatchDiscriminator(64, 6, 2, 1, "batch"),
            DISCRIMINATOR.format("batch", 1, 6),
        ),
        (AuthorsPixels(3, 2, False), DISCRIMINATOR.format("instance", 1, 3), UNet(32, 3, 4), UNET.format(32, 4)),
    ],
)
def test_a_file_of_another_network_is_described(
    theirs: nn.Module, holds: str, ours: UNet | ResNetGenerator | PatchDiscriminator, has: str, tmp_path: Path
) -> None:
    sentence = f"is of another network: it holds a {holds}, but the model has a {has}. Set the model's arguments to the"
    assert refusal(ours, theirs.state_dict(), tmp_path).startswith(sentence)


def test_other_files_are_refused(tmp_path: Path) -> None:
    state = AuthorsUNet(5, 2).state_dict()
    another = f"is of another network than {UNET.format(32, 2)}"
    spectral = {name.replace("weight", "weight_orig"): value for name, value in state.items()}
    sentence = refusal(UNet(32, 3, 2), spectral, tmp_path)
    assert sentence == f"{another}: it has no model.model.0.weight of (2, 3, 4, 4). Choose another."
    biased = {**state, "model.model.0.bias": torch.zeros(2)}  # with instance normalization
    sentence = refusal(UNet(32, 3, 2), biased, tmp_path)
    assert sentence == f"{another}, which has no model.model.0.bias. Choose another file."
    broken = {**state, "model.model.3.bias": torch.full((3,), torch.nan)}
    sentence = refusal(UNet(32, 3, 2), broken, tmp_path)
    assert sentence == "holds values that aren't finite, in model.model.3.bias: choose another file."
    for nothing in ([1], {"state_dict": state}):
        assert refusal(UNet(32, 3, 2), nothing, tmp_path).startswith("holds no weights by name: take a file of the")
    with pytest.raises(ModelError, match=r"There is no file none.pth: --model.pretrained… names a file"):
        load_authors_weights(UNet(128, 3, 4), "none.pth")


def test_weights_in_place_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest_net_G.pth"
    torch.save(AuthorsUNet(5, 2).state_dict(), path)
    with pytest.raises(RunError, match=r"is not a checkpoint of relit .*: weights of other code, .* --model\.pretr"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(zipped: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path, touched = tmp_path / "latest_net_G.pth", tmp_path / "touched"
    content = {**AuthorsUNet(5, 2).state_dict(), "more": Malicious(Path.touch, touched)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(RunError, match="could run code, so it is not opened"):
        load_authors_weights(UNet(32, 3, 2), str(path))
    assert not touched.exists()
    assert not recwarn.list
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert touched.exists(), "the file is dangerous"


def test_methods_start_from_files(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.pth") for name in ("there", "back", "unet")]
    networks = shaken(AuthorsResNet(2, 1)), shaken(AuthorsResNet(2, 1)), shaken(AuthorsUNet(5, 2))
    for network, file in zip(networks, files, strict=True):
        torch.save(network.state_dict(), file)
    sizes = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 1}
    cycle = CycleGAN(**sizes, blocks=1, pretrained=files[0], pretrained_to_source=files[1], ema_decay=0.9).eval()
    source = torch.rand(2, 3, 32, 32)
    expected = (by_the_image(networks[0], source * 2 - 1) + 1) / 2
    assert torch.allclose(cycle.translate(source), expected, atol=1e-5)
    back = cycle.generator["to_source"](source * 2 - 1)
    assert torch.allclose(back, by_the_image(networks[1], source * 2 - 1), atol=1e-5)
    files = [str(tmp_path / f"{name}.pth") for name in ("of_targets", "of_sources", "of_pairs")]
    critics = shaken(AuthorsPixels(3, 2, False)), shaken(AuthorsPixels(3, 2, False)), shaken(AuthorsPixels(6, 2, True))
    critics[1].net[0].bias.data += 1  # type: ignore[union-attr,index]
    for network, file in zip(critics, files, strict=True):
        torch.save(network.state_dict(), file)
    cycle = CycleGAN(**sizes, blocks=1, pretrained_discriminator=files[0], pretrained_source_discriminator=files[1])
    cycle.start_from_weights()
    for name, critic in (("target", critics[0]), ("source", critics[1])):
        assert torch.allclose(cycle.discriminator[name](source), critic(source), atol=1e-5)
    both = Pix2Pix(**sizes, pretrained_discriminator=files[2])
    both.start_from_weights()
    pair = torch.rand(2, 6, 32, 32)
    assert torch.allclose(both.discriminator(pair), critics[2](pair), atol=1e-5)
    files[2] = str(tmp_path / "unet.pth")
    given = Pix2Pix(**sizes).eval()
    pix2pix = Pix2Pix(**sizes, pretrained=files[2]).eval()
    pix2pix.load_state_dict(given.state_dict())
    assert torch.equal(pix2pix.translate(source), given.translate(source)), "a checkpoint's own weights stay"
    pix2pix = Pix2Pix(**sizes, pretrained=files[2]).eval()
    expected = (by_the_image(networks[2], source * 2 - 1) + 1) / 2
    assert torch.allclose(pix2pix.translate(source), expected, atol=1e-5)
