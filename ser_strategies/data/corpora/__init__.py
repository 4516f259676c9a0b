"""Every corpus that can be named on the command line."""

from ser_strategies.data.corpora.acted import ASED, EMODB, NEMO, RAVDESS, SAVEE, SUBESCO, TESS
from ser_strategies.data.corpora.crema_d import CREMAD
from ser_strategies.data.corpora.iemocap import IEMOCAP
from ser_strategies.data.corpora.meld import MELD
from ser_strategies.data.corpora.msp_improv import MSPImprov
from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.corpora.together import Together
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.manifest import (
    Audformat,
    EmoBox,
    Folder,
    HuggingFace,
    Kaldi,
    Lhotse,
    Manifest,
)
from ser_strategies.data.synthetic import Synthetic

CORPORA: tuple[type[Corpus], ...] = (
    IEMOCAP,
    MSPPodcast,
    MELD,
    CREMAD,
    RAVDESS,
    EMODB,
    TESS,
    SAVEE,
    NEMO,
    ASED,
    SUBESCO,
    MSPImprov,
    Manifest,
    Folder,
    EmoBox,
    Kaldi,
    Lhotse,
    HuggingFace,
    Audformat,
    Together,
    Synthetic,
)
