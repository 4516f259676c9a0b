"""Words for emotions in the spellings and languages of corpora, to suggest how two of them may meet."""

from collections.abc import Iterable, Mapping

from ser_strategies.common.errors import listed

_WORDS = {
    "anger": "ang angry anger wut ärger zorn colère enojo ira rabia rabbia raiva złość gniew boosheid arg",
    "boredom": "bored boredom langeweile ennui aburrimiento noia nuda",
    "calm": "calm ruhe calme calma spokój",
    "contempt": "contempt con verachtung mépris desprecio disprezzo",
    "disgust": "dis disgust disgusted ekel dégoût asco disgusto nojo wstręt obrzydzenie",
    "excitement": "exc excited excitement aufregung",
    "fear": "fea fear fearful afraid anxiety angst furcht peur miedo paura medo strach lęk",
    "happiness": "hap happy happiness joy freude joie felicidad alegría felicità gioia alegria radość",
    "neutral": "neu neutral neutre neutralny neutrale neutro neutralität",
    "sadness": "sad sadness trauer traurigkeit tristesse tristeza tristezza smutek",
    "surprise": "sur surprise surprised ps überraschung sorpresa surpresa zaskoczenie zdziwienie",
}
MEANINGS = {word: emotion for emotion, words in _WORDS.items() for word in words.split()}


def meaning(word: str) -> str:
    """The emotion that a word is taken for, in the words used here; a word that is not known is itself."""
    return MEANINGS.get(word.strip().casefold(), word)


def suggested_map(classes: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """New names of classes by which they would meet others."""
    by_meaning = {meaning(name): name for name in wanted}
    return {
        name: by_meaning[meaning(name)]
        for name in classes
        if meaning(name) in by_meaning and by_meaning[meaning(name)] != name
    }


def towards(classes: Iterable[str], wanted: Iterable[str]) -> tuple[dict[str, str | None], list[str]] | None:
    """The map by which classes become those wanted, leaving out others, and the wanted that are lacking.

    None where fewer than two meet.
    """
    classes, wanted = tuple(classes), tuple(wanted)
    renamed = suggested_map(classes, wanted)
    others = [name for name in classes if renamed.get(name, name) not in wanted]
    reached = {renamed.get(name, name) for name in classes} & set(wanted)
    lacking = [name for name in wanted if name not in reached]
    return (renamed | dict.fromkeys(others), lacking) if len(reached) > 1 else None


def map_words(renamed: Mapping[str, str | None]) -> str:
    """A map as it is typed."""
    parts = (f"{name}: {'null' if other is None else other}" for name, other in renamed.items())
    return f"{{{', '.join(parts)}}}"


def named_sets(sets: dict[str, tuple[str, ...]]) -> str:
    """Several corpora and the classes of each, in words."""
    return listed((f"{name} ({', '.join(classes) or 'none'})" for name, classes in sets.items()), "and")
