"""Anybody's own recordings, described by a table: the file of each utterance, its label, who speaks."""

from typing import Unpack, final

import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions, expanded
from ser_strategies.data.manifest.assigning import ProtocolName, ValName
from ser_strategies.data.manifest.described import DescribedCorpus
from ser_strategies.data.manifest.rated import check_ratings, check_scale, read_ratings
from ser_strategies.data.manifest.sheet import Sheet, canonical, read_sheet


@final
class Manifest(DescribedCorpus):
    """Your own recordings, described by a table: a row for each utterance.

    The table is CSV (with commas, semicolons, tabs or bars), JSON lines or parquet; text is UTF-8, or UTF-16
    that says so. The column path is needed; the others say what to learn and how to split.

    Args:
        path: The table: .csv, .tsv, .jsonl, .ndjson or .parquet. Its columns, others being left alone: path
            (or file, filename, audio and other usual names), the sound, relative to the root; label (or
            emotion and others), without which the label is what most raters say; raters, what each rater
            said, as in anger;anger;neutral or r1=anger|r2=neutral; activation (or arousal), valence,
            dominance; speaker (or spk, speaker_id, actor and others); split, which is train, val (or valid,
            validation, dev, development) or test; fold, which is tested together; gender (or sex), female or
            male; text (or transcript, transcription); session and dialogue, what was recorded in
            one go or said to each other, which is not split up, so that a number that starts again for each
            speaker is neither; start and end, where the utterance is in a longer recording, in seconds,
            recordings being sessions if there is no column session; seconds (or duration), estimated if it
            is empty; id, which is the path without its ending if there is none.
        root: The folder that paths are relative to, or its URL, such as s3://bucket/corpus; null takes the
            folder that the table is in.
        classes: Names of the classes, in their order: any other label is a mistake. Null takes those found,
            sorted; [] goes without classes.
        dimensions: Columns of numbers to learn, in their order; null takes activation, valence and dominance,
            as far as they are there.
        protocol: own (by the column split), own-folds (by the column fold), speaker-folds (nobody is in two
            splits, classes and genders are balanced), speaker-folds-v1 (as it was before it looked at
            gender), random (by chance, for tables without speakers) or test-only. Null takes own if there is
            a column split, else own-folds if there is a column fold, else speaker-folds if there are
            speakers.
        folds: How many folds speaker-folds makes: one tests, the next validates, the others train. Null makes
            five, or as many as there are speakers.
        val: Who validates where the column split names nobody, or with own-folds: share (a fifth of those
            who train, by speaker if known), or next-fold. Null takes next-fold where there are three folds.
        ratings: A table of what each rater said, one rating a row: id (of the utterance: its id, or its path
            without the ending), rater, and activation, valence, dominance or the names of --data.dimensions.
            Dimensions are then the means of these.
        scale: The lowest and the highest rating that raters could give, as in [1, 7]; null takes those found
            in a table of ratings. By it dimensions of several corpora come on one scale.
        columns: What you call a column, if it has none of the names above, as in {label: mood}.
        encoding: What a text table is written in, such as cp1252; null takes UTF-8, or UTF-16 that says so.
    """

    reads_urls = True

    def __init__(
        self,
        path: str,
        *,
        root: str | None = None,
        classes: tuple[str, ...] | None = None,
        dimensions: tuple[str, ...] | None = None,
        protocol: ProtocolName | None = None,
        folds: int | None = None,
        val: ValName | None = None,
        ratings: str | None = None,
        scale: tuple[float, float] | None = None,
        columns: dict[str, str] | None = None,
        encoding: str | None = None,
        **options: Unpack[RecordedOptions],
    ) -> None:
        self._columns, self._encoding = dict(columns or {}), encoding
        table = expanded("path", path)
        self._ratings: pd.DataFrame | None = None
        sheet = None
        if ratings is not None:
            chosen = tuple(map(canonical, dimensions)) if dimensions else None
            sheet = read_ratings(expanded("ratings", ratings), chosen, encoding)
            self._ratings = sheet.cells
        super().__init__(
            table,
            table.parent if root is None else expanded("root", root),
            classes=classes,
            dimensions=dimensions,
            protocol=protocol,
            folds=folds,
            val=val,
            **options,
        )
        if sheet is not None:
            self.scale = check_ratings(sheet, self.annotations()["id"], scale)
        elif scale is not None:
            self.scale = check_scale(scale, str(table))

    def rated(self) -> pd.DataFrame | None:
        """The table of ratings."""
        return self._ratings

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """The cells of the file."""
        return read_sheet(self.path, columns=self._columns, dimensions=dimensions, encoding=self._encoding)
