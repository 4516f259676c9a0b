"""The front door: `ser-strategies <command>`. Nothing heavy is imported before a command needs it."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from ser_strategies.common.class_paths import safely
from ser_strategies.common.compatibility import check_torch
from ser_strategies.common.errors import PROGRAM, MistypedError, did_you_mean, one_sentence
from ser_strategies.common.imports import much_imported

# Command -> what it does, and the function that does it, as module:function.
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("train a strategy on a corpus", ".fit.lightning_cli:run"),
    "estimate": ("tell what a fit would take, by a few steps: memory, time, disk", "estimate:run"),
    "validate": ("score a checkpoint on the validation split", ".fit.lightning_cli:run"),
    "test": ("score a checkpoint on the test split", ".fit.lightning_cli:run"),
    "ensemble": ("weigh checkpoints on validation, score them together, ship them", "ensemble:run"),
    "predict": ("write what a checkpoint says of files, folders or a corpus", "predict:run"),
    "doctor": ("tell what is there of a corpus, what is wrong with it and what to do", "doctor:run"),
    "prepare": ("extract the sound of a corpus of films", "prepare:run"),
    "cache": ("estimate, build, list, verify and prune caches of frozen encoders", "cache:run"),
    "run": (
        "run a chain: stages in a folder of numbered configurations, over folds and seeds",
        "run:run",
    ),
    "compare": (
        "train strategies on the same folds and seeds, and report accuracy against cost",
        "compare:run",
    ),
    "export": ("write a checkpoint for other programs: transformers, or ONNX", "export:run"),
    "card": ("print what the encoder `starter` is, what it heard, and what it is not", "card:run"),
    "examples": ("copy the examples of the documentation into a new folder", "examples:run"),
}
# These do some of their work without torch, and ask for it where they need it.
WITHOUT_TORCH = frozenset({"predict", "compare"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on a mistake in the words, with 1 on any other mistake."""
    if arguments is not None:
        _run(list(arguments))
        return
    try:
        _run(sys.argv[1:])
    finally:
        # While libraries are taken down, Ctrl-C would be a traceback of theirs: it ends the program at once.
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(words: list[str]) -> None:
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_help())
        return
    if words[0] in {"-V", "--version"}:
        print(f"{PROGRAM} {version('ser-strategies')}")
        return
    show_traceback = "--traceback" in words
    safe = "--safe" in words
    words = [word for word in words if word not in {"--traceback", "--safe"}]
    with one_sentence(words[0], traceback=show_traceback), _classes_found_here(), safely(safe):
        _command(words[0])(words[0], words[1:])


@contextmanager
def _classes_found_here() -> Iterator[None]:
    """Lets class paths name modules in the current folder, behind everything that is installed."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _command(name: str) -> Callable[[str, list[str]], None]:
    if name not in COMMANDS:
        msg = f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}"
        raise MistypedError(msg)
    module, function = COMMANDS[name][1].split(":")
    with much_imported():
        if name not in WITHOUT_TORCH:
            check_torch()
        command: Callable[[str, list[str]], None] = getattr(import_module(f".{module}", __name__), function)
    return command


def _help() -> str:
    commands = "\n".join(f"  {name:<10}{what}" for name, (what, _) in COMMANDS.items())
    return f"""usage: {PROGRAM} <command> [options]

Fine-tuning strategies for speech emotion recognition.

commands:
{commands}

examples:
  {PROGRAM} fit --config examples/lora.yaml
  {PROGRAM} fit --model partial --model.encoder facebook/wav2vec2-base --data Synthetic
  {PROGRAM} test --ckpt_path runs/lora
  {PROGRAM} predict --ckpt_path runs/lora recording.wav folder/
  {PROGRAM} ensemble runs/lora runs/partial --out runs/both
  {PROGRAM} doctor --data CREMAD --data.root ~/CREMA-D
  {PROGRAM} run examples/tapt --fold 1..5 --seed 0..4
  {PROGRAM} compare --strategies vanilla partial lora --data Synthetic --seeds 3
  {PROGRAM} export runs/lora --to my-encoder

more help:
  {PROGRAM} fit --model lora --help             the options of a strategy
  {PROGRAM} fit --help-trainer                  every option of the trainer
  {PROGRAM} fit --model.help lora               the same, with types and all it inherits
  {PROGRAM} fit --data.help Synthetic           every option of a corpus
  {PROGRAM} <command> ... --print_config        the resolved configuration, running nothing
  {PROGRAM} <command> ... --safe                refuse code of others, as a stranger's configuration may name
  {PROGRAM} <command> ... --traceback           where an error happened"""
