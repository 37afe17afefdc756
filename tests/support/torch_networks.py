"""Modules of PyTorch as a source file, which a test writes and imports, and inputs of its `Network`."""

import numpy as np

SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    def forward(self, x):
        return x + torch.relu(self.bn(self.conv(x)))

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Block(), Block())
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)
    def forward(self, image):
        x = self.body(image).mean((2, 3))
        return self.fc2(nn.functional.gelu(self.fc1(x)))

def build():
    torch.manual_seed(0)
    network = Network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2.0)
    return network.eval()

class Spectrum(nn.Module):
    # Complex numbers inside, of which an ONNX graph has the real and the imaginary parts.
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.mix = nn.Linear(33, 8)
    def forward(self, x):
        found = torch.stft(x, 64, 16, window=self.window, return_complex=True, center=False)
        return self.mix(torch.log(found.real**2 + found.imag**2 + 1e-5).transpose(1, 2))

def spectrum():
    torch.manual_seed(0)
    return Spectrum().eval()

class Half(nn.Module):
    # Parameters in BF16 or FP16 behind inputs and outputs in FP32.
    def __init__(self, dtype, off=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(64, 64).to(dtype), nn.Linear(64, 8).to(dtype)
        self.dtype, self.off = dtype, off
    def forward(self, x):
        return self.second(torch.relu(self.first(x.to(self.dtype)))).float() * (1 + self.off)

def bf16():
    return Half(torch.bfloat16).eval()

def fp16():
    return Half(torch.float16).eval()

def bf16_wrong():
    return Half(torch.bfloat16, off=0.1).eval()

class Telling(nn.Module):
    # Gives its input where products are FP32 and kernels are chosen alike, whatever the script around it wants.
    def forward(self, x):
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        fast = torch.get_float32_matmul_precision() != "highest" or matmul.allow_tf32 or cudnn.allow_tf32
        return x * (not fast and cudnn.deterministic and not cudnn.benchmark)

def telling():
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return Telling()

class Two(nn.Module):
    def forward(self, x, y=None):
        return {"b": x + 1, "a": x * 2} if y is None else x + y

def training():
    return nn.Sequential(nn.Dropout(0.9))

def sequence():
    # A Sequential, whose argument is `input`: the name of a function of Python.
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 4)).eval()

number = 3

def fails():
    raise ValueError("no weights here")
"""
SAMPLES = [{"image": np.random.default_rng(i).standard_normal((2, 4, 6, 6)).astype(np.float32)} for i in range(2)]
