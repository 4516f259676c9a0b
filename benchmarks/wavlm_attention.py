"""WavLM's attention against transformers' eager one, in time and memory, at several lengths.

    python -m benchmarks.wavlm_attention [--what layer encoder] [--seconds 2 6 12 20] [--device cuda]

"layer" is one attention layer of base size, "encoder" the whole of WavLM-base from waveform to frames.
Both sides have the same weights, the dropout of the published checkpoint in training, and the same
batch, 24 s of sound in all; no clip is padded. They take turns, each in a process of its own. Memory is
what a process takes at most beyond what it has before its first step; on a GPU, what torch has
allocated at most. "Apart" are the largest differences of values and of gradients, relative to their
norms, without dropout.
"""

import argparse
import copy
import platform
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from benchmarks.clips import RATE
from benchmarks.turns import Turn, spread, take_turns
from ser_strategies.encoder import Encoder
from ser_strategies.encoder.attention import GatedBiasAttention
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory

SOUND = 24.0
LENGTHS = (2.0, 6.0, 12.0, 20.0)
FRAMES_PER_SECOND = 50


def layer(turn: Turn, who: str, seconds: float, device: str, *, training: bool) -> None:
    """One attention layer, without end.

    Args:
        turn: When to work.
        who: "ours" or "theirs".
        seconds: Of each clip.
        device: Where.
        training: Whether gradients are wanted, too.
    """
    frames = round(seconds * FRAMES_PER_SECOND) - 1
    module = layers()[who].to(device).train(training)
    hidden = torch.randn(batch_of(seconds), frames, WavLMConfig().hidden_size, device=device)
    hidden.requires_grad_(training)
    run(turn, who, lambda: module(hidden)[0], training=training, device=device)


def encoder(turn: Turn, who: str, seconds: float, device: str, *, training: bool) -> None:
    """The whole encoder, without end.

    Args:
        turn: When to work.
        who: "ours" or "theirs".
        seconds: Of each clip.
        device: Where.
        training: Whether gradients are wanted, too.
    """
    sound = torch.randn(batch_of(seconds), round(seconds * RATE), device=device) / 10
    lengths = torch.full((len(sound),), sound.shape[1], device=device)
    if who == "ours":
        mine = Encoder("random:wavlm-base").to(device).train(training)
        run(turn, who, lambda: mine(sound, lengths).values, training=training, device=device)
    config = WavLMConfig(apply_spec_augment=False, layerdrop=0.0)
    model: Any = WavLMModel._from_config(config, attn_implementation="eager")
    model.load_state_dict(load_encoder("random:wavlm-base").model.state_dict(), strict=False)
    model = model.to(device).train(training)
    run(turn, who, lambda: model(sound).last_hidden_state, training=training, device=device)


def run(turn: Turn, who: str, forward: Callable[[], Tensor], *, training: bool, device: str) -> None:
    """Does a step at each turn.

    Args:
        turn: When to work.
        who: "ours" keeps freed memory, as a run of ours does.
        forward: What to compute.
        training: Whether gradients are wanted, too.
        device: Where.
    """
    if who == "ours" and device == "cpu":
        keep_few_kernels()
        keep_freed_memory()
    turn.wait()
    while True:
        with torch.set_grad_enabled(training):
            out = forward()
            if training:
                out.square().mean().backward()  # type: ignore[no-untyped-call]
        if device != "cpu":
            torch.cuda.synchronize()
        turn.done()


def layers(dropout: float | None = None) -> dict[str, nn.Module]:
    """The same layer twice: theirs, and ours around a copy of its weights.

    Args:
        dropout: None has that of the published checkpoint.
    """
    config = WavLMConfig()
    rate = config.attention_dropout if dropout is None else dropout
    torch.manual_seed(0)
    theirs = WavLMAttention(config.hidden_size, config.num_attention_heads, dropout=rate)
    return {"theirs": theirs, "ours": GatedBiasAttention(copy.deepcopy(theirs))}


def batch_of(seconds: float) -> int:
    """Clips of so many seconds that make about as much sound at every length.

    Args:
        seconds: Of each.
    """
    return max(round(SOUND / seconds), 1)


def apart(seconds: float, device: str) -> tuple[float, float]:
    """The largest relative difference of values, and of gradients, of the two layers.

    Args:
        seconds: Of each clip.
        device: Where.
    """
    frames = round(seconds * FRAMES_PER_SECOND) - 1
    found = {}
    for who, module in layers(0.0).items():
        torch.manual_seed(1)
        hidden = torch.randn(2, frames, WavLMConfig().hidden_size).to(device).requires_grad_()
        values = module.to(device)(hidden)[0]
        values.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        # The bias of the keys moves all weights of a query alike: its gradient is rounding around zero.
        del gradients["k_proj.bias"]
        found[who] = [values.detach(), hidden.grad, *(gradients[name] for name in sorted(gradients))]
    distances = [
        float((mine - other).norm() / other.norm())
        for mine, other in zip(found["ours"], found["theirs"], strict=True)
    ]
    return distances[0], max(distances[1:])


def main() -> None:
    """Prints a row for each length, in inference and in training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="+", choices=("layer", "encoder"), default=["layer", "encoder"])
    parser.add_argument("--seconds", nargs="+", type=float, default=list(LENGTHS))
    parser.add_argument("--layer_steps", type=int, default=15)
    parser.add_argument("--encoder_steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    name = platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {name}, {options.device}")
    for seconds in options.seconds:
        values, gradients = apart(seconds, options.device)
        print(f"{seconds:>4g} s apart: values {values:.1e}, gradients {gradients:.1e}", flush=True)
    print(
        f"\n{'':<9}{'':<10}{'s':>4}{'batch':>6}{'eager ms':>10}{'ours ms':>9}{'ratio':>7}{'range':>12}",
        end="",
    )
    print(f"{'eager MB':>10}{'ours MB':>9}{'ratio':>7}")
    for what in options.what:
        steps = options.layer_steps if what == "layer" else options.encoder_steps
        for training in (False, True):
            for seconds in options.seconds:
                _row(what, seconds, steps, options.device, training=training)


def _row(what: str, seconds: float, steps: int, device: str, *, training: bool) -> None:
    function = {"layer": _Step(layer, training), "encoder": _Step(encoder, training)}[what]
    theirs, ours = take_turns([(function, (who, seconds, device)) for who in ("theirs", "ours")], steps, 2)
    mode = "training" if training else "inference"
    taken = [(side.peak - side.before) / 1e6 for side in (theirs, ours)]
    print(
        f"{what:<9}{mode:<10}{seconds:>4g}{batch_of(seconds):>6}{1e3 * theirs.median:>10.1f}"
        f"{1e3 * ours.median:>9.1f}{theirs.median / ours.median:>7.2f}{spread(theirs, ours):>12}"
        f"{taken[0]:>10.0f}{taken[1]:>9.0f}{taken[1] / max(taken[0], 1):>7.2f}",
        flush=True,
    )


class _Step:
    """A function with its mode, which another process can be given."""

    def __init__(self, function: Callable[..., None], training: bool) -> None:
        self.function, self.training = function, training

    def __call__(self, turn: Turn, *arguments: Any) -> None:
        self.function(turn, *arguments, training=self.training)


if __name__ == "__main__":
    main()
