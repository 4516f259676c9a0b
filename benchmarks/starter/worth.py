"""What `starter` is worth on real speech: frozen beside shallow features, and fine-tuned beside chance.

python -m benchmarks.starter.worth --data ../shared/data --random runs/starter/drawn
python -m benchmarks.starter.worth --corpora nemo --tuned starter=runs/nemo-starter random=runs/nemo-random

Everything is tested on speakers that were not heard, fold by fold; classifiers are chosen on the speakers of
the next fold. On ASED also with sentences that were not heard, since some are said in one emotion alone.
Of recordings that are there twice one is taken, as with --data.doubled drop. What was fine-tuned on the same
folds stands in the same table.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.starter.shallow import Features, of_sounds, predict
from ser_strategies.comparison.ledger import Ledger
from ser_strategies.comparison.stats.aligned import Aligned, align
from ser_strategies.comparison.stats.differences import differences
from ser_strategies.comparison.stats.intervals import interval
from ser_strategies.data.manifest.manifest import Manifest
from ser_strategies.data.rules import Split

FOLDS = {"ased": 5, "nemo": 6}
# Sentences that are tested together, by their numbers in the corpus: those of ASED's five emotions.
SENTENCES = {"ased": ((1, 2), (3, 4, 5), (6, 7))}


class Read(NamedTuple):
    """A corpus with its folds."""

    rows: pd.DataFrame  # id, label, speaker, sentence of every utterance
    folds: list[dict[Split, NDArray[np.int64]]]  # positions of train, val and test
    features: dict[str, Features]  # of each arm


def read(name: str, data: Path, kinds: dict[str, str]) -> Read:
    """A corpus of real speech, who is in which fold, and what each arm is given of it."""
    path, count = data / name / "manifest.csv", FOLDS[name]
    corpora = [
        Manifest(path=str(path), protocol="speaker-folds", doubled="drop", folds=count, fold=fold + 1)
        for fold in range(count)
    ]
    for corpus in corpora:
        corpus.setup("fit")
    splits: tuple[Split, ...] = ("train", "val", "test")
    rows = pd.concat([corpora[0].split(split) for split in splits]).sort_values("id").reset_index(drop=True)
    rows["sentence"] = rows["path"].map(pd.read_csv(path).set_index("path")["sentence"])
    place = {name: position for position, name in enumerate(rows["id"])}
    folds = [{s: np.array([place[i] for i in c.split(s)["id"]]) for s in splits} for c in corpora]
    return Read(rows, folds, {arm: of_sounds(rows, kind, corpora[0]) for arm, kind in kinds.items()})


def shallow(name: str, source: Read, groups: Any = ((),)) -> Aligned:
    """A classifier of statistics, fold by fold; each group of sentences is tested without being heard."""
    features = source.features[name]
    truth, sentence = source.rows["label"].to_numpy(), source.rows["sentence"].to_numpy()
    labels, runs = sorted(set(truth)), []
    for number, fold in enumerate(source.folds, 1):
        said = []
        for group in groups:
            asked = np.isin(sentence, group) if group else np.ones(len(truth), bool)
            heard = ~asked if group else asked
            train, val = fold["train"][heard[fold["train"]]], fold["val"][heard[fold["val"]]]
            test = fold["test"][asked[fold["test"]]]
            learnt, judged = (features[train], truth[train]), (features[val], truth[val])
            named = predict(name, learnt, judged, features[test], labels)
            rows = source.rows.iloc[test][["id", "label", "speaker", "gender"]].reset_index(drop=True)
            columns = [f"probability/{label}" for label in labels]
            said.append(pd.concat([rows, pd.DataFrame(named, columns=columns)], axis=1))
        runs.append((number, 0, pd.concat(said, ignore_index=True)))
    return align(runs, name)


def table(arms: list[Aligned], baseline: str) -> str:
    """A row for each, with its interval, and its difference from one of them."""
    pairs = {p.a if p.b == baseline else p.b: p for p in differences(arms, "ua", baseline=baseline)}
    lines = [
        f"| | UA % [95 %] | seeds | {baseline} less it, points [95 %] | p (Holm) |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm in arms:
        found = interval(arm, "ua")
        ends = "" if found.low is None else f" [{100 * found.low:.1f}, {100 * (found.high or 0):.1f}]"
        row = f"| {arm.name} | {100 * found.point:.1f}{ends} | {len(arm.seeds)} |"
        pair = pairs.get(arm.name)
        if pair is None or pair.low is None or pair.high is None:
            lines.append(f"{row} | |")
            continue
        sign = 1 if pair.a == baseline else -1
        low, high = sorted((100 * sign * pair.low, 100 * sign * pair.high))
        lines.append(f"{row} {100 * sign * pair.point:+.1f} [{low:+.1f}, {high:+.1f}] | {pair.p_holm:.2g} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--corpora", nargs="*", default=list(FOLDS))
    parser.add_argument(
        "--random", help="folder of the shape with random weights (default: none is compared)"
    )
    parser.add_argument("--tuned", nargs="*", default=[], help="name=folder of a comparison of the corpus")
    chosen = parser.parse_args()
    if chosen.tuned and len(chosen.corpora) != 1:
        parser.error("--tuned is of one corpus: name it with --corpora.")
    kinds = {"log-mel, logistic regression": "log-mel", "MFCC, SVM": "mfcc", "starter, frozen": "starter"}
    if chosen.random:
        kinds["random, frozen"] = chosen.random
    for name in chosen.corpora:
        source = read(name, chosen.data, kinds)
        arms = [shallow(each, source) for each in kinds]
        arms += [arm for words in chosen.tuned for arm in tuned(*words.split("=", 1))]
        print(f"## {name}: speakers not heard\n\n{table(arms, 'starter, frozen')}\n", flush=True)
        if name in SENTENCES:
            arms = [shallow(each, source, SENTENCES[name]) for each in kinds]
            print(f"## {name}: speakers and sentences not heard\n\n{table(arms, 'starter, frozen')}\n")


def tuned(prefix: str, folder: str) -> list[Aligned]:
    """The strategies of a comparison on the same folds."""
    ledger = Ledger.read(folder)
    finished = ledger.runs[ledger.runs["status"] == "finished"]
    return [
        align(
            [
                (run["fold"], int(run["seed"]), ledger.predictions(str(run["hash"])))
                for run in rows.to_dict("records")
            ],
            f"{prefix}, {name}",
        )
        for name, rows in finished.groupby("name")
    ]


if __name__ == "__main__":
    main()
