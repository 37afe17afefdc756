"""Trains small networks on scikit-learn's digits and exports them. Needs PyTorch and scikit-learn; a GPU helps.

    python -m benchmarks.gpu.trained OUT_DIR [--only digits_vit ...] [--steps FACTOR]

A residual network, a vision transformer, a U-Net that removes noise, and a network of depthwise convolutions on harder
digits (turned, moved, covered, in noise): each some seconds of training. ``hard_googlenet``, ``hard_vgg19`` and
``hard_resnet50`` are torchvision's networks, for one channel and ten classes, on the same harder digits: about a minute
each. Beside each ``NAME.onnx`` lies ``NAME.npz`` with 256 held-out inputs. ``unet256.onnx`` is the U-Net for three
channels of 256 x 256 pixels with random weights, for dynamic batches. For accuracy.py, a network ``hard_*`` comes with

    hard_*/              2,400 held-out images: 600 that training did not see, each made harder four times
    hard_*_labels.npy    what they are
    hard_*_calibration/  480 images made from those of the training
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    """Two convolutions around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.n, self.m = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):  # noqa: D102
        return torch.relu(x + self.m(self.b(torch.relu(self.n(self.a(x))))))


def resnet(width: int = 64) -> nn.Module:
    stem = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    body = [Block(width), nn.MaxPool2d(2), Block(width), nn.MaxPool2d(2), Block(width)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Attention(nn.Module):
    """Written out, so that its export holds MatMul, Softmax and LayerNormalization and no fused operator."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):  # noqa: D102
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 4 x 4 pixels, learned positions, pre-norm blocks."""

    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Attention(width, 4) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x):  # noqa: D102
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2) + self.position).mean(1))


class UNet(nn.Module):
    """Two levels down, two up, with skips."""

    def __init__(self, channels: int = 1, width: int = 32) -> None:
        super().__init__()

        def pair(a: int, b: int) -> nn.Module:
            layers = [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())

        self.down1, self.down2, self.middle = pair(channels, width), pair(width, 2 * width), pair(2 * width, 4 * width)
        self.rise2, self.rise1 = (
            nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
            nn.ConvTranspose2d(2 * width, width, 2, 2),
        )
        self.up2, self.up1 = pair(4 * width, 2 * width), pair(2 * width, width)
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, x):  # noqa: D102
        a = self.down1(x)
        b = self.down2(nn.functional.max_pool2d(a, 2))
        c = self.middle(nn.functional.max_pool2d(b, 2))
        d = self.up2(torch.cat([self.rise2(c), b], 1))
        return self.out(self.up1(torch.cat([self.rise1(d), a], 1)))


class Inverted(nn.Module):
    """Wide, depthwise, narrow again; a residual where the shape stays."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inside
        self.same = stride == 1 and inside == outside
        self.body = nn.Sequential(
            *(nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside)),
        )

    def forward(self, x):  # noqa: D102
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> nn.Module:
    widths = [(16, 24, 1), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 64, 2), (64, 64, 1)]
    stem = [nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    body = [Inverted(*width) for width in widths]
    return nn.Sequential(*stem, *body, *head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def imagenet(name: str) -> nn.Module:
    """A network of torchvision's for images of 32 x 32 pixels in one channel, of ten classes."""
    import torchvision

    extra = {"aux_logits": False, "transform_input": False, "init_weights": True} if name == "googlenet" else {}
    network = getattr(torchvision.models, name)(num_classes=10, **extra)
    if name == "resnet50":
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    elif name == "googlenet":
        network.conv1.conv = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    else:  # its head is for maps of 7 x 7, and holds nine tenths of the weights
        network.features[0] = nn.Conv2d(1, 64, 3, padding=1)
        network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    return network


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32)
    return functional.interpolate(images, size=32, mode="bilinear"), torch.tensor(data.target)


def harder(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images turned by up to 30 degrees, scaled, moved by up to a fifth, with a bar across them, dimmed, in noise.

    One pixel in 500 is hot: up to 40 times as bright as the others. So activations have long tails, as in larger
    networks, and it matters how INT8 finds its ranges.
    """
    n, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=device)

    angle, scale = uniform(-0.52, 0.52), uniform(0.8, 1.4)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift_x, shift_y = uniform(-0.4, 0.4), uniform(-0.4, 0.4)
    theta = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images + 1, grid, align_corners=False) - 1
    rows = torch.arange(images.shape[2], device=device)[None, None, :, None]
    start = uniform(0, 28, 1, 1, 1)
    moved = torch.where((rows >= start) & (rows < start + 4), uniform(-1, 1, 1, 1, 1), moved)
    noise = torch.randn(moved.shape, generator=generator, device=device)
    hot = uniform(0, 1, *moved.shape[1:]) < 1 / 500
    return uniform(0.4, 1.0, 1, 1, 1) * moved + 0.5 * noise + hot * uniform(0, 40, *moved.shape[1:])


Prepare = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def train(
    network: nn.Module, inputs, targets, loss, steps: int, prepare: Prepare | None = None, rate: float = 1e-3
) -> nn.Module:
    network.to(DEVICE).train()
    inputs, targets = inputs.to(DEVICE), targets.to(DEVICE)
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps) if prepare else None
    generator = torch.Generator().manual_seed(0)
    drawn = torch.Generator(DEVICE).manual_seed(0)
    for _ in range(steps):
        pick = torch.randint(len(inputs), (128,), generator=generator).to(DEVICE)
        x = prepare(inputs[pick], drawn) if prepare else inputs[pick]
        optimizer.zero_grad()
        loss(network(x), targets[pick]).backward()
        optimizer.step()
        if schedule:
            schedule.step()
    return network.eval()


def top1(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return (network(x.to(DEVICE)).argmax(1).cpu() == y).float().mean().item()


def save(network: nn.Module, name: str, folder: Path, x: torch.Tensor) -> None:
    torch.onnx.export(
        network.cpu().eval(),
        (x[:2],),
        str(folder / f"{name}.onnx"),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    np.savez(folder / f"{name}.npz", x=x[:256].numpy())


def save_batches(folder: Path, x: torch.Tensor, size: int) -> None:
    folder.mkdir(exist_ok=True)
    for number, batch in enumerate(x.split(size)):
        np.savez(folder / f"{number:03}.npz", x=batch.numpy())


def classifier(name: str, network: nn.Module, folder: Path, steps: float) -> None:
    images, labels = digits()
    trained = train(network, images[256:], labels[256:], functional.cross_entropy, int(500 * steps))
    print(f"{name}: top-1 {top1(trained, images[:256], labels[:256]):.3f} on 256 held-out images", flush=True)
    save(trained, name, folder, images[:256])


def denoiser(name: str, network: nn.Module, folder: Path, steps: float) -> None:
    images, _ = digits()
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    unet = train(network, noisy[256:], images[256:], functional.mse_loss, int(300 * steps))
    with torch.no_grad():
        error = functional.mse_loss(unet(noisy[:256].to(DEVICE)).cpu(), images[:256]).item()
    print(f"{name}: mean squared error {error:.4f} (noise 0.25)", flush=True)
    save(unet, name, folder, noisy[:256])


def hard(name: str, network: nn.Module, folder: Path, steps: float, rate: float = 4e-3) -> None:
    images, labels = digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held, known = order[:600].repeat(4), order[600:]
    trained = train(network, images[known], labels[known], functional.cross_entropy, int(3000 * steps), harder, rate)
    draw = torch.Generator().manual_seed(1)
    x, y = harder(images[held], draw), labels[held]
    print(f"{name}: top-1 {top1(trained, x, y):.4f} on {len(x):,} held-out images", flush=True)
    save(trained, name, folder, x)
    save_batches(folder / name, x, 240)
    save_batches(folder / f"{name}_calibration", harder(images[known][:480], draw), 240)
    np.save(folder / f"{name}_labels.npy", y.numpy())


def large(name: str, network: nn.Module, folder: Path, steps: float) -> None:
    hard(name, network, folder, steps, 1e-3)


def untrained(name: str, network: nn.Module, folder: Path, steps: float) -> None:
    save(network, name, folder, torch.randn(2, 3, 256, 256))


NETWORKS = {
    "digits_resnet": (classifier, resnet),
    "digits_vit": (classifier, ViT),
    "digits_unet": (denoiser, UNet),
    "hard_mobilenet": (hard, mobilenet),
    "hard_googlenet": (large, lambda: imagenet("googlenet")),
    "hard_vgg19": (large, lambda: imagenet("vgg19_bn")),
    "hard_resnet50": (large, lambda: imagenet("resnet50")),
    "unet256": (untrained, lambda: UNet(3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    small = [name for name, (make, _) in NETWORKS.items() if make is not large]
    parser.add_argument("--only", nargs="+", default=small, choices=list(NETWORKS), help="default: the small ones")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the usual number of training steps")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        torch.manual_seed(0)
        make, network = NETWORKS[name]
        make(name, network(), arguments.folder, arguments.steps)


if __name__ == "__main__":
    main()
