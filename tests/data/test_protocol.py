"""Protocols: those on the cards are sound and share what they say, nothing else; digests tell them apart."""

import json
import re
from dataclasses import replace
from functools import partial
from importlib.resources import files
from itertools import product

import pandas as pd
import pytest

from ser_strategies.data.leakage import RELATIONS, find_leaks
from ser_strategies.data.protocol import OWN, Card, Count, Protocol, load_card
from ser_strategies.data.rules import SPLITS, ByValue, Drawn, GroupFolds, HeldOut
from ser_strategies.data.table import WORDS, complete

FOLDER = files("ser_strategies.data") / "protocols"
NAMES = sorted(entry.name.removesuffix(".json") for entry in FOLDER.iterdir() if entry.name.endswith(".json"))
CARDS = {name: load_card(name) for name in NAMES}
PROTOCOLS = {f"{name}/{each.name}": each for name, card in CARDS.items() for each in card.protocols}
FOLDS = [(name, fold) for name, each in PROTOCOLS.items() for fold in range(1, each.rule.folds + 1)]
each_card = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
each_protocol = pytest.mark.parametrize("name", PROTOCOLS)
each_fold = pytest.mark.parametrize(("name", "fold"), FOLDS)
LISTED = {name: each for name, each in PROTOCOLS.items() if isinstance(each.rule, HeldOut)}
each_listed = pytest.mark.parametrize("protocol", LISTED.values(), ids=LISTED)


# Corpora of the same groups with invented utterances: all that real ones can have in common is there -------


def made(rows):
    return complete(
        pd.DataFrame(rows).assign(seconds=1.0, id=lambda table: [f"u{row}" for row in table.index]), "Made"
    )


def like_crema_d():
    """91 actors, each in six emotions."""
    emotions = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
    return made(
        {"speaker": str(1001 + actor), "label": emotion} for actor in range(91) for emotion in emotions
    )


def like_iemocap():
    """A woman and a man in each of five sessions, in two dialogues; now and then both speak at once."""
    return made(
        {
            "session": session,
            "speaker": session + gender,
            "dialogue": f"Ses0{session}F_{scene}",
            "recording": f"Ses0{session}F_{scene}",
            "start": turn if turn == 2 else turn + 0.5 * (gender == "M"),
            "end": turn + 0.4,
            "label": label,
        }
        for session, gender, scene in product("12345", "FM", ("impro01", "script01_1"))
        for turn, label in enumerate(("anger", "happiness", "neutral", "sadness"))
    )


def like_meld():
    """Everyone speaks in every part, in seven dialogues of one episode; some moments stand in all parts."""
    rule = PROTOCOLS["meld/speaker-6fold"].rule
    speakers = sorted({speaker for part in [*rule.test, rule.left_out] for speaker in part})
    rows = [
        {
            "official": part,
            "speaker": speaker,
            "session": "s01e01",
            "dialogue": f"{part}/{number % 7}",
            "recording": "s01e01",
            "start": start + number,
            "end": start + number + 0.8,
            "audio": f"{part}/{number}",
        }
        for start, part in ((0, "train"), (1_000, "dev"), (2_000, "test"))
        for number, speaker in enumerate(speakers)
    ]
    # What a clip holds is said to be by one speaker here and by another there.
    first = {
        "official": "train",
        "session": "s01e01",
        "recording": "s01e01",
        "start": 5_000,
        "end": 5_001,
        "audio": "x",
    }
    rows += [
        first | {"official": part, "speaker": speaker, "dialogue": f"{part}/0"}
        for part in ("train", "dev", "test")
        for speaker in ("Joey", "Ross", "Rachel", "Phoebe", "Monica", "Chandler")
    ]
    return made(rows)


def like_msp_podcast():
    """Partitions whose speakers are apart; some are not known by name."""
    return made(
        {"official": part, "speaker": speaker if speaker == "Unknown" else part + speaker}
        for part in ("Train", "Development", "Test1", "Test2", "Test3")
        for speaker in ("1", "1", "2", "2", "Unknown")
    )


def like_acted(name):
    """The speakers that the lists of a card name, or some of each session, in all its classes and texts."""
    card = CARDS[name]
    rules = [each.rule for each in card.protocols]
    lists = [group for rule in rules if isinstance(rule, HeldOut) for groups in rule.test for group in groups]
    session = name == "msp_improv"
    speakers = [f"{gender}{number:02}" for gender in "FM" for number in range(1, 7 if session else 11)]
    return made(
        {
            "speaker": speaker,
            "gender": "female" if number % 2 else "male",
            "session": str(int(speaker[1:])) if session else None,
            "dialogue": speaker[1:] if session else None,
            "text": f"text {text}",
            "label": label,
        }
        for number, speaker in enumerate(sorted(set(lists)) if lists and not session else speakers)
        for label in sorted(set(card.labels.values()) or {"anger", "neutral"})
        for text in range(40 if name == "tess" else 2)
    )


ALIKE = {
    "crema_d": like_crema_d,
    "iemocap": like_iemocap,
    "meld": like_meld,
    "msp_podcast": like_msp_podcast,
    **{
        name: partial(like_acted, name)
        for name in ("ased", "emo_db", "msp_improv", "nemo", "ravdess", "savee", "subesco", "tess")
    },
}


def split(name, fold):
    """A corpus of the protocol's groups, split by it."""
    table = ALIKE[name.partition("/")[0]]()
    return table.assign(split=PROTOCOLS[name].assign(table, fold))


# The cards --------------------------------------------------------------------------------------------------


def test_every_card_is_tested_here():
    assert set(NAMES) == set(ALIKE)


@each_card
def test_a_card_says_what_the_corpus_is_called_and_where_to_get_it(card):
    assert card.name
    assert re.search(r"https?://\S+\.\S+", card.request)
    assert not card.request.endswith(".")  # it stands within sentences


@each_card
def test_protocols_have_names_of_their_own(card):
    names = [protocol.name for protocol in card.protocols]
    assert len(set(names)) == len(names) > 0
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@each_card
def test_the_default_shares_nothing_unless_every_published_split_does(card):
    # TESS has two speakers: none is left to validate where one tests.
    assert not card.protocols[0].shares or card.protocols[0].name == "official" or card.name == "TESS"


@each_protocol
def test_a_protocol_is_versioned_and_described_in_sentences(name):
    protocol = PROTOCOLS[name]
    assert protocol.version >= 1
    assert re.fullmatch(r"[A-Z].{20,}\.", protocol.words)
    assert "  " not in protocol.words
    assert set(protocol.shares) <= set(RELATIONS)
    assert len(set(protocol.shares)) == len(protocol.shares)


@each_protocol
def test_a_rule_reads_columns_that_tables_have(name):
    assert PROTOCOLS[name].rule.column in WORDS


@each_listed
def test_lists_cover_every_group_once_and_keep_validation_and_test_apart(protocol):
    rule = protocol.rule
    tested = [group for groups in rule.test for group in groups]
    validated = [group for groups in rule.val for group in groups]
    assert len(rule.test) == len(rule.val) == rule.folds > 1
    assert len(set(tested)) == len(tested)
    assert len(set(validated)) == len(validated)
    assert set(validated) <= set(tested)
    assert not set(rule.left_out) & set(tested)
    for test, val in zip(rule.test, rule.val, strict=True):
        assert test
        assert bool(val) != protocol.trains_blindly
        assert not set(test) & set(val)
        assert set(tested) - set(test) - set(val)


@pytest.mark.parametrize(
    "name", ["crema_d/speaker-5fold", "iemocap/leave-one-session-out", "meld/speaker-6fold"]
)
def test_the_fold_after_the_tested_one_validates(name):
    rule = PROTOCOLS[name].rule
    assert rule.val == [*rule.test[1:], rule.test[0]]


@each_card
def test_values_mean_all_three_splits(card):
    for protocol in card.protocols:
        if isinstance(protocol.rule, ByValue):
            assert set(protocol.rule.splits.values()) - {None} == set(SPLITS)


def test_crema_d_has_91_actors_in_folds_of_18_or_19():
    folds = PROTOCOLS["crema_d/speaker-5fold"].rule.test
    assert sorted(actor for fold in folds for actor in fold) == [str(number) for number in range(1001, 1092)]
    assert sorted(map(len, folds)) == [18, 18, 18, 18, 19]


def test_iemocap_leaves_out_sessions_or_speakers_in_turn():
    assert PROTOCOLS["iemocap/leave-one-session-out"].rule.test == [["1"], ["2"], ["3"], ["4"], ["5"]]
    alone = PROTOCOLS["iemocap/leave-one-speaker-out"].rule
    assert {speaker for (speaker,) in alone.test} == {
        session + gender for session in "12345" for gender in "FM"
    }
    for (test,), (val,) in zip(alone.test, alone.val, strict=True):
        assert test[0] == val[0]  # partners in one session
        assert test[1] != val[1]
    with_one = PROTOCOLS["iemocap/leave-one-session-out-speaker-validates"].rule
    for test, (val,) in zip(with_one.test, with_one.val, strict=True):
        assert {speaker[0] for speaker in test} == {test[0][0]} != {val[0]}
        assert val[1] == "F"


def test_each_fold_of_meld_has_one_of_the_main_cast():
    friends = {"Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross"}
    assert all(len(friends & set(fold)) == 1 for fold in PROTOCOLS["meld/speaker-6fold"].rule.test)


@pytest.mark.parametrize(
    ("name", "tested"), [("official", "Test1"), ("official-test2", "Test2"), ("official-test3", "Test3")]
)
def test_msp_podcast_is_tested_on_one_partition_and_leaves_the_others_out(name, tested):
    table = split(f"msp_podcast/{name}", 1)
    assert set(table["official"][table["split"] == "train"]) == {"Train"}
    assert set(table["official"][table["split"] == "val"]) == {"Development"}
    assert set(table["official"][table["split"] == "test"]) == {tested}
    assert set(table["official"][table["split"].isna()]) == {"Test1", "Test2", "Test3"} - {tested}


# What their splits share ------------------------------------------------------------------------------------


@each_fold
def test_every_fold_has_all_splits_and_shares_what_is_declared_and_nothing_else(name, fold):
    table = split(name, fold)
    assert set(table["split"].dropna()) == set(PROTOCOLS[name].splits)
    found = {leak.relation for leak in find_leaks(table)}
    if name.startswith("msp_podcast"):
        # What its releases share depends on the release; the made-up one shares nothing.
        assert found <= set(PROTOCOLS[name].shares)
    else:
        assert found == set(PROTOCOLS[name].shares)


@pytest.mark.parametrize("name", [name for name, each in PROTOCOLS.items() if not each.shares])
def test_one_utterance_astray_would_be_found(name):
    table = split(name, 1)
    astray = table.index[(table["split"] == "test") & table["speaker"].notna()][0]
    table.loc[astray, "split"] = "train"
    assert "speaker" in {leak.relation for leak in find_leaks(table)}


# Published counts -------------------------------------------------------------------------------------------


def counts_of(name, **facts):
    """Tables of numbers on a card, by what they count."""
    found = [count for count in CARDS[name].counts if all(getattr(count, key) == facts[key] for key in facts)]
    return {column: values for count in found for column, values in count.by.items()}


def test_counts_of_crema_d_add_up():
    (count,) = CARDS["crema_d"].counts
    assert sum(count.by["intended"].values()) == count.total == 7_442


def test_counts_of_the_sessions_of_iemocap_add_up_to_its_four_classes():
    sessions = [counts_of("iemocap", where={"session": session})["code"] for session in "12345"]
    assert [sum(counts.values()) for counts in sessions] == [1085, 1023, 1151, 1031, 1241]
    whole = counts_of("iemocap", where={})["code"]
    assert {code: sum(counts[code] for counts in sessions) for code in whole} == whole
    assert sum(whole.values()) == 5_531


def test_counts_of_meld_add_up():
    parts = counts_of("meld", where={})["official"]
    assert parts == {"train": 9_989, "dev": 1_109, "test": 2_610}
    for part, size in parts.items():
        assert sum(counts_of("meld", where={"official": part})["emotion"].values()) == size


@pytest.mark.parametrize("version", ["1.6", "1.8", "1.10", "1.11", "2.0"])
def test_counts_of_msp_podcast_add_up(version):
    counts = [count for count in CARDS["msp_podcast"].counts if count.version == version]
    (whole,) = (count for count in counts if count.total is not None)
    sizes = whole.by["official"] | {"": whole.total}
    assert sum(whole.by["official"].values()) == whole.total
    for count in counts:
        if "code" in count.by:
            assert sum(count.by["code"].values()) == sizes[count.where.get("official", "")]


def test_a_table_as_published_differs_in_nothing():
    table = pd.DataFrame({"part": ["a", "a", "b"], "code": ["x", "y", "x"]})
    assert not list(Count(total=3, by={"part": {"a": 2, "b": 1, "c": 0}}).differences(table))
    assert not list(Count(where={"part": "a"}, total=2, by={"code": {"x": 1, "y": 1}}).differences(table))


def test_each_number_that_differs_is_named_with_its_place():
    table = pd.DataFrame({"part": ["a"] * 1_200 + ["b"], "code": ["x"] * 1_201})
    assert list(Count(total=1_300, by={"part": {"a": 1_200, "b": 2}}).differences(table)) == [
        "in all: 1,201 utterances, published 1,300",
        "part b: 1 utterances, published 2",
    ]
    assert list(Count(where={"part": "a"}, total=5, by={"code": {"y": 7}}).differences(table)) == [
        "part a: 1,200 utterances, published 5",
        "part a, code y: 0 utterances, published 7",
    ]


# Choosing one -----------------------------------------------------------------------------------------------

CARD = Card(
    "Made",
    "https://example.org",
    tuple(Protocol(name, 1, "…", Drawn(0.2, 0.1)) for name in ("first", "second")),
)


def test_the_first_protocol_is_the_default():
    assert CARD.choose(None).name == "first"
    assert CARD.choose("second").name == "second"


@pytest.mark.parametrize(
    ("name", "hint"), [("secnd", r"; did you mean second\?$"), ("xyz", r"\.$"), ("", r"\.$")]
)
def test_an_unknown_protocol_is_refused_with_the_nearest_one(name, hint):
    with pytest.raises(
        ValueError, match=f"protocol must be one of first, second for Made, got '{name}'.?{hint[1:]}"
    ):
        CARD.choose(name)


@pytest.mark.parametrize("fold", [-1, 0, 6])
def test_a_fold_that_is_not_there_is_refused(fold):
    protocol = Protocol("folded", 1, "…", GroupFolds())
    with pytest.raises(ValueError, match=rf"fold must be 1 to 5 for the protocol folded, got {fold}\."):
        protocol.check_fold(fold)
    with pytest.raises(ValueError, match="fold must be 1 to 5"):
        protocol.assign(like_crema_d(), fold)


@pytest.mark.parametrize("fold", [0, 2])
def test_where_there_is_one_fold_another_is_refused(fold):
    with pytest.raises(ValueError, match=rf"fold must be only 1 for the protocol own, got {fold}\."):
        OWN.check_fold(fold)


def test_a_corpus_may_split_itself():
    table = complete(pd.DataFrame({"id": list("abc"), "seconds": 1.0, "split": SPLITS}), "Made")
    assert OWN.assign(table, 1).tolist() == list(SPLITS)
    with pytest.raises(ValueError, match="'dev' as split: expected one of train, val, test"):
        OWN.assign(table.assign(split="dev"), 1)


UNTRAINED = {
    "two folds": ({"kind": "group-folds", "folds": 2}, "folds must be 3 or more .*, got 2"),
    "two lists": (
        {"kind": "held-out", "column": "speaker", "test": [["a"], ["b"]], "val": [["b"], ["a"]]},
        "every speaker tests or validates in fold 1 of 2, so that nobody trains: expected 3 folds or more",
    ),
    "all of it": (
        {"kind": "drawn", "test": 1.0, "val": 0.0},
        "the share test must be at least 0 and below 1",
    ),
}


@pytest.mark.parametrize(("rule", "message"), UNTRAINED.values(), ids=UNTRAINED)
def test_a_card_by_which_nobody_would_train_is_refused_when_it_is_read(rule, message, monkeypatch, tmp_path):
    facts = json.loads((FOLDER / "crema_d.json").read_text(encoding="utf-8"))
    facts["protocols"].append({"name": "mine", "version": 1, "words": "…", "rule": rule})
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "crema_d.json").write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.setattr("ser_strategies.data.protocol.files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=f"the protocol mine cannot be used: {message}"):
        load_card("crema_d")


# Digests ----------------------------------------------------------------------------------------------------

RULE = HeldOut("speaker", test=[["s"], ["t"], ["u"]], val=[["t"], ["u"], ["s"]])
PROTOCOL = Protocol("made", 1, "Words.", RULE)
PINNED = {
    "crema_d/speaker-5fold": "636e4aebde97097f",
    "crema_d/emobox-speaker-dependent": "2a497ff2ce2ed570",
    "crema_d/vesper-speaker-dependent": "748491e58b2e8cdb",
    "iemocap/leave-one-session-out": "4d352b2d4201fd0b",
    "iemocap/leave-one-speaker-out": "25b79cb292e6dee8",
    "iemocap/leave-one-session-out-speaker-validates": "863cdc384a07443b",
    "iemocap/leave-one-session-out-no-validation": "2009475145eb52c1",
    "iemocap/sessions-123-4-5": "fcd29a3a1c24a5f2",
    "meld/official": "7790af67dc164a85",
    "meld/speaker-6fold": "cea0f83d2b27fa4b",
    "msp_podcast/official": "6a3bd6b1d6ccd632",
    "msp_podcast/official-test2": "4d1895d1607998a5",
    "msp_podcast/official-test3": "933e03d5f54228b0",
    "ased/speaker-5fold": "c5329fd147e912fa",
    "crema_d/tfds": "e0f81028f7b80ca5",
    "emo_db/speaker-5fold": "4e543ebe5a4076bf",
    "emo_db/leave-one-speaker-out": "4ac6606de68188b8",
    "msp_improv/leave-one-session-out": "d85344bd9d10586a",
    "msp_improv/speakers-8-2-2": "b00b6e9a3d451ab6",
    "nemo/speaker-3fold": "63d2057d83dcfbe2",
    "nemo/leave-one-speaker-out": "8b7433ab50d4bbae",
    "ravdess/speaker-6fold": "a04b42226e5037ed",
    "savee/leave-one-speaker-out": "864947f707d931ce",
    "subesco/speaker-5fold": "872929276654b47e",
    "tess/word-5fold-speaker-dependent": "69b756445625df00",
    "tess/leave-one-speaker-out-no-validation": "90f6d3bb187dfe62",
}


def tiny(**changes):
    columns = {
        "id": ["a", "b", "c", "d"],
        "label": ["x", "y", "x", None],
        "split": ["train", "val", "test", None],
    }
    return complete(pd.DataFrame(columns | {"seconds": 1.0} | changes), "Made")


@each_protocol
def test_a_protocol_gives_the_digest_that_results_were_published_with(name):
    """If this fails, the protocol has changed: raise its version, then put the new digest here."""
    assert PROTOCOLS[name].digest(split(name, 1), 1) == PINNED[name]


def test_digests_are_pinned_of_protocols_that_exist():
    assert PINNED.keys() == PROTOCOLS.keys()
    assert len(set(PINNED.values())) == len(PINNED)


CHANGED_TABLES = {
    "an id": {"id": ["a", "b", "c2", "d"]},
    "a split": {"split": ["train", "test", "test", None]},
    "a label": {"label": ["x", "y", "y", None]},
    "a label less": {"label": [None, "y", "x", None]},
    "one more": {"split": ["train", "val", "test", "test"]},
    "one less": {"split": ["train", "val", None, None]},
    "two labels exchanged": {"label": ["y", "x", "x", None]},
}


@pytest.mark.parametrize("changes", CHANGED_TABLES.values(), ids=CHANGED_TABLES)
def test_the_digest_changes_with_who_is_where_and_with_which_label(changes):
    assert PROTOCOL.digest(tiny(**changes), 1) != PROTOCOL.digest(tiny(), 1)


CHANGED_PROTOCOLS = {
    "name": {"name": "other"},
    "version": {"version": 2},
}


@pytest.mark.parametrize("changes", CHANGED_PROTOCOLS.values(), ids=CHANGED_PROTOCOLS)
def test_the_digest_changes_with_the_protocol(changes):
    assert replace(PROTOCOL, **changes).digest(tiny(), 1) != PROTOCOL.digest(tiny(), 1)


def test_the_digest_changes_with_the_fold():
    assert PROTOCOL.digest(tiny(), 2) != PROTOCOL.digest(tiny(), 1)


def test_the_digest_does_not_change_with_the_order_of_the_rows():
    assert PROTOCOL.digest(tiny().iloc[[2, 0, 3, 1]], 1) == PROTOCOL.digest(tiny(), 1)


def test_the_digest_does_not_depend_on_other_columns():
    digest = PROTOCOL.digest(tiny(), 1)
    assert PROTOCOL.digest(tiny()[["id", "split", "label"]], 1) == digest
    assert PROTOCOL.digest(tiny(path="x.wav", seconds=9.0, own=1), 1) == digest


def test_the_digest_does_not_depend_on_what_is_left_out():
    assert PROTOCOL.digest(tiny(id=["a", "b", "c", "e"], label=["x", "y", "x", "y"]), 1) == PROTOCOL.digest(
        tiny(), 1
    )
    assert PROTOCOL.digest(tiny().iloc[:3], 1) == PROTOCOL.digest(tiny(), 1)


def test_the_digest_does_not_depend_on_words_nor_on_lists_or_tuples():
    tuples = HeldOut("speaker", test=(("s",), ("t",), ("u",)), val=(("t",), ("u",), ("s",)))
    assert replace(PROTOCOL, words="Others.", rule=tuples).digest(tiny(), 1) == PROTOCOL.digest(tiny(), 1)


def test_the_files_say_what_is_read():
    """A card is what its file says: nothing is added in reading."""
    for name, card in CARDS.items():
        facts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        for said, protocol in zip(facts["protocols"], card.protocols, strict=True):
            assert (
                {"name", "version", "words", "rule"}
                <= said.keys()
                <= {"name", "version", "words", "rule", "shares", "splits", "left_out", "uses_damaged"}
            )
            assert (said["name"], said["version"], said["words"]) == (
                protocol.name,
                protocol.version,
                protocol.words,
            )
            assert said.get("shares", {}) == protocol.shares
            assert tuple(said.get("splits", SPLITS)) == protocol.splits
