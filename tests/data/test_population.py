from collections import Counter, defaultdict

import numpy as np
import pytest

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.synthetic.population import (
    DIMENSIONS,
    INTENSITY,
    LABELS,
    SENTENCES,
    draw_population,
    render,
    soft_label,
)
from ser_strategies.data.synthetic.voice import Delivery, Speaker, seconds_of


@pytest.fixture(scope="module")
def population():
    return draw_population(speakers=10, utterances_per_speaker=40, seed=7)


@pytest.fixture(scope="module")
def clips(population):
    return [render(utterance) for utterance in population]


def test_population_is_a_function_of_its_seed(population):
    assert draw_population(10, 40, seed=7) == population
    assert draw_population(10, 40, seed=8) != population


def test_speakers_do_not_depend_on_how_many_there_are(population):
    assert draw_population(3, 40, seed=7) == population[:120]


def test_rendering_order_does_not_matter(population, clips):
    for place in (399, 0, 123):
        assert render(population[place]).tobytes() == clips[place].tobytes()

    again = draw_population(10, 40, seed=7)
    assert render(again[200]).tobytes() == clips[200].tobytes()


def test_no_two_clips_are_the_same(clips):
    assert len({clip.tobytes() for clip in clips}) == len(clips)
    other = render(draw_population(1, 1, seed=8)[0])
    assert other.tobytes() not in {clip.tobytes() for clip in clips}


def test_global_random_state_is_neither_used_nor_moved(population, clips):
    np.random.seed(0)
    before = np.random.get_state()[1].tobytes()

    draw_population(2, 4)
    sound = render(population[0])

    assert np.random.get_state()[1].tobytes() == before
    assert sound.tobytes() == clips[0].tobytes()


def test_clips_last_from_half_a_second_to_six(population, clips):
    seconds = np.array([len(clip) / SAMPLE_RATE for clip in clips])

    assert seconds.min() >= 0.4
    assert seconds.max() <= 6.0
    assert seconds.max() > 6 * seconds.min()
    assert [utterance.seconds for utterance in population] == seconds.tolist()


def test_even_the_slowest_speaker_needs_no_more_than_six_seconds():
    longest = max(SENTENCES, key=lambda sentence: len(sentence.syllables))
    slowest = Speaker("slow", "male", 100.0, rate=np.exp(-0.15)), Delivery(rate=np.exp(-0.3))

    seconds = [seconds_of(longest.syllables, *slowest, np.random.default_rng(seed)) for seed in range(200)]

    assert max(seconds) < 6.0


def test_clips_are_finite_with_headroom(clips):
    assert all(np.isfinite(clip).all() for clip in clips)
    assert max(np.abs(clip).max() for clip in clips) <= 0.8 + 1e-6
    assert min(np.abs(clip).max() for clip in clips) > 0.03


def test_sentences_are_a_dozen_of_one_to_twelve_syllables():
    lengths = [sum(syllable != "," for syllable in sentence.syllables) for sentence in SENTENCES]

    assert len({sentence.text for sentence in SENTENCES}) == 12
    assert (min(lengths), max(lengths)) == (1, 12)
    assert SENTENCES[0].text == "baro tima"


def test_classes_are_balanced_for_every_speaker(population):
    per_speaker = defaultdict(Counter)
    for utterance in population:
        per_speaker[utterance.speaker][utterance.label] += 1

    assert len(per_speaker) == 10
    assert all(set(counts.values()) == {10} and set(counts) == set(LABELS) for counts in per_speaker.values())


def test_classes_stay_within_one_where_they_cannot_be_equal():
    for size in (1, 2, 3, 5, 7):
        counts = Counter(utterance.label for utterance in draw_population(1, size))
        assert max(counts.values()) - min(counts[label] for label in LABELS) <= 1


def test_text_does_not_tell_the_label(population):
    table = Counter((utterance.text, utterance.label) for utterance in population)

    for sentence in SENTENCES:
        assert len({table[sentence.text, label] for label in LABELS}) == 1
        assert table[sentence.text, LABELS[0]] > 0


def test_position_does_not_tell_the_label(population):
    for speaker in {utterance.speaker for utterance in population}:
        labels = [utterance.label for utterance in population if utterance.speaker == speaker]
        repeats = sum(labels[place] == labels[place + len(LABELS)] for place in range(36))

        assert repeats < 24  # in a fixed cycle all 36, by chance 9


def test_genders_are_balanced_and_differ_in_f0(population):
    speakers = {utterance.speaker: utterance for utterance in population}.values()
    f0 = {
        gender: [speaker.voice.f0 for speaker in speakers if speaker.gender == gender]
        for gender in ("female", "male")
    }

    assert len(f0["female"]) == len(f0["male"]) == 5
    assert 85 < min(f0["male"]) < max(f0["male"]) < min(f0["female"]) < max(f0["female"]) < 280
    assert np.std(f0["female"]) > 5


def test_ids_name_speaker_and_clip(population):
    assert population[0].id == "s00_u000"
    assert population[399].id == "s09_u039"
    assert len({utterance.id for utterance in population}) == 400


def test_dimensions_are_the_mean_of_the_ratings(population):
    for utterance in population:
        assert len(utterance.ratings) == 5
        for dimension in DIMENSIONS:
            points = [getattr(rating, dimension) for rating in utterance.ratings]
            assert getattr(utterance, dimension) == pytest.approx(np.mean(points))
            assert all(1 <= point <= 7 for point in points)


def test_dimensions_follow_the_emotion(population):
    def mean(dimension, label):
        return np.mean([getattr(clip, dimension) for clip in population if clip.label == label])

    assert mean("activation", "anger") > mean("activation", "neutral") + 1 > mean("activation", "sadness") + 2
    assert mean("valence", "happiness") > mean("valence", "neutral") + 1 > mean("valence", "anger") + 2
    assert mean("dominance", "anger") > mean("dominance", "sadness") + 2


def test_raters_mostly_but_not_always_agree_with_the_intention(population):
    votes = np.array([soft_label(utterance) for utterance in population])
    intended = np.array([LABELS.index(utterance.label) for utterance in population])

    assert 0.70 < np.mean(votes.argmax(axis=1) == intended) < 0.88
    assert 0.1 < np.mean(votes.max(axis=1) == 1) < 0.5


def test_soft_label_is_the_share_of_votes(population):
    for utterance in population[:20]:
        shares = soft_label(utterance)
        expected = [np.mean([rating.label == label for rating in utterance.ratings]) for label in LABELS]

        assert shares == pytest.approx(expected)
        assert sum(shares) == pytest.approx(1)


def test_emotion_is_a_shift_that_speakers_overlap(population):
    """The pitch of a clip alone tells the speaker; relative to the speaker it tells the emotion."""
    women = [utterance for utterance in population if utterance.gender == "female"]
    usual = np.array([12 * np.log2(utterance.voice.f0) for utterance in women])
    shift = np.array([utterance.delivery.f0_shift for utterance in women])
    sad = np.array([utterance.label == "sadness" for utterance in women])

    def separation(values):
        gap = values[~sad].mean() - values[sad].mean()
        return gap / np.sqrt((values[sad].var() + values[~sad].var()) / 2)

    assert separation(shift) > 1.2 * separation(usual + shift) > 0.6


@pytest.mark.parametrize("name", ["speakers", "utterances_per_speaker", "raters"])
def test_empty_population_is_an_error(name):
    wanted = {"speakers": 1, "utterances_per_speaker": 1, "raters": 1, name: 0}

    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got 0\.$"):
        draw_population(**wanted)


def test_negative_seed_is_an_error():
    with pytest.raises(ValueError, match=r"seed must not be negative, got -1\."):
        draw_population(1, 1, seed=-1)


def test_any_number_of_raters():
    population = draw_population(1, 4, raters=20)

    assert all(len(utterance.ratings) == 20 for utterance in population)


@pytest.mark.parametrize("degree", [0.5, pytest.param(1.0, marks=pytest.mark.further)])
def test_text_tells_of_the_emotion_to_the_degree_that_was_asked_for(degree, population):
    told = draw_population(10, 400, seed=7, text_informativeness=degree)
    seen = np.zeros((len(SENTENCES), len(LABELS)))
    texts = [sentence.text for sentence in SENTENCES]
    for clip in told:
        seen[texts.index(clip.text), LABELS.index(clip.label)] += 1 / len(told)
    right = 0.25 + 0.75 * degree
    assert seen.max(1).sum() == pytest.approx(right, abs=0.02)
    bits = (seen * np.log2(np.maximum(seen, 1e-300) / np.outer(seen.sum(1), seen.sum(0)))).sum()
    wrong = np.maximum(np.array([right, *[(1 - right) / 3] * 3]), 1e-300)
    assert bits == pytest.approx(2 + (wrong * np.log2(wrong)).sum(), abs=0.03)
    few = draw_population(10, 40, seed=7, text_informativeness=degree)
    for clip, plain in zip(few, population, strict=True):
        said = clip.text != plain.text
        assert (clip == plain) is not said
        assert (clip.label, clip.ratings, clip.voice) == (plain.label, plain.ratings, plain.voice)


def test_text_tells_nothing_unless_asked(population):
    assert draw_population(10, 40, seed=7, text_informativeness=0.0) == population
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        draw_population(1, 1, text_informativeness=1.5)


def test_raters_disagree_at_weak_clips_where_that_was_asked_for():
    plain, wide = (draw_population(4, 100, pool=12, disagreement=each) for each in (0.0, 4.0))

    def told(population):
        """Correlation of the raters' spread with how strongly a clip expresses its emotion."""
        strong = [np.random.default_rng([*clip.entropy, 0]).uniform(*INTENSITY) for clip in population]
        ratings = [[rating[1:] for rating in clip.ratings] for clip in population]
        return np.corrcoef(strong, np.std(ratings, axis=1, ddof=1).mean(axis=1))[0, 1]

    assert told(wide) < -0.5
    assert -0.3 < told(plain) < 0
    assert [clip.delivery for clip in wide] == [clip.delivery for clip in plain]
    assert [clip.raters for clip in wide] == [clip.raters for clip in plain]
    assert draw_population(4, 100, pool=12) == plain
    with pytest.raises(ValueError, match="at least 0, and needs rater_pool, got 2"):
        draw_population(1, 1, disagreement=2.0)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        draw_population(1, 1, pool=5, disagreement=-1.0)
