"""What the tests of parts share: chance that is the same wherever it is drawn."""

import torch
import torch.nn.functional as F
from torch import Tensor


def fixed_noise(logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Tensor:
    """torch's straight-through Gumbel softmax with noise that depends on the entry alone."""
    assert hard
    assert dim == -1
    noise = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(5))
    soft = ((logits + noise) / tau).softmax(-1)
    return F.one_hot(soft.argmax(-1), logits.shape[-1]) - soft.detach() + soft
