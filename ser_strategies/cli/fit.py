"""`fit`, `validate` and `test`, and `predict` on a corpus."""

from ser_strategies.fit.lightning_cli import run

__all__ = ["run"]
