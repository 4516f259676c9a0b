"""Words for voices to say: sentences of free licences' own English, and words of no language."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

LICENCES = Path("/usr/share/common-licenses")  # on every Debian
CONSONANTS = {
    "latin": "p t k b d g m n l r s f v h z j p t k n l r s m d st tr kl br sp".split(),
    "cyrillic": "п т к б д г м н л р с ф в х з ж ч ш ст тр".split(),
    "devanagari": "क ख ग च ज ट ड त थ द ध न प फ ब भ म य र ल व श स ह".split(),
    "telugu": "క గ చ జ ట డ త ద న ప బ మ య ర ల వ శ స హ".split(),
}
VOWELS = {
    "latin": "a e i o u a e i o u ai au ei".split(),
    "cyrillic": "а е и о у а о я ю ы".split(),
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
