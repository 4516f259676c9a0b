"""`card`: what the encoder that comes with the package is, what it heard, and what it is not."""

from pathlib import Path

from ser_strategies.common.errors import PROGRAM, CommandParser

# By its path: the encoder's room imports transformers, which takes seconds.
CARD = Path(__file__).parents[1] / "encoder" / "starter" / "card.json"


def run(command: str, arguments: list[str]) -> None:
    """Prints the card of `starter`.

    Args:
        command: card.
        arguments: The words after it.
    """
    parser = CommandParser(
        prog=f"{PROGRAM} {command}", description="Print the card of the encoder `starter`, as JSON."
    )
    parser.parse_args(arguments)
    print(CARD.read_text(encoding="utf-8"), end="")
