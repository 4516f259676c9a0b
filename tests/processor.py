"""Whether this processor rounds as another one did: only then can numbers be compared to the last bit."""

import hashlib
import platform
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def roundings() -> dict[str, str]:
    """A hash of what each kind of arithmetic comes to here, on one thread and small tensors.

    Libraries choose other instructions on other processors (AVX2, AVX-512, brain floats in hardware), add up
    in another order, and draw normal numbers with another logarithm. Nothing of ours is called: a change of
    ours cannot be taken for another processor. Two makes of AVX-512 once agreed in all of it, and yet not in
    the products of a training step, so the make counts, too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            results = {name: _hash(*tensors) for name, tensors in _results().items()}
    finally:
        torch.set_num_threads(threads)
    angles = np.random.default_rng(0).normal(size=10_000)
    heights = np.stack([np.sin(angles), np.cos(angles), np.exp(angles), np.tanh(angles)])
    return results | {"numpy": hashlib.sha256(heights.tobytes()).hexdigest()[:16], "make": _make()}


def _make() -> str:
    """Who made the processor, and which family and model it is of; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    return " ".join(facts.get(name, "") for name in ("vendor_id", "cpu family", "model")).strip()


def _results() -> dict[str, list[Tensor]]:
    drawn = torch.randn(4, 16, 4_000)
    wide = drawn[0, :, :1_024].reshape(4, 64, 64)
    weights = torch.randn(64, 64)
    return {
        "normal draws": [drawn, torch.nn.init.kaiming_normal_(torch.empty(32, 16, 10))],
        "matrix product": [drawn[0] @ drawn[1].T, wide @ weights, F.linear(wide, weights, weights[0])],
        "brain floats": [(wide.bfloat16() @ weights.bfloat16()).float()],
        "convolution": _with_gradient(lambda x: F.conv1d(x, torch.ones(32, 16, 10) / 3, stride=5), drawn),
        "grouped convolution": _with_gradient(
            lambda x: F.conv1d(x, torch.ones(64, 16, 32) / 7, padding=16, groups=4), wide
        ),
        "attention": _with_gradient(lambda x: F.scaled_dot_product_attention(x, x, x), wide[:, None]),
        "softmax": _with_gradient(lambda x: torch.log_softmax(x, -1) * weights, wide),
        "norms": _with_gradient(lambda x: F.layer_norm(F.group_norm(x, 16), (4_000,)) * drawn.flip(0), drawn),
        "functions": _with_gradient(lambda x: F.gelu(x) + torch.tanh(x) + torch.exp(x), wide),
        "sums": [drawn.sum(), drawn.mean(-1), drawn.std(-1), drawn.norm()],
    }


def _with_gradient(function, value: Tensor) -> list[Tensor]:
    value = value.detach().clone().requires_grad_()
    result = function(value)
    result.square().sum().backward()
    return [result.detach(), value.grad]


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
