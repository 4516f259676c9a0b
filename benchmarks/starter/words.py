"""Words for voices to say: sentences of free licences' own English, and words of no language."""
# ruff: noqa: RUF001 - letters of other scripts look like Latin ones

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

LICENCES = Path("/usr/share/common-licenses")  # on every Debian
CONSONANTS = {
    "latin": [*"ptkbdgmnlrsfvhzjptknlrsmd", "st", "tr", "kl", "br", "sp"],
    "cyrillic": [*"пткбдгмнлрсфвхзжчш", "ст", "тр"],
    "devanagari": list("कखगचजटडतथदधनपफबभमयरलवशसह"),
    "telugu": list("కగచజటడతదనపబమయరలవశసహ"),
}
VOWELS = {
    "latin": [*"aeiouaeiou", "ai", "au", "ei"],
    "cyrillic": list("аеиоуаояюы"),
    "devanagari": ["", "ा", "ि", "ी", "ु", "े", "ो", "ै"],
    "telugu": ["", "ా", "ి", "ు", "ె", "ే", "ొ", "ో"],
}
CODAS = {"latin": ["", "", "", "n", "s", "r", "l", "m"], "cyrillic": ["", "", "", "н", "с", "р", "т"]}


def invented(rng: np.random.Generator, script: str, syllables: int) -> str:
    """A sentence of made-up words."""
    words: list[str] = []
    while syllables > 0:
        length = min(syllables, int(rng.integers(1, 5)))
        words.append("".join(_syllable(rng, script) for _ in range(length)))
        if rng.random() < 0.12 and syllables > length:
            words[-1] += ","
        syllables -= length
    return " ".join(words) + str(rng.choice([".", ".", "?", "!"]))


def _syllable(rng: np.random.Generator, script: str) -> str:
    return "".join(str(rng.choice(parts.get(script, [""]))) for parts in (CONSONANTS, VOWELS, CODAS))


def english(rng: np.random.Generator, syllables: int) -> str:
    """A stretch of English, of about so many syllables."""
    words = _licence_words()
    first = int(rng.integers(len(words)))
    chosen = [words[(first + index) % len(words)] for index in range(max(3, syllables * 5 // 8))]
    return " ".join(chosen) + str(rng.choice([".", ".", "?", "!"]))


@lru_cache(maxsize=1)
def _licence_words() -> list[str]:
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in sorted(LICENCES.glob("*[0-9A-Z]")))
    return re.findall(r"[A-Za-z][a-z]+", " ".join(texts))
