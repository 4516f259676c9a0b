"""`starter`: the small encoder that comes with the package, and its card."""

import json
from pathlib import Path
from typing import Any

STARTER = "starter"
CARD = "card.json"


def starter_folder() -> Path:
    """Its files, in transformers' format."""
    return Path(__file__).parent


def starter_card() -> dict[str, Any]:
    """What it is, what it heard and for how long, and what it is not."""
    card: dict[str, Any] = json.loads((starter_folder() / CARD).read_text(encoding="utf-8"))
    return card
