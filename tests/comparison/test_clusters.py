import pandas as pd
import pytest

from ser_strategies.comparison.stats.aligned import clusters_of, each_utterance


def table(**columns):
    return pd.DataFrame({"id": ["a", "b", "c", "d"], **columns})


def owners(clusters):
    return [clusters.names[code] for code in clusters.codes]


def test_speakers_are_what_stands_alone():
    found = clusters_of(table(speaker=["x", "y", "x", "y"], session=["1", "1", "1", "1"]))
    assert owners(found) == ["speaker x", "speaker y", "speaker x", "speaker y"]
    assert found.unit == "speaker"
    assert found.notes == ()


@pytest.mark.parametrize("nobody", [None, float("nan"), "", "  ", pd.NA])
def test_who_has_no_speaker_goes_by_session_then_dialogue_then_alone(nobody):
    found = clusters_of(
        table(
            speaker=["x", nobody, nobody, nobody],
            session=["1", "1", nobody, nobody],
            dialogue=[nobody] * 2 + ["q", nobody],
        )
    )
    assert owners(found) == ["speaker x", "session 1", "dialogue q", "utterance d"]
    assert found.notes == (
        "1 of 4 utterances have no speaker and go by session",
        "1 of 4 utterances have no speaker and go by dialogue",
        "1 of 4 utterances have no speaker and stand alone",
    )


def test_without_speakers_sessions_are_said_to_be_what_counts():
    found = clusters_of(table(speaker=[None] * 4, session=["1", "1", "2", "2"]))
    assert found.unit == "session"
    assert found.notes == ("no speaker is known: uncertainty is counted in sessions",)


def test_where_nothing_is_known_that_is_said():
    found = clusters_of(table())
    assert found.unit == "utterance"
    assert len(found.names) == 4
    assert "narrower than they should be" in found.notes[0]


def test_each_utterance_can_be_a_cluster():
    assert each_utterance(3).codes.tolist() == [0, 1, 2]
