"""Trains three small networks on scikit-learn's digits and exports them. Needs PyTorch, scikit-learn and a GPU.

    python trained.py OUT_DIR

A residual network, a vision transformer and a U-Net that removes noise: each some seconds of training. Beside each
``NAME.onnx`` lies ``NAME.npz`` with held-out inputs. ``unet256.onnx`` is the U-Net for three channels of 256 x 256
pixels with random weights, for dynamic batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


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


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32)
    return nn.functional.interpolate(images, size=32, mode="bilinear"), torch.tensor(data.target)


def train(network: nn.Module, inputs, targets, loss, steps: int) -> nn.Module:
    network.cuda().train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        pick = torch.randint(len(inputs), (128,), generator=generator).cuda()
        optimizer.zero_grad()
        loss(network(inputs[pick]), targets[pick]).backward()
        optimizer.step()
    return network.eval()


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
    np.savez(folder / f"{name}.npz", x=x.numpy())


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images, labels = digits()
    held, known = slice(0, 256), slice(256, None)
    x, y = images[known].cuda(), labels[known].cuda()
    for name, network in (("digits_resnet", resnet()), ("digits_vit", ViT())):
        trained = train(network, x, y, nn.functional.cross_entropy, 500)
        with torch.no_grad():
            top1 = (trained(images[held].cuda()).argmax(1).cpu() == labels[held]).float().mean().item()
        print(f"{name}: top-1 {top1:.3f} on 256 held-out images", flush=True)
        save(trained, name, folder, images[held])
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    unet = train(UNet(), noisy[known].cuda(), x, nn.functional.mse_loss, 300)
    with torch.no_grad():
        error = nn.functional.mse_loss(unet(noisy[held].cuda()).cpu(), images[held]).item()
    print(f"digits_unet: mean squared error {error:.4f} (noise 0.25)", flush=True)
    save(unet, "digits_unet", folder, noisy[held])
    torch.manual_seed(0)
    save(UNet(3), "unet256", folder, torch.randn(2, 3, 256, 256))


if __name__ == "__main__":
    main()
