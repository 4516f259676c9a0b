"""Acted corpora whose file names say everything: a card each, and one class that reads them all."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Unpack, final

import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.listing import sounds_below
from ser_strategies.data.naming import Naming
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import RecordedCorpus
from ser_strategies.data.table import TEXT

# Everything that an actor was asked for.
EMOTIONS = "emotions"


class ActedCorpus(RecordedCorpus):
    """A corpus whose card says how its files are called: sounds anywhere below the root, and no label file.

    Args:
        root: The folder of the corpus; its sounds may be in folders of it.
        protocol: How to split it; null takes the first protocol of the card.
    """

    label_sets: Mapping[str, Mapping[str, str]]

    def __init_subclass__(cls, **keywords: object) -> None:
        """Takes the classes from the card."""
        super().__init_subclass__(**keywords)
        cls.label_sets = {EMOTIONS: cls.card.labels}

    def __init__(self, root: str, *, protocol: str | None = None, **options: Unpack[RecordedOptions]) -> None:
        super().__init__(root, labels=EMOTIONS, protocol=protocol, **options)
        self.odd: list[str] = []

    def codes(self) -> frozenset[str]:
        """The codes of the card."""
        return frozenset(self.card.labels)

    def annotations(self) -> pd.DataFrame:
        """Every sound with a name of the corpus; others, and second copies, are told of."""
        names = self.card.names or Naming(())
        found = names.read(list(sounds_below(self.root)))
        table, self.odd = found.table, []
        if table.empty:
            example = f", such as {found.unfit[0]}" if found.unfit else ""
            msg = (
                f"{self.root} is not the folder of {self.card.name}: none of the {len(found.unfit):,} sounds "
                f"below it{example}, is called like {names.patterns[0]}. Give the right --data.root; to get "
                f"the corpus: {self.card.request}."
            )
            raise FileNotFoundError(msg)
        if found.unfit:
            self.odd.append(f"{len(found.unfit):,} sounds have other names: {found.unfit_words}")
        if "id" not in table:
            table["id"] = pd.array([PurePosixPath(path).stem for path in table["path"]], TEXT)
        # Archives from second hands hold whole corpora twice: the copy that is nearer to the root counts.
        depth = table["path"].str.count("/")
        table = table.assign(depth=depth).sort_values(["depth", "path"], kind="stable").drop(columns="depth")
        again = table["id"].duplicated()
        if again.any():
            first = table["path"][again].iloc[0]
            self.odd.append(f"{int(again.sum()):,} sounds are there a second time, such as {first}")
        return table[~again].sort_values("id").reset_index(drop=True)

    def differences(self) -> list[str]:
        """Differences from the published counts, and sounds that are not used."""
        return [*super().differences(), *self.odd]


@final
class RAVDESS(ActedCorpus):
    """RAVDESS: 24 actors say two sentences in eight emotions, 1,440 clips of North American English.

    Songs, and films without sound, have other names and are not used.
    """

    card = load_card("ravdess")


@final
class EMODB(ActedCorpus):
    """EMO-DB: ten actors say ten sentences in seven emotions, 535 clips in German."""

    card = load_card("emo_db")


@final
class TESS(ActedCorpus):
    """TESS: two women say 200 words in a sentence in seven emotions, 2,800 clips in English.

    With two speakers, no split keeps a voice out of training and still has somebody to validate.
    """

    card = load_card("tess")


@final
class SAVEE(ActedCorpus):
    """SAVEE: four men say sentences in seven emotions, 480 clips in British English."""

    card = load_card("savee")


@final
class NEMO(ActedCorpus):
    """nEMO: nine actors say ninety sentences in six emotions, 4,481 clips in Polish."""

    card = load_card("nemo")


@final
class ASED(ActedCorpus):
    """ASED: 65 speakers say sentences in five emotions, 2,474 clips in Amharic.

    Most sentences are said in one emotion only, so that words alone may give it away.
    """

    card = load_card("ased")


@final
class SUBESCO(ActedCorpus):
    """SUBESCO: twenty actors say ten sentences in seven emotions five times, 7,000 clips in Bangla."""

    card = load_card("subesco")
