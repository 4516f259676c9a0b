"""Strategies compared: accuracy against cost, and a verdict with its uncertainty."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_strategies.comparison.comparison import Comparison
    from ser_strategies.comparison.ledger import Ledger

__all__ = ["Comparison", "Ledger"]

# Imported on first use: a run that only measures its costs has no need of tables.
_HOMES = {"Comparison": "comparison", "Ledger": "ledger"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
