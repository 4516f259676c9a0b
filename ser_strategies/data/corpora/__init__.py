"""Every corpus that can be named on the command line."""

from ser_strategies.data.corpora.crema_d import CREMAD
from ser_strategies.data.corpora.iemocap import IEMOCAP
from ser_strategies.data.corpora.meld import MELD
from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.manifest import Manifest
from ser_strategies.data.synthetic import Synthetic

CORPORA: tuple[type[Corpus], ...] = (IEMOCAP, MSPPodcast, MELD, CREMAD, Manifest, Synthetic)
