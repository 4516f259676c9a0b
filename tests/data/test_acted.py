"""Corpora whose file names say everything: what each name means, and how a whole corpus is split."""

from itertools import product

import pandas as pd
import pytest

from ser_strategies.data.corpora.acted import ASED, EMODB, NEMO, RAVDESS, SAVEE, SUBESCO, TESS
from ser_strategies.data.corpora.msp_improv import MSPImprov
from ser_strategies.data.leakage import find_leaks
from ser_strategies.data.rules import SPLITS, HashedFolds
from ser_strategies.data.table import complete
from tests.data.real import real_data

# A name of each corpus -> id, class, speaker, gender.
NAMES = [
    (RAVDESS, "Actor_12/03-01-06-01-02-01-12.wav", ("03-01-06-01-02-01-12", "fear", "12", "female")),
    (EMODB, "wav/03a01Fa.wav", ("03a01Fa", "happiness", "03", "male")),
    (TESS, "OAF_Fear/OAF_back_fear.wav", ("OAF_back_fear", "fear", "OAF", "female")),
    (TESS, "OA_bite_neutral.wav", ("OA_bite_neutral", "neutral", "OAF", "female")),
    (SAVEE, "AudioData/DC/sa01.wav", ("DC_sa01", "sadness", "DC", "male")),
    (SAVEE, "JK_su15.wav", ("JK_su15", "surprise", "JK", "male")),
    (NEMO, "samples/WR0_surprised_64.wav", ("WR0_surprised_64", "surprise", "WR0", "male")),
    (ASED, "Sad/S4-04-02-01-29.wav", ("S4-04-02-01-29", "sadness", "29", "female")),
    (SUBESCO, "F_02_MONIKA_S_1_NEUTRAL_5.wav", ("F_02_MONIKA_S_1_NEUTRAL_5", "neutral", "F02", "female")),
]


def lay_out(folder, paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return str(folder)


@pytest.mark.parametrize(("kind", "path", "meaning"), NAMES, ids=[path for _, path, _ in NAMES])
def test_a_name_means_what_the_corpus_says(kind, path, meaning, tmp_path):
    corpus = kind(lay_out(tmp_path, [path, "other/README copy.wav"]))
    table = corpus.annotated().assign(label=lambda each: each["code"].map(corpus.card.labels), seconds=0.0)
    table = complete(table, "it")
    assert table[["id", "label", "speaker", "gender"]].to_numpy().tolist() == [list(meaning)]
    assert any(words.startswith("in all: 1 utterances, published") for words in corpus.differences())
    assert "1 sounds have other names: other/README copy.wav" in corpus.differences()


def whole_ravdess():
    for emotion, intensity, text, take, actor in product(range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)):
        if (emotion, intensity) != (1, 2):  # neutral is never strong
            yield f"Actor_{actor:02}/03-01-{emotion:02}-{intensity:02}-{text:02}-{take:02}-{actor:02}.wav"


def whole_savee():
    codes = dict.fromkeys(("a", "d", "f", "h", "sa", "su"), 15) | {"n": 30}
    for speaker, (code, count) in product(("DC", "JE", "JK", "KL"), codes.items()):
        yield from (f"{speaker}/{code}{number:02}.wav" for number in range(1, count + 1))


WHOLE = {RAVDESS: (whole_ravdess, 240), SAVEE: (whole_savee, 120)}


@pytest.mark.parametrize("kind", WHOLE)
def test_the_whole_corpus_has_the_published_counts_and_folds_of_its_speakers(kind, tmp_path):
    paths, size = WHOLE[kind]
    copies = [f"again/{path}" for path in list(paths())[:3]]
    root = lay_out(tmp_path, [*paths(), *copies])
    corpora = [kind(root, fold=fold) for fold in range(1, kind.card.protocols[0].rule.folds + 1)]
    assert corpora[0].splits.leaks == []
    assert corpora[0].differences() == [f"3 sounds are there a second time, such as {copies[0]}"]
    tested = [name for corpus in corpora for name in corpus.split("test")["id"]]
    assert len(tested) == len(set(tested)) == size * len(corpora)
    for corpus in corpora:
        parts = corpus.everything().groupby("split")["label"].nunique()
        assert dict(parts) == dict.fromkeys(SPLITS, len(corpus.labels))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["notes.wav"], r"none of the 1 sounds below it, such as notes.wav, is called like 03-01-"),
        ([], r"none of the 0 sounds below it is called like|none of the 0 sounds"),
        (["03-01-06-01-02-01-99.wav"], r"'99' as its gender \(and 0 more like it\), expected one of 01, 02"),
    ],
)
def test_another_folder_is_told(paths, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RAVDESS(lay_out(tmp_path, paths)).table()


def test_folds_by_hash_do_not_depend_on_who_is_there():
    names = [f"word{number}" for number in range(200)]
    table = complete(_rows(names), "it")
    rule = HashedFolds("text", folds=5)
    parts = [rule.assign(table, fold) for fold in range(1, 6)]
    sizes = [int((part == "test").sum()) for part in parts]
    assert sum(sizes) == 200
    assert min(sizes) > 25
    assert ((parts[0] == "val") == (parts[1] == "test")).all()
    some = table.iloc[::3]
    assert (rule.assign(some, 2) == parts[1].loc[some.index]).all()


def _rows(names):
    return pd.DataFrame({"id": names, "text": names, "seconds": 1.0})


def test_tess_shares_its_two_voices_and_no_word(tmp_path):
    words = [f"word{number}" for number in range(40)]
    paths = [f"{who}_{word}_{code}.wav" for who in ("OAF", "YAF") for word in words for code in ("ps", "sad")]
    corpus = TESS(lay_out(tmp_path, paths))
    assert {leak.relation for leak in corpus.splits.leaks} == {"speaker"}
    told = {part: set(corpus.split(part)["text"]) for part in SPLITS}
    assert not (told["train"] & told["test"])
    assert not (told["val"] & told["test"])


@pytest.mark.parametrize(("kind", "folder", "size"), [(ASED, "ased", 1_572), (NEMO, "nemo", 1_008)])
def test_real_samples_are_read_as_their_tables_say(kind, folder, size):
    root = real_data(folder)
    table = complete(kind(str(root)).table(), folder).set_index("path")
    said = pd.read_csv(root / "manifest.csv").set_index("path").loc[table.index]
    assert len(table) == size
    said["label"] = said["label"].replace({"surprised": "surprise"})
    assert (table["label"] == said["label"]).all()
    assert (table["speaker"] == said["speaker"].str.removeprefix("S")).all()
    # Five speakers of ASED have files whose names tell the other gender.
    assert (table["gender"] == said["gender"]).mean() > (0.98 if folder == "ased" else 0.999)


# MSP-IMPROV -------------------------------------------------------------------------------------------------

TURNS = [
    f"S{sentence:02}{emotion}-{gender}0{session}-{scene}-{gender}{other}01"
    for session in range(1, 7)
    for gender, other in (("F", "M"), ("M", "F"))
    for sentence, emotion, scene in ((1, "A", "S"), (2, "H", "P"), (3, "N", "R"), (4, "S", "T"))
]


def lay_out_improv(folder, spelling="Evalution.txt"):
    lines = []
    for name in TURNS:
        lines += [
            f"UTD-IMPROV-{name}.avi; {name[3]}; A:2.000000; V:3.500000; D:NaN ; N:4.000000;",
            "WORKER-1_a; Angry; Frustrated; A:1.000000; V:3.000000; D:2.000000; N:4.000000;",
            "WORKER-2; Other; , bored (a bit); A:3.000000; V:4.000000; D:NaN; N:NaN;",
            "",
        ]
    lines[0] = lines[0].replace("; A; ", "; X; ")
    lay_out(folder, [f"session{name[7]}/{name[:4]}/{name[9]}/MSP-IMPROV-{name}.wav" for name in TURNS])
    (folder / spelling).write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


def test_msp_improv_is_read_as_its_label_file_says(tmp_path):
    corpus = MSPImprov(lay_out_improv(tmp_path))
    table = corpus.everything().set_index("id")
    assert corpus.dropped == {"the raters do not agree": 1}
    turn = table.loc["S02H-M03-P-MF01"]
    assert turn[["label", "speaker", "gender", "session"]].tolist() == ["happiness", "M03", "male", "3"]
    # Activation stands upside down in the file.
    assert turn[["activation", "valence"]].tolist() == [4.0, 3.5]
    assert turn["path"] == "session3/S02H/P/MSP-IMPROV-S02H-M03-P-MF01.wav"
    assert set(corpus.split("test")["session"]) == {"1"}
    rated = corpus.ratings()
    assert len(rated) == 2 * len(TURNS)
    assert rated.iloc[0].tolist()[:5] == [TURNS[0], "WORKER-1_a", "anger", 5.0, 3.0]
    published = MSPImprov(str(tmp_path), protocol="speakers-8-2-2", labels="none")
    assert set(published.split("test")["speaker"]) == {"F04", "M05"}
    assert {leak.relation for leak in find_leaks(published.everything())} <= {"session", "dialogue"}
