"""`ensemble`: checkpoints weighed on validation, scored together on test, and written down to be shipped."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from jsonargparse import ArgumentParser

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.class_paths import is_safe
from ser_strategies.common.errors import PROGRAM, MistypedError, counted, listed
from ser_strategies.common.quantities import Quantity, ScoreWords, quantity
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.ensembles.weighing_rules import By
from ser_strategies.fit.ensembling import MadeEnsemble, ensemble
from ser_strategies.fit.mistakes import explained, unwrapped
from ser_strategies.fit.safe import check_words
from ser_strategies.fit.shorthand import CONFIG, best_of

BLENDS = {"weighted": "weighted", "mean": "mean", "vote": "vote", "single": "best member"}
COSTS = (
    *("fit_seconds", "peak_memory_bytes", "inference_parameters", "inference_bytes"),
    *("inference_flops_per_audio_second", "inference_audio_seconds_per_second"),
)
DESCRIPTION = (
    "Weigh checkpoints on the validation split of their corpus, score them together on its test split once, "
    "and write an ensemble that `predict` reads. Without --data the corpus is that of the first member's run."
)


def run(command: str, arguments: list[str]) -> None:
    """Makes an ensemble and tells what it is worth."""
    parser = _parser(command)
    if {"-h", "--help"} & set(arguments) or not arguments:
        parser.print_help()
        return
    members, words = _parted(arguments)
    if not any(word.split("=")[0] in {"--data", "--data.help"} for word in words):
        words = [*_data_of(members), *words]
    check_words(words)
    with explained((), CORPORA, words):
        options = parser.parse_args(words)
    if options.trust and is_safe():
        msg = f"--safe refuses --trust {options.trust[0]}: leave one of them out."
        raise MistypedError(msg)
    with unwrapped():
        corpus: Corpus = parser.instantiate_classes(options).data
    made = ensemble(
        members,
        corpus,
        options.out,
        by=options.by,
        class_wise=options.class_wise,
        score=options.score,
        seed=options.seed,
        copy=options.copy,
        overwrite=options.overwrite,
        accelerator=options.accelerator,
        trust=tuple(options.trust or ()),
    )
    print("\n".join(lines(made)))


def lines(made: MadeEnsemble) -> list[str]:
    """What an ensemble is worth, for a terminal."""
    words = ScoreWords(made.score)
    told = [f"weights: {', '.join(f'{name} {weight:.3f}' for name, weight in made.weights.items())}"]
    if made.gap is not None:
        told.append(
            f"  the log loss on validation is the least there is, to within {max(made.gap, 1e-10):.1g} nats"
        )
    told.append(f"{words.title}, on validation and on test:")
    for kind, title in BLENDS.items():
        if kind in made.test:
            name = f"{title} ({made.single})" if kind == "single" else title
            both = [made.val[kind].get(f"val/{made.score}"), made.test[kind].get(f"test/{made.score}")]
            told.append(f"  {name:<32}{words.with_unit(both[0]):>10}{words.with_unit(both[1]):>10}")
    gain = made.gain
    told.append(
        f"gain over {made.single} on test: {words.difference(gain.point, gain.low, gain.high)} "
        f"({'shown' if gain.better == gain.a else 'not shown'} to be better, over "
        f"{counted(gain.clusters, gain.unit)}); optimism on validation {words.change(made.optimism)}"
    )
    told += [f"note: {note}" for note in gain.notes]
    costs = [f"{each.title} {each.text(made.costs.get(name))}" for name, each in _quantities()]
    told += [f"costs of all members: {', '.join(costs)}", f"written to {made.folder}"]
    return [*told, f"next: {PROGRAM} predict --ckpt_path {made.folder} recording.wav"]


def _quantities() -> list[tuple[str, Quantity]]:
    return [(name, quantity(f"cost/{name}")) for name in COSTS]


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The members, which stand before the options, and the options."""
    first = next((k for k, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    members, words = list(arguments[:first]), list(arguments[first:])
    if not members:
        msg = f"members are missing: give checkpoints first, as in `{PROGRAM} ensemble runs/a runs/b`."
        raise MistypedError(msg)
    return members, words


def _data_of(members: Sequence[str]) -> list[str]:
    """The corpus of the first member's run, as words."""
    path = best_of(members[0]).with_name(CONFIG)
    config: Any = read_yaml(path) if path.is_file() else None
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict) or "class_path" not in data:
        names = listed(kind.__name__ for kind in CORPORA)
        msg = f"--data is missing, and {path} does not say it: give the corpus, one of {names}."
        raise MistypedError(msg)
    given = data.get("init_args") or {}
    plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return [f"--data={data['class_path']}", *(f"--data.{name}={value}" for name, value in plain.items())]


def _parser(command: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} CHECKPOINT CHECKPOINT ... [--data CORPUS --data.root ...] [options]",
        description=DESCRIPTION,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_subclass_arguments(Corpus, "data", required=True, help="the corpus of all members")
    add = parser.add_argument
    add("--out", default="runs/ensemble", help="the folder to write")
    add(
        "--by",
        choices=get_args(By),
        help="what weights are the best by, on validation (log_loss; of dimensions ccc)",
    )
    add("--class_wise", action="store_true", help="weights of their own for each class or dimension")
    add("--score", help="the score that gain is told in (ua; of dimensions ccc)")
    add("--seed", type=int, default=0, help="of the search for weights")
    add("--copy", action="store_true", help="take the members into the folder")
    add("--overwrite", action="store_true", help="replace the ensemble that is there")
    add("--accelerator", default="auto", help="cpu, gpu or auto, for what is predicted")
    add("--trust", action="append", metavar="PACKAGE", help="a package whose code members may run")
    return parser
