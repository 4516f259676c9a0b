"""Arms: strategies by name, configurations and chains, each with the words of its stages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.errors import MistypedError, did_you_mean
from ser_strategies.comparison.ledger import read_comparison
from ser_strategies.data.corpora import CORPORA
from ser_strategies.runs.arguments import GROUPS, CompareArguments, FitOptions, RunArguments, share_out
from ser_strategies.runs.presets import PRESETS, TINY, StageWords, Start
from ser_strategies.runs.stages import find_stages

# A name becomes a part of an option and of file names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
RUN_CONFIG = "config.yaml"  # in the folder of a run
MODEL_CLASS = ("--model", "--model.class_path")
ENCODER = ("--model.encoder", "--model.init_args.encoder")


@dataclass(frozen=True)
class Arm:
    """A strategy in a comparison."""

    name: str
    stages: tuple[StageWords, ...]  # without the words that the comparison adds
    default: Path  # the folder of its stages, if their words name none


def find_arms(asked: CompareArguments) -> list[Arm]:
    """All strategies in the given order; MistypedError if one is unknown or named twice."""
    special = asked.options.special
    arms = [_arm(name, source, asked) for name, source in asked.strategies]
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"{twice} is named twice: give each strategy once, and files and folders names of their own."
        raise MistypedError(msg)
    for name in special:
        if name not in names:
            known = [*names, *(group[2:] for group in GROUPS)]
            hint = did_you_mean(name, known)
            msg = f"--{name}. addresses no strategy: expected one of {', '.join(names)}{hint}"
            raise MistypedError(msg)
    before = [*names, *map(str, read_comparison(asked.out).get("names", []))]
    if asked.baseline is not None and asked.baseline not in before:
        hint = did_you_mean(asked.baseline, names)
        msg = f"--baseline {asked.baseline} is not compared: expected one of {', '.join(names)}{hint}"
        raise MistypedError(msg)
    return [_with_options(arm, asked) for arm in arms]


def chain_arm(asked: RunArguments) -> Arm:
    """A chain as an arm; options of a single stage stand behind those of all."""
    files = find_stages(asked.folder)
    names = [file.name for file in files]
    common, special = asked.options.common, asked.options.special
    for name in special:
        if name not in names:
            msg = (
                f"--{name}. addresses no stage: expected one of {', '.join(names)}{did_you_mean(name, names)}"
            )
            raise MistypedError(msg)
    stages = (
        StageWords(file.name, ("--config", str(file.path), *common, *special.get(file.name, ())))
        for file in files
    )
    name = asked.folder.resolve().name
    return Arm(name, tuple(stages), Path("runs", name))


def _arm(name: str, source: str | Path | tuple[str, ...], asked: CompareArguments) -> Arm:
    if isinstance(source, Path):
        arm = _of_path(source, name)
    elif isinstance(source, str):
        words = [*asked.options.common, *asked.options.special.get(name, ())]
        arm = Arm(name, _preset(source, name, words), Path(f"runs/compare-{name}"))
    else:
        arm = Arm(name, (StageWords("", source),), Path(f"runs/compare-{name}"))
    if NAME.fullmatch(arm.name) is None or f"--{arm.name}" in GROUPS:
        msg = (
            f"{source if isinstance(source, Path) else name}: its name would be that of a strategy, and "
            f"options would be addressed to it: expected one of letters, digits, - and _, other than "
            f"{', '.join(group[2:] for group in GROUPS)}."
        )
        raise MistypedError(msg)
    return arm


def _preset(preset: str, name: str, words: Sequence[str]) -> tuple[StageWords, ...]:
    if preset not in PRESETS:
        hint = did_you_mean(preset, list(PRESETS))
        if Path(preset).exists():
            hint = f"; give configurations without --strategies, as in `compare {preset}`."
        msg = f"--strategies {preset} is not known: expected some of {', '.join(PRESETS)}{hint}"
        raise MistypedError(msg)
    encoder = _value(words, ENCODER)
    data = _value(words, ("--data", "--data.class_path"))
    if data is None:
        msg = f"--data is missing: expected one of {', '.join(kind.__name__ for kind in CORPORA)}."
        raise MistypedError(msg)
    if encoder is None:
        if data.rpartition(".")[2] != "Synthetic":
            msg = "--model.encoder is missing: expected an encoder, such as facebook/wav2vec2-base."
            raise MistypedError(msg)
        encoder = TINY  # made-up speech needs no better one
    return PRESETS[preset](Start(encoder, f"runs/compare-{name}"))


def called(path: Path) -> str:
    """What a configuration is called: by its file, or that of a run by the folder of the run."""
    return path.resolve().parent.name if path.name == RUN_CONFIG else path.stem


def _of_path(path: Path, name: str) -> Arm:
    if (path / RUN_CONFIG).is_file() and not list(path.glob("1-*.y*ml")):
        path /= RUN_CONFIG  # a run's folder
    if path.is_dir():
        folder = path.resolve().name
        stages = tuple(StageWords(file.name, ("--config", str(file.path))) for file in find_stages(path))
        return Arm(name or folder, stages, Path("runs", folder))
    if path.is_file():
        own = called(path)
        return Arm(name or own, (StageWords("", ("--config", str(path))),), Path("runs", own))
    hint = did_you_mean(path.name, list(PRESETS))
    if path.name in PRESETS:
        hint = f"; a strategy by name goes behind --strategies, as in --strategies {path.name}."
    msg = f"{path} does not exist: expected a configuration of `fit` or the folder of a chain{hint}"
    raise MistypedError(msg)


def _with_options(arm: Arm, asked: CompareArguments) -> Arm:
    """The strategy with the options for all, and then those for it."""
    mine = _by_stage(arm, asked.options.special.get(arm.name, ()))
    stages = []
    for stage in arm.stages:
        last = stage is arm.stages[-1]
        words = [*stage.words, *_common(arm, stage, asked.options.common, last=last)]
        words += _budget(asked) if last else ()
        words += [*mine.common, *mine.special.get(stage.name, ())]
        stages.append(StageWords(stage.name, tuple(words)))
    return Arm(arm.name, tuple(stages), arm.default)


def _common(arm: Arm, stage: StageWords, words: Sequence[str], *, last: bool) -> list[str]:
    """The words for all, less those that would undo what makes a stage that stage.

    The encoder is where a strategy starts: what a later stage starts from is its chain's business. Options of
    the model are those of what predicts emotion, which an adaptation does not have.
    """
    chain = len(arm.stages) > 1
    chosen: list[str] = []
    keep = True
    for word in words:
        if word.startswith("--"):
            name = word.split("=")[0]
            of_model = name == "--model" or name.startswith("--model.")
            if name in MODEL_CLASS:
                msg = f"compare does not take {name}: name strategies with --strategies or configurations."
                raise MistypedError(msg)
            if name in ENCODER:
                # Of presets it is already where it belongs; what starts from an earlier stage keeps to that.
                keep = stage.words[:1] == ("--config",) and not _starts_from_checkpoint(stage)
            else:
                keep = not of_model or last or not chain
        if keep:
            chosen.append(word)
    return chosen


def _starts_from_checkpoint(stage: StageWords) -> bool:
    """Whether a stage's file names a checkpoint as its encoder; unreadable files are reported later."""
    try:
        config = read_yaml(Path(stage.words[1]))
        return str(config["model"]["init_args"]["encoder"]).endswith(".ckpt")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return False


def _by_stage(arm: Arm, words: Sequence[str]) -> FitOptions:
    """The options for a strategy: for all of its stages, and for one of them."""
    own, mine = share_out(words, lambda group: group not in GROUPS)
    for word in mine.common:
        if word.split("=")[0] in MODEL_CLASS:
            msg = f"--{arm.name}.{word[2:]}: a strategy's class is what its name says: compare another."
            raise MistypedError(msg)
    stages = [stage.name for stage in arm.stages if stage.name]
    strange = [
        *(word[2:].split("=")[0] for word in own),
        *(name for name in mine.special if name not in stages),
    ]
    if strange:
        expected = f"one of its stages ({', '.join(stages)}) or " if stages else ""
        near = did_you_mean(strange[0], [*stages, *(each[2:] for each in GROUPS)])
        msg = (
            f"--{arm.name}.{strange[0]}: expected {expected}model, data or trainer, got {strange[0]!r}{near}"
        )
        raise MistypedError(msg)
    return mine


def _budget(asked: CompareArguments) -> list[str]:
    """The words that limit a fine-tuning: its budget, and the patience after which it stops early."""
    words = [] if asked.patience is None else [f"--patience={asked.patience}"]
    if asked.budget is None:
        return words
    kind, amount = asked.budget
    if kind == "epochs":
        epochs = f"--trainer.max_epochs={amount}"
        return [*words, epochs, "--trainer.max_steps=-1", "--trainer.max_time=null"]
    if kind == "seconds":
        limit = f"{amount // 86400:02}:{amount // 3600 % 24:02}:{amount // 60 % 60:02}:{amount % 60:02}"
        return [*words, f"--trainer.max_time={limit}", "--trainer.max_epochs=-1", "--trainer.max_steps=-1"]
    # At most ten looks at the validation split, whatever an epoch is; the last step is one of them if it can.
    between = next((n for n in range(-(-amount // 10), amount) if amount % n == 0 and n * 5 <= amount), 0)
    between = between or -(-amount // 10)
    return [
        *words,
        f"--trainer.max_steps={amount}",
        "--trainer.max_epochs=-1",
        "--trainer.max_time=null",
        "--trainer.check_val_every_n_epoch=null",
        f"--trainer.val_check_interval={between}",
    ]


def _value(words: Sequence[str], names: Sequence[str]) -> str | None:
    """The value that was given last for an option."""
    found = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else next(iter(words[index + 1 : index + 2]), None)
    return found
