"""What it takes to fine-tune an encoder of a billion parameters, reckoned from shapes: which cards hold it.

    python -m benchmarks.large_encoders [--size wav2vec2-xlarge] [--batch 8] [--seconds 5]

Models are made on torch's meta device, which has shapes and no numbers, so this needs neither a GPU nor the
memory. Counted are weights, gradients and AdamW's two moments of what trains (all float32), and whatever the
encoder keeps for the backward pass of one batch. Not counted are the head, kernels' workspaces and CUDA
itself: a card is said to hold a run that takes 90 % of it at most. Nothing of this was measured on a GPU.
"""

import argparse
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from ser_strategies.encoder import sources
from ser_strategies.encoder.families import FAMILIES, SpeechConfig, SpeechModel
from ser_strategies.strategies import (
    LoRAFineTuning,
    PartialFineTuning,
    Strategy,
    VanillaFineTuning,
)

CARDS = (24, 48, 80)  # GB
FILLED = 0.9
LABELS = ("anger", "happiness", "neutral", "sadness")
Make = Callable[[str], Strategy]
STRATEGIES: dict[str, Make] = {
    "vanilla": lambda encoder: VanillaFineTuning(encoder, labels=LABELS),
    "vanilla, recompute": lambda encoder: VanillaFineTuning(encoder, labels=LABELS, recompute=True),
    "lora": lambda encoder: LoRAFineTuning(encoder, labels=LABELS),
    "lora, recompute": lambda encoder: LoRAFineTuning(encoder, labels=LABELS, recompute=True),
    "partial, cached: 3 blocks": lambda encoder: PartialFineTuning(encoder, labels=LABELS, top_blocks=3),
}


def on_meta(config: SpeechConfig) -> SpeechModel:
    """A model without numbers."""
    sources._neutralise(config)
    config._attn_implementation = FAMILIES[config.model_type].attention
    with torch.device("meta"):
        return FAMILIES[config.model_type].model(config)


def kept(strategy: Strategy, batch: int, seconds: float) -> int:
    """Bytes that the encoder keeps for the backward pass."""
    own = {id(each) for each in strategy.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            found[id(base)] = base  # held, so that no other gets its number
        return tensor

    samples = round(seconds * 16_000)
    sound = torch.zeros(batch, samples, device="meta")
    lengths = torch.full((batch,), samples, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        strategy.encoder(sound, lengths)
    return sum(each.numel() * each.element_size() for each in found.values())


def main() -> None:
    """Prints a row for each strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="wav2vec2-xlarge")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print(
        f"{'strategy':<28}{'M weights':>10}{'M train':>9}{'state GB':>10}{'batch GB':>10}{'all GB':>8}  fits"
    )
    for name, make in STRATEGIES.items():
        with (
            patch.object(sources, "draw_model", on_meta),
            patch.object(sources, "fingerprint", lambda *_, **__: ""),
        ):
            strategy = make(f"random:{options.size}").to("meta")
        strategy.train()
        weights = sum(each.numel() for each in strategy.parameters())
        trains = sum(each.numel() for each in strategy.parameters() if each.requires_grad)
        state = 4 * weights + 12 * trains
        batch = kept(strategy, options.batch, options.seconds)
        total = (state + batch) / 1e9
        cards = ", ".join(str(card) for card in CARDS if total <= FILLED * card) or "none"
        print(
            f"{name:<28}{weights / 1e6:>10,.0f}{trains / 1e6:>9,.1f}{state / 1e9:>10.1f}{batch / 1e9:>10.1f}"
            f"{total:>8.1f}  {cards}",
            flush=True,
        )


if __name__ == "__main__":
    main()
