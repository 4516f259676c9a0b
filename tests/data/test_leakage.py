"""What splits share: each relation is found, with counts that a count by hand confirms."""

import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from ser_strategies.data.leakage import RELATIONS, Leak, check_leaks, find_leaks
from ser_strategies.data.rules import SPLITS
from ser_strategies.data.table import complete

# For each relation, what two utterances must have in common.
COMMON = {
    "speaker": {"speaker": "s"},
    "session": {"session": "e"},
    "dialogue": {"dialogue": "d"},
    "span": {"recording": "r", "start": 1.5, "end": 2.0},
    "audio": {"audio": "0f"},
}
each_relation = pytest.mark.parametrize("relation", COMMON)
each_pair = pytest.mark.parametrize(("first", "second"), list(combinations(SPLITS, 2)))


def split(*rows):
    """A table of (split, facts)."""
    columns = pd.DataFrame([{"split": split} | facts for split, facts in rows])
    return complete(columns.assign(id=[f"u{row}" for row in columns.index], seconds=1.0), "Made")


def test_every_relation_is_tested_here():
    assert COMMON.keys() == RELATIONS.keys()


@each_relation
@each_pair
@pytest.mark.parametrize("turned", [False, True])
def test_what_two_splits_share_is_found_and_nothing_else(relation, first, second, turned):
    (third,) = set(SPLITS) - {first, second}
    rows = [
        (first, COMMON[relation]),
        (second, COMMON[relation]),
        (second, {}),
        (second, {}),
        (second, {}),
        (third, {}),
    ]
    table = split(*rows)
    (leak,) = find_leaks(table.iloc[::-1] if turned else table)
    assert (leak.relation, leak.splits) == (relation, (first, second))
    assert (leak.count, leak.utterances, leak.share) == (1, 1, 0.25)


@each_relation
def test_what_a_split_shares_with_itself_is_no_leak(relation):
    assert not find_leaks(split(*[("train", COMMON[relation])] * 3, ("val", {}), ("test", {})))


@each_relation
def test_what_is_left_out_shares_nothing(relation):
    assert not find_leaks(split(("train", COMMON[relation]), (None, COMMON[relation]), ("test", {})))


@each_relation
def test_what_is_unknown_is_like_nothing(relation):
    unknown = dict.fromkeys(COMMON[relation])
    assert not find_leaks(split(*[(name, unknown) for name in SPLITS]))


@pytest.mark.parametrize("lacking", ["recording", "start", "end"])
def test_a_moment_must_be_known_whole(lacking):
    part = {column: value for column, value in COMMON["span"].items() if column != lacking}
    assert not find_leaks(split(("train", part), ("test", part)))


@pytest.mark.parametrize("other", [{"recording": "q"}, {"start": 1.25}, {"end": 2.5}])
def test_other_moments_are_others(other):
    assert not find_leaks(split(("train", COMMON["span"]), ("test", COMMON["span"] | other)))


def test_speakers_whom_nobody_knows_are_not_one_person():
    rows = [
        (name, {"speaker": word})
        for name, word in zip(SPLITS, ("unknown", "Unknown", "unknown"), strict=True)
    ]
    assert not find_leaks(split(*rows))


def test_sounds_are_compared_where_they_are_known():
    table = split(("train", {}), ("test", {}))
    assert "audio" not in table
    assert not find_leaks(table)


def brute_force(table):
    """The same by sets, one pair of splits at a time."""
    found = []
    rows = table.to_dict("records")
    for relation, columns in RELATIONS.items():
        for first, second in combinations(SPLITS, 2):
            sides = [
                [
                    tuple(row[column] for column in columns)
                    for row in rows
                    if row["split"] is not pd.NA and row["split"] == side
                ]
                for side in (first, second)
            ]
            heard = {key for key in sides[0] if not any(pd.isna(part) for part in key)}
            hit = [key for key in sides[1] if key in heard]
            if hit:
                found.append((relation, (first, second), len(set(hit)), len(hit), len(hit) / len(sides[1])))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_random_tables_leak_as_counted_by_hand(seed):
    dice = np.random.default_rng(seed)
    size = 60

    def some(prefix, count):
        return [None if one == 0 else f"{prefix}{one}" for one in dice.integers(0, count, size)]

    table = complete(
        pd.DataFrame(
            {
                "id": [f"u{row}" for row in range(size)],
                "seconds": 1.0,
                "split": [[*SPLITS, None][one] for one in dice.integers(0, 4, size)],
                "speaker": some("s", 40),
                "session": some("e", 20),
                "dialogue": some("d", 90),
                "recording": some("r", 3),
                "start": dice.integers(0, 6, size) / 2,
                "end": dice.choice([3.0, 4.0, np.nan], size),
                "audio": some("a", 400),
            }
        ),
        "Made",
    )
    found = [
        (leak.relation, leak.splits, leak.count, leak.utterances, leak.share) for leak in find_leaks(table)
    ]
    assert found == brute_force(table)
    assert found


def test_a_large_corpus_is_no_matter():
    size = 300_000
    dice = np.random.default_rng(0)
    speakers = dice.integers(0, 3_000, size)
    parts = np.array([*SPLITS, *["train"] * 7], dtype=object)[speakers % 10]
    table = complete(
        pd.DataFrame(
            {
                "id": [f"u{row}" for row in range(size)],
                "seconds": 1.0,
                "split": parts,
                "speaker": [f"s{speaker}" for speaker in speakers],
                "recording": [f"r{speaker}" for speaker in speakers],
                "start": np.arange(size) / 8,
                "end": np.arange(size) / 8 + 1,
                "audio": [f"{row:x}" for row in range(size)],
            }
        ),
        "Made",
    )
    table.loc[table.index[table["split"] == "test"][:2], ["speaker", "audio"]] = ["s0", "0"]
    table.loc[0, ["split", "speaker"]] = ["train", "s0"]
    assert [(leak.relation, leak.splits, leak.count) for leak in find_leaks(table)] == [
        ("speaker", ("train", "test"), 1),
        ("audio", ("train", "test"), 1),
    ]


# Words ------------------------------------------------------------------------------------------------------


def test_shared_names_are_examples_three_at_most():
    speakers = ["Zoë", "Ann", "Ben", "Cem"]
    rows = [(name, {"speaker": speaker}) for name in ("train", "val") for speaker in speakers]
    (leak,) = find_leaks(split(*rows, ("val", {})))
    assert leak.examples == ("Ann", "Ben", "Cem")
    assert str(leak) == "train and val share 4 speakers (80.0% of the val utterances), such as Ann, Ben, Cem"


def test_one_thing_shared_is_one():
    (leak,) = find_leaks(split(("train", {"dialogue": "d"}), ("test", {"dialogue": "d"})))
    assert str(leak) == "train and test share 1 dialogue (100.0% of the test utterances), such as d"


@pytest.mark.parametrize(("relation", "word"), [("span", "moment"), ("audio", "sound")])
def test_sounds_and_moments_are_named_by_the_utterances_that_have_them(relation, word):
    one, two = COMMON[relation], dict.fromkeys(COMMON[relation], "9")
    (leak,) = find_leaks(split(("val", one), ("test", one), ("val", two), ("test", two), ("test", one)))
    assert set(leak.examples) == {"u0 = u1 = u4", "u2 = u3"}
    assert re.fullmatch(
        rf"val and test share 2 {word}s.* \(100\.0% of the test .*, such as {', '.join(leak.examples)}",
        str(leak),
    )
    (leak,) = find_leaks(split(("val", one), ("test", one)))
    assert re.fullmatch(rf"val and test share 1 {word}\b.*, such as u0 = u1", str(leak))


def test_thousands_are_marked():
    leak = Leak("speaker", ("train", "test"), 1_234, 5_678, 0.9876, ("a",))
    assert str(leak) == "train and test share 1,234 speakers (98.8% of the test utterances), such as a"


# What becomes of it -----------------------------------------------------------------------------------------

SPEAKER = Leak("speaker", ("train", "test"), 2, 5, 0.5, ("a", "b"))
AUDIO = Leak("audio", ("train", "val"), 3, 3, 0.1, ("u1 = u2",))


def check(leaks, *, declared=(), allowed=False):
    check_leaks(
        leaks, declared=declared, allowed=allowed, corpus="Made (mine)", alternatives="Choose another"
    )


def test_a_leak_is_refused_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"the splits of Made \(mine\) leak: train and test share 2 speakers"
    ) as error:
        check([SPEAKER, AUDIO])
    assert str(AUDIO) in str(error.value)
    assert "Choose another, or give --data.allow_leakage true, which brands the result." in str(error.value)


@pytest.mark.parametrize(
    ("leaks", "declared", "allowed"),
    [
        ([], (), False),
        ([SPEAKER], ("speaker",), False),
        ([SPEAKER, AUDIO], ("audio", "speaker"), False),
        ([SPEAKER, AUDIO], (), True),
    ],
)
def test_what_is_declared_or_allowed_passes(leaks, declared, allowed):
    check(leaks, declared=declared, allowed=allowed)


def test_only_surprises_are_told():
    with pytest.raises(ValueError, match="share 3 sounds") as error:
        check([SPEAKER, AUDIO], declared=["speaker"])
    assert "speaker" not in str(error.value)
