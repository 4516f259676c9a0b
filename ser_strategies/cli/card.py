"""`card`: what the encoder that comes with the package is, what it heard, and what it is not."""

from ser_strategies.common.errors import PROGRAM, CommandParser


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
    # The encoder's room imports transformers, which takes seconds: only once there is something to print.
    from ser_strategies.encoder.starter import CARD, starter_folder

    print((starter_folder() / CARD).read_text(encoding="utf-8"), end="")
