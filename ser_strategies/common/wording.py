"""Parts of sentences: lists of words, and the name that was probably meant."""

import difflib
import re
from collections.abc import Iterable


def listed(words: Iterable[object], last: str = "or", *, at_most: int | None = None) -> str:
    """Words as in "a, b or c"; as in "a, b and 3 more" where there are more than `at_most`."""
    every = [str(word) for word in words]
    if at_most is not None and len(every) > at_most:
        return f"{', '.join(every[:at_most])} and {len(every) - at_most:,} more"
    return f" {last} ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its capitals and hyphens; None if none is near."""
    plain = {re.sub(r"\W", "", each).casefold(): each for each in reversed(list(known))}
    typed = re.sub(r"\W", "", name).casefold()
    begin = [each for each in plain if typed and each.startswith(typed)]
    matches = difflib.get_close_matches(typed, begin or plain, n=1, cutoff=0.0 if begin else 0.5)
    return plain[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str], *, before: str = "") -> str:
    """The end of a sentence: "; did you mean <before><name>?" if a known name is near, else a full stop."""
    near = nearest(name, known)
    return f"; did you mean {before}{near}?" if near else "."
