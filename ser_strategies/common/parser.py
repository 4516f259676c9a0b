"""argparse with this library's manners: one sentence for a mistake, the nearest name, no abbreviations."""

import argparse
from typing import Any, NoReturn

from ser_strategies.common.errors import MistypedError
from ser_strategies.common.wording import nearest


class KindParser(argparse.ArgumentParser):
    """Raises `MistypedError` where argparse would print its usage and exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises what argparse has to say, with the nearest option where one is unknown."""
        unknown, _, words = message.partition("unrecognized arguments: ")
        if not unknown and words:
            word = words.split()[0].split("=")[0]
            options = [name for action in self._actions for name in action.option_strings]
            near = nearest(word, options)
            hint = f"; did you mean {near}?" if near else f": expected some of {', '.join(options)}."
            message = f"{self.prog} has no option {word!r}{hint}"
        raise MistypedError(message)
