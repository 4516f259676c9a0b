"""The embedded corpus: made-up speech, from voice and population to a datamodule."""

from ser_strategies.data.synthetic.synthetic import Synthetic

__all__ = ["Synthetic"]
