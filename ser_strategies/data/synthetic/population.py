"""The embedded corpus: speakers, sentences, emotions and ratings, drawn from a seed."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ser_strategies.data.synthetic.voice import PAUSE, Delivery, Speaker, seconds_of, speak

LABELS: tuple[str, ...] = ("anger", "happiness", "neutral", "sadness")
DIMENSIONS: tuple[str, ...] = ("activation", "valence", "dominance")

# How hard the corpus is. Weaker or more scattered emotion and more noise make it harder.
INTENSITY = (0.6, 1.2)  # how strongly a clip expresses its class: uniform between these
EXPRESSIVENESS = (1.8, 2.6)  # how much of it reaches a speaker's voice, though not the raters: likewise
LATENT_NOISE = 0.15  # scatter of an emotion around its class
DELIVERY_NOISE = 0.5  # scale of everything in a delivery that is not emotion
HABIT_NOISE = 0.6  # scale of the differences between speakers that resemble emotion
RATER_NOISE = 0.6  # scatter of one rater's impressions
RATER_BIAS = 0.15  # differences between raters

# Activation, valence and dominance, with 0 for the middle of the scale and 1 for three points from it.
PROTOTYPES = {
    "anger": (0.75, -0.65, 0.65),
    "happiness": (0.60, 0.75, 0.25),
    "neutral": (-0.05, 0.05, 0.0),
    "sadness": (-0.70, -0.60, -0.60),
}


class Sentence(NamedTuple):
    """A made-up sentence with an intonation of its own."""

    spelling: str  # its syllables, with hyphens within words and an apostrophe before a stressed one
    f0_slope: float  # semitones that the pitch rises over it whatever the emotion; a question rises

    @property
    def text(self) -> str:
        """The sentence as a transcript shows it."""
        return self.spelling.replace("-", "").replace("'", "")

    @property
    def syllables(self) -> tuple[str, ...]:
        """The syllables that `voice.speak` takes."""
        return tuple(self.spelling.replace(",", f" {PAUSE}").replace("-", " ").split())


# Lengths are mixed, so that a small corpus has short and long clips too.
SENTENCES = (
    Sentence("ba-'ro 'ti-ma", 3.0),
    Sentence("'ga-ne fo-'li ra-'tum ho-ze 'wa", -3.0),
    Sentence("'te-mi", 2.5),
    Sentence("yo-'ma, 'ke-su li-'bo-na, shi", 2.0),
    Sentence("'fe-la su-'den wo", -2.5),
    Sentence("'hi-bo ta-'ne-lu 'mor, sa-'gi wo 'fe-na-du", -0.5),
    Sentence("'no", 0.0),
    Sentence("mi-'sha ro-ka 'pu-ne", 1.0),
    Sentence("lu-'pa 'se-no-mi, 'ra-de ko-'vi-sha", 0.5),
    Sentence("'shi na-'gu", -1.0),
    Sentence("'do-ri 'hem le-'va-no ti", -1.5),
    Sentence("ka-'lo", -2.0),
)

# The sentences that go with each class where the text is to tell of it; in the order of `LABELS`.
TYPICAL = {label: SENTENCES[number :: len(LABELS)] for number, label in enumerate(LABELS)}

_RATER_POOL = 12
# The same of raters who are known by name, and differ so much that it can be learned.
KNOWN_BIAS = 0.3  # scatter of their biases
KNOWN_NOISE = (0.1, 0.4)  # scatter of a rater's impressions: uniform between these


class Rating(NamedTuple):
    """One rater's judgement of one clip; dimensions go from 1 (calm, negative, weak) to 7."""

    label: str  # the class, one of `LABELS`
    activation: float  # from 1, calm, to 7, active
    valence: float  # from 1, negative, to 7, positive
    dominance: float  # from 1, weak, to 7, strong


@dataclass(frozen=True)
class SyntheticUtterance:
    """One clip of the embedded corpus: its annotations, and what `render` needs to make it sound."""

    id: str  # such as "s03_u017": the fourth speaker's eighteenth clip
    speaker: str  # such as "s03"
    gender: str
    text: str  # in made-up words
    label: str  # the intended emotion, one of `LABELS`
    activation: float  # mean of the ratings, from 1 to 7
    valence: float  # mean of the ratings, from 1 to 7
    dominance: float  # mean of the ratings, from 1 to 7
    ratings: tuple[Rating, ...]
    raters: tuple[int, ...]  # who rated, by their numbers in the pool; empty where they are anonymous
    seconds: float
    syllables: tuple[str, ...]  # as `voice.speak` takes them
    voice: Speaker
    delivery: Delivery
    entropy: tuple[int, ...]  # the seed of the rendering


@dataclass(frozen=True)
class Raters:
    """Raters who are known by name, with habits of their own."""

    biases: NDArray[np.float64]  # (raters, 3), with 1 for three points of the scale
    noises: NDArray[np.float64]  # (raters,)


def draw_raters(pool: int, seed: int = 0) -> Raters:
    """Draws raters; equal seeds, equal raters."""
    rng = np.random.default_rng([seed, 4])
    return Raters(rng.normal(0, KNOWN_BIAS, (pool, len(DIMENSIONS))), rng.uniform(*KNOWN_NOISE, pool))


def draw_population(
    speakers: int,
    utterances_per_speaker: int,
    raters: int = 5,
    seed: int = 0,
    *,
    text_informativeness: float = 0.0,
    pool: int | None = None,
    disagreement: float = 0.0,
) -> tuple[SyntheticUtterance, ...]:
    """Draws the clips of a corpus, speaker by speaker, without rendering them; equal seeds, equal clips.

    A speaker says each of their sentences once with every emotion, in random order, so that the classes are
    balanced and the text does not tell the emotion; genders alternate from speaker to speaker. With this
    chance, `text_informativeness`, a clip says one of the sentences that are typical of its class instead.
    With a pool, so many raters are known by name; the clips sound the same. `disagreement` says how much more
    these scatter where a clip expresses its class weakly: at the weakest 1 + disagreement times as much as at
    the strongest.
    """
    wanted = {"speakers": speakers, "utterances_per_speaker": utterances_per_speaker, "raters": raters}
    for name, count in wanted.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    if not 0 <= text_informativeness <= 1:
        raise ValueError(f"text_informativeness must lie between 0 and 1, got {text_informativeness}.")
    if pool is not None and pool < max(raters, 2):
        raise ValueError(f"rater_pool must be at least {max(raters, 2)}, raters of an utterance, got {pool}.")
    if disagreement < 0 or (disagreement and pool is None):
        least = "at least 0, and needs rater_pool" if disagreement > 0 else "at least 0"
        raise ValueError(f"rater_disagreement must be {least}, got {disagreement}.")
    known = None if pool is None else draw_raters(pool, seed)
    biases = np.random.default_rng([seed, 0]).normal(0, RATER_BIAS, (max(_RATER_POOL, raters), 3))
    clips = []
    for person in range(speakers):
        rng = np.random.default_rng([seed, 1, person])
        voice = _draw_speaker(person, rng)
        expressiveness = rng.uniform(*EXPRESSIVENESS)
        order = rng.permutation(utterances_per_speaker)
        rounds = -(-utterances_per_speaker // len(LABELS))
        for number, turn in enumerate(order.tolist()):
            label = LABELS[(turn + person) % len(LABELS)]
            sentence = SENTENCES[(turn // len(LABELS) + person * rounds) % len(SENTENCES)]
            # From random numbers of its own: all else is drawn as if the text told nothing.
            chance = np.random.default_rng([seed, 3, person, number])
            if chance.random() < text_informativeness:
                sentence = TYPICAL[label][chance.integers(len(TYPICAL[label]))]
            entropy = (seed, 2, person, number)
            clip = _draw_clip(number, voice, expressiveness, label, sentence, raters, biases, entropy)
            clips.append(clip if known is None else _rerated(clip, raters, known, entropy, disagreement))
    return tuple(clips)


def render(utterance: SyntheticUtterance) -> NDArray[np.float32]:
    """Lets an utterance sound: the same samples each time, whichever others are rendered before."""
    rng = np.random.default_rng(utterance.entropy)
    return speak(utterance.syllables, utterance.voice, utterance.delivery, rng)


def soft_label(utterance: SyntheticUtterance) -> tuple[float, ...]:
    """Tells which part of the raters voted for each class, in the order of `LABELS`."""
    votes = Counter(rating.label for rating in utterance.ratings)
    return tuple(votes[label] / len(utterance.ratings) for label in LABELS)


def _draw_speaker(person: int, rng: np.random.Generator) -> Speaker:
    female = person % 2 == 0
    habit = HABIT_NOISE * rng.standard_normal(7)
    return Speaker(
        name=f"s{person:02d}",
        gender="female" if female else "male",
        f0=(205.0 if female else 118.0) * float(np.exp(np.clip(0.22 * habit[0], -0.25, 0.25))),
        tract_length=(14.8 if female else 17.2) + float(np.clip(0.5 * habit[1], -1.2, 1.2)),
        rate=float(np.exp(np.clip(0.08 * habit[2], -0.15, 0.15))),
        f0_range=3.0 * float(np.exp(0.25 * habit[3])),
        tilt=6.0 + float(np.clip(1.2 * habit[4], -3, 3)),
        jitter=0.006 * float(np.exp(0.4 * habit[5])),
        breathiness=0.15 * float(np.exp(0.5 * habit[6])),
    )


def _draw_delivery(latent: NDArray[np.float64], sentence: Sentence, rng: np.random.Generator) -> Delivery:
    activation, valence, dominance = latent.tolist()
    chance = (DELIVERY_NOISE * rng.standard_normal(8)).tolist()
    # Anger sounds rough; sadness, and a little the smile, sound breathy.
    roughness = max(dominance - valence, 0.0)
    breath = 0.35 * max(-activation, 0.0) + 0.12 * max(valence, 0.0)
    return Delivery(
        f0_shift=3.0 * activation + 0.8 * valence + 1.2 * chance[0],
        f0_range=float(np.exp(0.45 * activation + 0.4 * valence + 0.25 * chance[1])),
        f0_slope=sentence.f0_slope + 2.5 * valence - 1.5 * dominance + 1.5 * chance[2],
        energy=5.0 * activation + 2.0 * dominance + 2.5 * chance[3],
        rate=float(np.exp(np.clip(0.2 * activation + 0.08 * chance[4], -0.3, 0.3))),
        tilt=-1.2 * activation - 1.0 * dominance + 0.9 * chance[5],
        jitter=max(0.012 * roughness + 0.005 * chance[6], 0.0),
        breathiness=max(breath + 0.08 * chance[7], 0.0),
    )


def _draw_clip(
    number: int,
    voice: Speaker,
    expressiveness: float,
    label: str,
    sentence: Sentence,
    raters: int,
    biases: NDArray[np.float64],
    entropy: tuple[int, ...],
) -> SyntheticUtterance:
    rng = np.random.default_rng([*entropy, 0])
    latent = _draw_latent(label, rng)
    delivery = _draw_delivery(expressiveness * latent, sentence, rng)
    ratings = _judge(latent, rng.permutation(biases)[:raters], rng)
    activation, valence, dominance = np.mean([rating[1:] for rating in ratings], axis=0).tolist()
    return SyntheticUtterance(
        id=f"{voice.name}_u{number:03d}",
        speaker=voice.name,
        gender=voice.gender,
        text=sentence.text,
        label=label,
        activation=activation,
        valence=valence,
        dominance=dominance,
        ratings=ratings,
        raters=(),
        seconds=seconds_of(sentence.syllables, voice, delivery, np.random.default_rng(entropy)),
        syllables=sentence.syllables,
        voice=voice,
        delivery=delivery,
        entropy=entropy,
    )


def _draw_latent(label: str, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array(PROTOTYPES[label]) * rng.uniform(*INTENSITY) + rng.normal(0, LATENT_NOISE, 3)


def _rerated(
    clip: SyntheticUtterance, count: int, known: Raters, entropy: tuple[int, ...], disagreement: float
) -> SyntheticUtterance:
    """The clip as known raters judge it; its sound stays."""
    intensity = np.random.default_rng([*entropy, 0]).uniform(*INTENSITY)  # the first that its latent draws
    wider = 1 + disagreement * (INTENSITY[1] - intensity) / (INTENSITY[1] - INTENSITY[0])
    latent = _draw_latent(clip.label, np.random.default_rng([*entropy, 0]))
    rng = np.random.default_rng([*entropy, 1])
    who = np.sort(rng.permutation(len(known.biases))[:count])
    ratings = _judge(latent, known.biases[who], rng, wider * known.noises[who, None])
    means = np.mean([rating[1:] for rating in ratings], axis=0).tolist()
    said = dict(zip(DIMENSIONS, means, strict=True))
    return replace(clip, ratings=ratings, raters=tuple(who.tolist()), **said)


def _judge(
    latent: NDArray[np.float64],
    biases: NDArray[np.float64],
    rng: np.random.Generator,
    noise: NDArray[np.float64] | float = RATER_NOISE,
) -> tuple[Rating, ...]:
    prototypes = np.array([PROTOTYPES[label] for label in LABELS])
    ratings = []
    for impression in latent + biases + rng.normal(0, noise, biases.shape):
        nearest = int(np.argmin(np.square(prototypes - impression).sum(axis=1)))
        points = np.clip(np.round(4 + 3 * impression), 1, 7).tolist()
        ratings.append(Rating(LABELS[nearest], *points))
    return tuple(ratings)
