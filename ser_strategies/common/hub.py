"""Why the hub did not give what was asked of it, in a sentence; models and data sets alike."""

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ser_strategies.common.errors import first_line


def why_absent(error: Exception, where: str, revision: str | None, *, kind: str, expected: str) -> str:
    """The message for an error of the hub.

    Args:
        error: What was raised.
        where: The name that was asked for.
        revision: Its branch, tag or commit, if one was given.
        kind: What it names: model or data set.
        expected: What should have been named.
    """
    absent = f"{where} is neither a folder nor in the local cache"
    if isinstance(error, LocalEntryNotFoundError):
        offline = isinstance(error.__cause__, OfflineModeIsEnabled) or constants.is_offline_mode()
        reason = (
            "the hub is not asked while HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        )
        return f"{absent}, and {reason}: connect once to fetch it, or give a local folder."
    if isinstance(error, GatedRepoError):
        return (
            f"{absent}, and the hub gives it to those alone who have accepted its terms: do so, and log in."
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"{absent}, and the hub has no {kind} of that name, or a private one: check it, or log in."
    if isinstance(error, RevisionNotFoundError):
        return f"{absent}, and the hub knows no revision {revision!r} of it: give a branch, tag or commit."
    if isinstance(error, HFValidationError):
        return f"{absent}, and is no name that the hub could have: expected {expected}."
    return f"{absent}, and the hub gave nothing ({first_line(error)}): try again, or give a local folder."
