"""The protocol and the settings in words, and a paragraph that a paper can paste."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from ser_strategies.common.errors import counted
from ser_strategies.common.quantities import MISSING, known
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.blends_told import ensemble_methods
from ser_strategies.comparison.report.tables import TextTable
from ser_strategies.comparison.summary import FULL

LONG = {
    "epochs": "the same number of epochs",
    "steps": "the same number of steps",
    "seconds": "the same time",
}
# Options of a strategy that say how it trains, where they are set; the rest stands in its config.yaml.
OPTIONS = (
    *("top_blocks", "train_cnn", "rank", "alpha", "rank_stabilised", "decomposed", "lora_dropout", "pooling"),
    *("layer_mix", "head", "head_size", "head_dropout", "encoder_dropout", "layerdrop", "class_weights"),
    *("label_smoothing", "soft_labels", "frame_loss_weight", "max_seconds", "mask_time_probability"),
    *("mask_time_length", "mask_channel_probability", "mask_channel_length", "objective"),
    *("conditions", "conditions_withheld", "gender_enters", "gender_at_test", "text_encoder"),
)
DEPENDS = {
    "mask_time_length": "mask_time_probability",
    "mask_channel_length": "mask_channel_probability",
    **dict.fromkeys(("conditions_withheld", "gender_enters", "gender_at_test"), "conditions"),
}
LIBRARIES = ("torch", "lightning", "transformers", "peft")


def protocol(findings: Findings) -> list[tuple[str, str]]:
    """What was compared on what, each fact with its name."""
    runs = findings.finished
    first = next(iter(findings.data.values()), {})
    facts = [
        ("task", _one(runs["task"])),
        ("splits", str(first.get("words") or MISSING)),
        ("classes", ", ".join(findings.labels)),
        ("utterances", _sizes(findings.data)),
        ("folds and seeds", _cells(runs)),
        ("encoder", _encoder(findings)),
        (
            "chosen by",
            f"best {findings.monitor.title} on validation, {_one(runs['monitor'])}; test never chooses",
        ),
        ("budget", LONG.get(_one(runs["mode"]), _one(runs["mode"]))),
        ("machine", _one(runs["hardware"])),
        ("number format", _one(runs["precision"])),
        (
            "memory",
            {"resident": "resident set of the process", "cuda": "allocated on the GPU"}.get(*_kind(runs)),
        ),
        ("protocol digest", ", ".join(_digests(runs))),
        ("shared on purpose", "; ".join(_gathered(findings.data, "brands"))),
        ("not as published", "; ".join(_gathered(findings.data, "differences"))),
        ("not checked", "; ".join(_gathered(findings.data, "unchecked"))),
        ("left out of the corpus", _dropped(first)),
        ("unreadable", _unreadable(findings.data)),
        ("software", _software(findings)),
    ]
    return [(name, words) for name, words in facts if words]


def methods(findings: Findings) -> str:
    """A paragraph for the methods of a paper."""
    runs, words = findings.finished, findings.words
    names = [name for name in findings.names if name not in findings.ensembles]
    folds = max(int(runs["fold"].nunique()), 1)
    many = f"{len(names)} strategies" if len(names) != 1 else "one strategy"
    trained = counted(max(int(runs["seed"].nunique()), 1), "seed") + (
        f" on each of {folds} folds" * (folds > 1)
    )
    test = f"The test sets of the {folds} folds count as one; its" if folds > 1 else "The"
    sentences = [
        f"We compared {many} for fine-tuning {_encoder(findings)} on {_one(runs['task'])} "
        f"({', '.join(names)}), "
        f"with ser_strategies {_library(findings)}.",
        str(next(iter(findings.data.values()), {}).get("words") or ""),
        f"Each was trained with {trained}; the epoch with the best {findings.monitor.title} on validation "
        "was tested.",
        *_training(findings),
        *ensemble_methods(findings.ensembles),
        f"{test} {words.title} is the mean over seeds.",
        *_uncertainty(findings),
        *_costs(findings),
    ]
    return " ".join(filter(None, sentences))


def settings(findings: Findings) -> TextTable:
    """One row a strategy, or a stage of a chain: how long, how fast, with what it was trained."""
    found = _settings(findings)
    columns = list(dict.fromkeys(name for facts in found.values() for name in facts))
    rows = [(label, *(facts.get(name, MISSING) for name in columns)) for label, facts in found.items()]
    return TextTable(("strategy", *columns), tuple(rows), words=True)


def _settings(findings: Findings) -> dict[str, dict[str, str]]:
    found = {}
    for name, stages in findings.configurations.items():
        for number, configuration in enumerate(stages, 1):
            facts = _facts(configuration)
            if facts:
                found[f"{name}, stage {number}" if len(stages) > 1 else name] = facts
    return found


def _facts(configuration: Mapping[str, Any]) -> dict[str, str]:
    """What a reviewer asks of a configuration, as far as it is set."""
    trainer = configuration.get("trainer") or {}
    model, data = _arguments(configuration.get("model")), _arguments(configuration.get("data"))
    optimizer = model.get("optimizer")
    facts = {
        "epochs": trainer.get("max_epochs"),
        "steps": trainer.get("max_steps") if (trainer.get("max_steps") or -1) > 0 else None,
        "time": trainer.get("max_time"),
        "patience": configuration.get("patience"),
        "batch": _batch(data, trainer),
        "optimizer": _class(optimizer),
        "encoder rate": model.get("encoder_lr"),
        "head rate": model.get("head_lr"),
        "weight decay": _arguments(optimizer).get("weight_decay"),
        "schedule": _class(model.get("scheduler")),
        "warm-up": f"{model['warmup_steps']} steps" if model.get("warmup_steps") else None,
        "clipping": trainer.get("gradient_clip_val"),
        "precision": trainer.get("precision"),
        "augmentation": _class(data.get("augmentation")),
        "options": ", ".join(
            f"{name} {model[name]}"
            for name in OPTIONS
            if model.get(DEPENDS.get(name, name)) and model.get(name) not in (None, "none", False, 0)
        )
        or None,
    }
    return {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in facts.items()
        if value is not None
    }


def _arguments(component: Any) -> Mapping[str, Any]:
    return (component.get("init_args") or {}) if isinstance(component, Mapping) else {}


def _class(component: Any) -> str | None:
    if isinstance(component, Mapping):
        component = component.get("class_path")
    return str(component).rpartition(".")[2] if component else None


def _batch(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    size, seconds = data.get("batch_size"), data.get("batch_seconds")
    if not size and not seconds:
        return None
    words = f"{seconds:g} s of speech" if seconds else f"{size} utterances"
    times = trainer.get("accumulate_grad_batches") or 1
    return words if times == 1 else f"{times} x {words}"


def _training(findings: Findings) -> list[str]:
    """What all strategies were trained with, and what each of them has of its own."""
    found = _settings(findings)
    if not found:
        return []
    names = list(dict.fromkeys(name for facts in found.values() for name in facts))
    shared = {name for name in names if len({facts.get(name) for facts in found.values()}) == 1}
    all_have = _listed(next(iter(found.values())), [name for name in names if name in shared])
    own = {
        label: _listed(facts, [name for name in facts if name not in shared])
        for label, facts in found.items()
    }
    each = "; ".join(f"{label}: {words}" for label, words in own.items() if words)
    return [f"Training: {all_have}."] * bool(all_have) + [f"By strategy: {each}."] * bool(each)


def _listed(facts: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(
        facts[name] if name in ("optimizer", "options", "schedule") else f"{name} {facts[name]}"
        for name in names
    )


def _library(findings: Findings) -> str:
    """The version that the runs were made with, if they say so; else the one at work."""
    return str(
        (findings.environment.get("packages") or {}).get("ser-strategies") or version("ser-strategies")
    )


def _software(findings: Findings) -> str:
    packages = findings.environment.get("packages") or {}
    parts = [f"ser_strategies {_library(findings)}"]
    parts += [f"Python {findings.environment['python']}"] if findings.environment.get("python") else []
    return ", ".join(parts + [f"{name} {packages[name]}" for name in LIBRARIES if packages.get(name)])


def _uncertainty(findings: Findings) -> list[str]:
    sentences = []
    row = findings.rows[findings.names[0]] if findings.names else {}
    if row.get("method"):
        sentences.append(
            f"Intervals (95 %) hold for other {row['unit']}s and other seeds: {row['method']}, variances "
            "added, Student's t (Cameron et al., 2011)."
        )
    count = len(findings.differences)
    if count:
        tests = " or ".join(dict.fromkeys(pair.test for pair in findings.differences))
        corrected = f", corrected over {count} pairs (Holm, 1979)" if count > 1 else ""
        sentences.append(f"Differences are paired, on the same utterances, and tested by {tests}{corrected}.")
    return sentences


def _costs(findings: Findings) -> list[str]:
    runs = findings.finished
    sentences = [
        f"Costs are medians over runs, each in a process of its own ({_one(runs['hardware'])}; number format "
        f"{_one(runs['precision'])}; {_software(findings)})."
    ]
    if (runs["stages"] > 1).any():
        sentences.append("A chain costs the sum of its stages.")
    if any(known(row.get(FULL)) for row in findings.rows.values()):
        sentences.append("A cache that runs share is charged to each in part.")
    return sentences


def _one(values: "pd.Series[str]") -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values.dropna())) or MISSING


def _kind(runs: pd.DataFrame) -> tuple[str, str]:
    kind = _one(runs["memory_kind"])
    return kind, kind


def _encoder(findings: Findings) -> str:
    runs, revision = findings.finished, findings.encoder.get("revision")
    prints = dict.fromkeys(str(each)[:12] for each in runs["encoder_fingerprint"].dropna())
    known_by = [f"revision {revision}"] if revision else []
    known_by += [f"fingerprint {', '.join(prints)}"] if prints else []
    return f"{_one(runs['encoder_source'])}" + (f" ({'; '.join(known_by)})" if known_by else "")


def _digests(runs: pd.DataFrame) -> list[str]:
    pairs = runs[["fold", "digest"]].drop_duplicates().dropna(subset="digest")
    many = pairs["fold"].nunique() > 1
    return [
        f"fold {row.fold}: {row.digest}" if many else str(row.digest) for row in pairs.itertuples(index=False)
    ]


def _cells(runs: pd.DataFrame) -> str:
    folds = sorted({int(fold) for fold in runs["fold"].dropna()})
    seeds = sorted({int(seed) for seed in runs["seed"].dropna()})
    parts = [
        f"folds {', '.join(map(str, folds))}" if len(folds) > 1 else "",
        f"seeds {', '.join(map(str, seeds))}",
    ]
    return "; ".join(filter(None, parts))


def _sizes(data: Mapping[str, Mapping[str, Any]]) -> str:
    """How much each split has; from the smallest fold to the largest."""
    words = []
    for split in ("train", "val", "test"):
        found = [each.get("splits", {}).get(split, {}) for each in data.values()]
        sizes = [each["utterances"] for each in found if each.get("utterances") is not None]
        if not sizes:
            continue
        people = [each["speakers"] for each in found if each.get("speakers")]
        spoken = f" by {_range(people)} speakers" if people else ""
        words.append(f"{split} {_range(sizes)}{spoken}")
    return "; ".join(words)


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _gathered(data: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(each) for facts in data.values() for each in facts.get(key) or ()))


def _dropped(facts: Mapping[str, Any]) -> str:
    return "; ".join(f"{count:,}: {reason}" for reason, count in (facts.get("dropped") or {}).items())


def _unreadable(data: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for facts in data.values() for name in facts.get("unreadable") or ()))
    return f"{counted(len(names), 'utterance')}, such as {', '.join(names[:3])}" if names else ""
