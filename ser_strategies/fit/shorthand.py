"""Shorter command lines: names of strategies, and everything that the folder of a run tells."""

import atexit
import re
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import yaml

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.errors import MistypedError
from ser_strategies.common.files import write_text
from ser_strategies.strategies import STRATEGIES

BEST, CONFIG = "best.ckpt", "config.yaml"
CKPT_PATH = "--ckpt_path"
# Options of a corpus that say how it is read, rather than what it is.
KEPT = ("batch_size", "batch_seconds", "workers", "order_seed")


def short_name(kind: str) -> str:
    """The short name of a strategy: lora for LoRAFineTuning."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", kind).lower()
    return words.removesuffix("-fine-tuning").replace("lo-ra", "lora")


FULL_NAMES = {short_name(kind.__name__): kind.__name__ for kind in STRATEGIES}
# Both torch and Lightning have one; Lightning's says what it watches.
PLATEAU = {"ReduceLROnPlateau": "lightning.pytorch.cli.ReduceLROnPlateau"}
WRITTEN_OUT = {"--model": FULL_NAMES, "--model.help": FULL_NAMES, "--model.scheduler": PLATEAU}


def with_full_names(words: Sequence[str]) -> list[str]:
    """Words of a command with `--model lora` written out."""
    found = list(words)
    for index, word in enumerate(found):
        option, given, name = word.partition("=")
        if given and option in WRITTEN_OUT:
            found[index] = f"{option}={WRITTEN_OUT[option].get(name, name)}"
        elif index and found[index - 1] in WRITTEN_OUT:
            found[index] = WRITTEN_OUT[found[index - 1]].get(word, word)
    return found


def best_of(checkpoint: str | Path) -> Path:
    """The checkpoint that is meant: of a run's folder the best one."""
    path = Path(checkpoint)
    return path / BEST if (path / BEST).is_file() else path


def completed(command: str, words: Sequence[str]) -> list[str]:
    """Words of a command in full: the run beside a checkpoint that is scored says what is not given."""
    found = with_full_names(words)
    place = _place_of(CKPT_PATH, found)
    if command == "fit" or place is None:
        return found
    index, given = place
    checkpoint = best_of(given)
    found[index] = f"{CKPT_PATH}={checkpoint}" if "=" in found[index] else str(checkpoint)
    options = {word.split("=")[0] for word in found}
    if options & {"--config", "-c", "--model"}:
        return found
    if not checkpoint.is_file():
        msg = f"{CKPT_PATH} {given} does not exist: expected a checkpoint, or the folder of a run."
        raise MistypedError(msg)
    if not (checkpoint.parent / CONFIG).is_file():
        return found
    start = ["--config", str(_without_its_corpus(checkpoint.parent / CONFIG, value_of("--data", found)))]
    if "--trainer.default_root_dir" not in options:
        start.append(f"--trainer.default_root_dir={checkpoint.parent}")
    return [*start, *found]


def _without_its_corpus(config: Path, corpus: str) -> Path:
    """A run's configuration, less what describes its corpus where another one is named.

    Where both have options of one name, such as root or dimensions, those of the first mean nothing there.
    """
    if not corpus:
        return config
    try:
        content = read_yaml(config)
        data = content["data"]
        known, options = str(data["class_path"]), dict(data["init_args"])
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError):
        return config  # whoever reads it next knows what to say
    if known.rpartition(".")[2] == corpus.rpartition(".")[2]:
        return config
    content["data"] = {"class_path": known, "init_args": {k: v for k, v in options.items() if k in KEPT}}
    folder = Path(mkdtemp())
    atexit.register(rmtree, folder, ignore_errors=True)
    shortened = folder / CONFIG
    write_text(shortened, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return shortened


def value_of(option: str, words: Sequence[str]) -> str:
    """The value that is given for an option; empty where none is."""
    place = _place_of(option, words)
    return place[1] if place else ""


def _place_of(option: str, words: Sequence[str]) -> tuple[int, str] | None:
    """The position of an option's value among the words, and the value."""
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            return index, word.partition("=")[2]
        if word == option and index + 1 < len(words):
            return index + 1, words[index + 1]
    return None
