"""Rules that split a corpus: each utterance stands in one split, whatever the order of the table."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ser_strategies.data.rules import SPLITS, ByValue, Drawn, GroupFolds, HeldOut
from ser_strategies.data.table import complete

SPEAKERS = [f"s{number}" for number in range(24)]  # as many as `corpus` has
LISTED = [SPEAKERS[fold::4] for fold in range(4)]
RULES = {
    "by-value": ByValue("official", {"Train": "train", "Development": "val", "Test1": "test", "Test2": None}),
    "held-out": HeldOut("speaker", test=LISTED, val=[*LISTED[1:], LISTED[0]]),
    "drawn": Drawn(test=0.25, val=0.2),
    "drawn by speaker": Drawn(test=0.3, val=0.3, seed=7, column="speaker"),
    "group-folds": GroupFolds(),
    "group-folds by session": GroupFolds(folds=3, column="session", seed=7),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
IN_FOLDS = {name: rule for name, rule in RULES.items() if rule.folds > 1}
each_rule_with_folds = pytest.mark.parametrize("rule", IN_FOLDS.values(), ids=IN_FOLDS)


def corpus(size=600, seed=0, groups=24, classes=4):
    """Utterances in unlike amounts of unlike classes by unlike speakers; some have no label."""
    dice = np.random.default_rng(seed)
    speakers = dice.choice(groups, size, p=dice.dirichlet(np.full(groups, 3.0)))
    labels = dice.choice(classes, size, p=dice.dirichlet(np.full(classes, 2.0)))
    columns = {
        "id": [f"u{row:04d}" for row in range(size)],
        "seconds": dice.uniform(0.5, 9, size),
        "label": [
            f"c{label}" if known else None
            for label, known in zip(labels, dice.random(size) > 0.02, strict=True)
        ],
        "speaker": [f"s{speaker}" for speaker in speakers],
        "session": [f"e{speaker // 2}" for speaker in speakers],
        "official": dice.choice(["Train", "Development", "Test1", "Test2"], size, p=[0.6, 0.2, 0.1, 0.1]),
    }
    return complete(pd.DataFrame(columns), "Made")


def of_classes(**counts):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return complete(
        pd.DataFrame({"id": [f"u{row}" for row in range(len(labels))], "seconds": 1.0, "label": labels}),
        "Made",
    )


def folds_of(rule):
    return range(1, rule.folds + 1)


def by_id(rule, table, fold=1):
    return dict(zip(table["id"], rule.assign(table, fold), strict=True))


# All of them ------------------------------------------------------------------------------------------------


@each_rule
def test_every_utterance_is_in_one_split_and_every_split_has_some(rule):
    table = corpus()
    for fold in folds_of(rule):
        splits = rule.assign(table, fold)
        assert splits.index.equals(table.index)
        assert set(splits.dropna()) == set(SPLITS)
        assert splits.isna().sum() == (table["official"] == "Test2").sum() * isinstance(rule, ByValue)


@each_rule_with_folds
def test_over_all_folds_every_utterance_tests_once_and_validates_once(rule):
    splits = pd.concat([rule.assign(corpus(), fold) for fold in folds_of(rule)], axis=1)
    assert (splits == "test").sum(axis=1).eq(1).all()
    assert (splits == "val").sum(axis=1).eq(1).all()


@each_rule_with_folds
def test_no_group_stands_in_two_splits(rule):
    table = corpus()
    for fold in folds_of(rule):
        assert rule.assign(table, fold).groupby(table[rule.column]).nunique().eq(1).all()


@each_rule
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_table_changes_nothing(rule, seed):
    table = corpus()
    mixed = table.sample(frac=1, random_state=seed)
    for fold in folds_of(rule):
        assert by_id(rule, mixed, fold) == by_id(rule, table, fold)
        assert by_id(rule, mixed.reset_index(drop=True), fold) == by_id(rule, table, fold)


@each_rule
def test_it_leaves_the_table_and_every_generator_alone(rule):
    table = corpus()
    before = table.copy()
    np.random.seed(1)
    first = by_id(rule, table)
    np.random.seed(2)
    assert by_id(rule, table) == first
    pd.testing.assert_frame_equal(table, before)


# Said or listed ---------------------------------------------------------------------------------------------


def test_a_value_says_the_split_and_null_leaves_out():
    table = corpus()
    means = {"Train": "train", "Development": "val", "Test1": "test", "Test2": pd.NA}
    assert RULES["by-value"].assign(table, 1).tolist() == [means[value] for value in table["official"]]


@pytest.mark.parametrize(("value", "got"), [("Test9", "'Test9'"), (None, "nothing"), ("train", "'train'")])
def test_an_unknown_value_is_named_with_its_utterance(value, got):
    table = corpus()
    table.loc[[5, 9], "official"] = value
    with pytest.raises(
        ValueError, match=rf"2 utterances such as 'u0005' have {got} as official: expected one of Train, "
    ):
        RULES["by-value"].assign(table, 1)


@pytest.mark.parametrize(
    ("group", "got"), [("s99", "the speaker 's99'"), (None, "no speaker"), ("S1", "the speaker 'S1'")]
)
def test_an_unlisted_group_is_named_with_its_utterance(group, got):
    table = corpus()
    table.loc[[5, 9, 11], "speaker"] = group
    with pytest.raises(
        ValueError, match=rf"3 utterances such as 'u0005' have {got}, which stands in no list"
    ):
        RULES["held-out"].assign(table, 1)


@pytest.mark.parametrize("fold", folds_of(RULES["held-out"]))
def test_listed_groups_test_and_validate_and_all_others_train(fold):
    rule, table = RULES["held-out"], corpus()
    found = {split: set(table["speaker"][rule.assign(table, fold) == split]) for split in SPLITS}
    assert found["test"] == set(LISTED[fold - 1])
    assert found["val"] == set(LISTED[fold % 4])
    assert found["train"] == set(SPEAKERS) - found["test"] - found["val"]


def test_groups_may_be_left_out():
    table = corpus()
    without = HeldOut("speaker", test=LISTED[:3], val=[*LISTED[1:3], LISTED[0]], left_out=LISTED[3][1:])
    with pytest.raises(ValueError, match=f"have the speaker '{LISTED[3][0]}', which stands in no list"):
        without.assign(table, 1)
    splits = replace(without, left_out=LISTED[3]).assign(table, 1)
    means = dict(
        zip(LISTED[0] + LISTED[1] + LISTED[2], 6 * ["test"] + 6 * ["val"] + 6 * ["train"], strict=True)
    )
    assert splits.tolist() == [means.get(speaker, pd.NA) for speaker in table["speaker"]]


@pytest.mark.parametrize("name", ["by-value", "held-out"])
def test_what_is_said_or_listed_holds_whoever_else_is_there(name):
    rule, table = RULES[name], corpus()
    part = table.sample(frac=0.3, random_state=0)
    everyone = by_id(rule, table)
    assert by_id(rule, part) == {name: everyone[name] for name in part["id"]}


# Drawn ------------------------------------------------------------------------------------------------------


def test_the_counts_of_crema_d_give_what_emobox_publishes():
    """5,586 to train and 1,856 to test, a quarter of each class."""
    table = of_classes(ANG=1271, DIS=1271, FEA=1271, HAP=1271, SAD=1271, NEU=1087)
    splits = Drawn(test=0.25, val=0.2).assign(table, 1)
    assert (splits == "test").sum() == 1_856
    assert (splits != "test").sum() == 5_586


@pytest.mark.parametrize(
    ("test", "val"),
    [
        ("0.25", "0.2"),
        ("0.2", "0.1"),
        ("0.1", "0.3"),
        ("0.5", "0.5"),
        ("0", "0.25"),
        ("0.29", "0.57"),
    ],
)
def test_each_class_gives_its_share_rounded_down_exactly(test, val):
    counts = {"many": 1271, "round": 100, "odd": 7, "few": 3, "one": 1}
    table = of_classes(**counts)
    splits = Drawn(test=float(test), val=float(val)).assign(table, 1)
    for label, count in counts.items():
        tested = int(count * Fraction(test))
        validated = int((count - tested) * Fraction(val))
        found = splits[table["label"] == label].value_counts().reindex(list(SPLITS), fill_value=0)
        assert found.tolist() == [count - tested - validated, validated, tested]


def test_utterances_without_a_label_are_a_class_of_their_own():
    table = of_classes(x=8, y=8)
    table.loc[table["label"] == "y", "label"] = pd.NA
    splits = Drawn(test=0.25, val=0.5).assign(table, 1)
    for inside in (table["label"] == "x", table["label"].isna()):
        assert splits[inside].value_counts().to_dict() == {"train": 3, "val": 3, "test": 2}


def test_other_classes_do_not_change_a_draw():
    rule, table = Drawn(test=0.25, val=0.2), corpus()
    for label, part in table.groupby("label"):
        everyone = by_id(rule, table)
        assert by_id(rule, part) == {name: everyone[name] for name in part["id"]}, label


@pytest.mark.parametrize("added", [1, 2, 3, 10, 500])
def test_more_of_a_class_makes_its_test_set_grow_or_give_way_but_never_redraws_it(added):
    """Who stood in the test set and leaves it makes way for the new: none of the old comes in as well."""
    rule = Drawn(test=0.25, val=0.2)
    table = of_classes(x=101 + added)
    old, new = by_id(rule, table[:101]), by_id(rule, table)
    before = {name for name in old if old[name] == "test"}
    after = {name for name in old if new[name] == "test"}
    assert before <= after or after <= before


def test_the_draw_depends_on_the_seed_and_on_the_names():
    table = of_classes(x=100)
    renamed = table.assign(id="other-" + table["id"])
    first = Drawn(test=0.25, val=0.2).assign(table, 1)
    assert (Drawn(test=0.25, val=0.2, seed=1).assign(table, 1) != first).sum() > 20
    assert (Drawn(test=0.25, val=0.2).assign(renamed, 1) != first).sum() > 20


def test_the_draw_is_fair():
    """Over many seeds everybody tests as often as everybody else."""
    table, seeds, share = of_classes(x=40), 400, 0.25
    tested = sum(
        (Drawn(test=share, val=0.2, seed=seed).assign(table, 1) == "test").to_numpy(int)
        for seed in range(seeds)
    )
    spread = (seeds * share * (1 - share)) ** 0.5
    assert abs(tested - seeds * share).max() < 4.5 * spread
    assert 0.6 * spread < tested.std() < 1.4 * spread


def test_the_draw_is_the_one_that_results_were_published_with():
    """If this fails, every protocol that draws needs a higher version."""
    splits = by_id(Drawn(test=0.25, val=0.25, seed=2013), of_classes(x=16))
    assert {split: sorted(name for name in splits if splits[name] == split) for split in ("test", "val")} == {
        "test": ["u12", "u2", "u4", "u9"],
        "val": ["u13", "u6", "u8"],
    }


# Folds of groups --------------------------------------------------------------------------------------------


def test_equal_groups_are_shared_out_evenly():
    rows = [(f"u{g}-{k}", f"s{g}", f"c{k % 3}") for g in range(15) for k in range(6)]
    table = complete(pd.DataFrame(rows, columns=["id", "speaker", "label"]).assign(seconds=1.0), "Made")
    for fold in range(1, 6):
        tested = table[GroupFolds().assign(table, fold) == "test"]
        assert tested["speaker"].nunique() == 3
        assert tested["label"].value_counts().tolist() == [6, 6, 6]


def imbalance(table, tested):
    """How far the folds' shares of the classes are from equal ones: largest and root of the mean square."""
    labels = table["label"].fillna("")
    shares = np.array(
        [
            [(labels[mask] == label).sum() / (labels == label).sum() for label in labels.unique()]
            for mask in tested
        ]
    )
    off = shares - 1 / len(tested)
    return abs(off).max(), (off**2).mean() ** 0.5


def test_folds_are_as_balanced_as_those_of_scikit_learn():
    ours, theirs = [], []
    for seed in range(12):
        table = corpus(size=500 + 100 * seed, seed=seed, groups=14 + 3 * seed, classes=5)
        ours.append(imbalance(table, [GroupFolds(5).assign(table, fold) == "test" for fold in range(1, 6)]))
        split = StratifiedGroupKFold(5).split(table, table["label"].fillna(""), table["speaker"])
        theirs.append(imbalance(table, [np.isin(np.arange(len(table)), test) for _, test in split]))
    ours, theirs = np.array(ours), np.array(theirs)
    assert (ours.mean(axis=0) <= theirs.mean(axis=0)).all()
    assert (ours <= 2 * theirs).all()


def test_the_folds_are_those_that_results_were_published_with():
    """If this fails, every protocol that makes folds needs a higher version."""
    rows = [(f"u{g}-{k}", f"s{g}", f"c{(g * k) % 3}") for g in range(9) for k in range(4 + g % 3)]
    table = complete(pd.DataFrame(rows, columns=["id", "speaker", "label"]).assign(seconds=1.0), "Made")
    folds = [sorted(set(table["speaker"][GroupFolds(3).assign(table, fold) == "test"])) for fold in (1, 2, 3)]
    assert folds == [["s0", "s1", "s8"], ["s2", "s3", "s4"], ["s5", "s6", "s7"]]


def test_groups_of_one_size_are_shared_out_by_the_seed():
    table = corpus()
    table = table.groupby("speaker").head(5)
    assert by_id(GroupFolds(seed=0), table) != by_id(GroupFolds(seed=1), table)


def test_folds_are_named_by_the_groups_and_not_by_the_utterances():
    table = corpus()
    assert GroupFolds().assign(table, 1).equals(GroupFolds().assign(table.assign(id="x" + table["id"]), 1))


def test_an_utterance_without_a_group_is_named():
    table = corpus()
    table.loc[[3, 4], "speaker"] = pd.NA
    with pytest.raises(
        ValueError, match=r"2 utterances such as 'u0003' have no speaker, by which the folds are made"
    ):
        GroupFolds().assign(table, 1)


def test_fewer_groups_than_folds_are_refused():
    table = corpus(groups=4)
    with pytest.raises(ValueError, match=r"5 folds need 5 values of speaker or more, got 4"):
        GroupFolds().assign(table, 1)


@pytest.mark.parametrize("folds", [2, 1, 0, -1])
def test_folds_that_leave_nobody_to_train_on_are_refused(folds):
    with pytest.raises(
        ValueError, match=rf"^folds must be 3 or more \(.*, the others train\), got {folds}\.$"
    ):
        GroupFolds(folds=folds)


@pytest.mark.parametrize("lists", [LISTED[:1], LISTED[:2]], ids=["one fold", "two folds"])
def test_lists_that_leave_nobody_to_train_on_are_refused(lists):
    with pytest.raises(
        ValueError, match=rf"in fold 1 of {len(lists)}, so that nobody trains: expected 3 folds"
    ):
        HeldOut("speaker", test=lists, val=[*lists[1:], lists[0]])


@pytest.mark.parametrize(("test", "val"), [([], []), (LISTED, LISTED[:3])])
def test_every_fold_needs_its_two_lists(test, val):
    got = f"got {len(test)} that test and {len(val)} that validate"
    with pytest.raises(ValueError, match=f"a fold needs two lists by speaker, .*: {got}"):
        HeldOut("speaker", test=test, val=val)


@pytest.mark.parametrize(
    "shares", [{"test": 1, "val": 0}, {"test": 0, "val": 1.0}, {"test": -0.1, "val": 0.1}]
)
def test_shares_that_leave_nobody_to_train_on_are_refused(shares):
    with pytest.raises(ValueError, match="must be at least 0 and below 1, so that somebody trains, got"):
        Drawn(**shares)


def test_three_folds_are_enough_for_all_splits():
    assert set(GroupFolds(folds=3).assign(corpus(), 3)) == set(SPLITS)
