"""Data sets of the hub as folders: the local cache first, then the network."""

from pathlib import Path

EXPECTED = "a folder, or one as in owner/name"


def fetched(name: str, revision: str | None) -> Path:
    """The folder of all files of a data set."""
    # Only whoever names a data set of the hub waits for these.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from ser_strategies.common.hub import why_absent

    def found(*, locally: bool) -> Path:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=locally))

    try:
        try:
            return found(locally=True)
        except LocalEntryNotFoundError:
            return found(locally=False)
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        msg = why_absent(error, name, revision, kind="data set", expected=EXPECTED)
        raise FileNotFoundError(msg) from error
