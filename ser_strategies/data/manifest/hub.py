"""Data sets of the hub as folders: the local cache first, then the network."""

from pathlib import Path

ABSENT = "{name} is neither a folder nor in the local cache"


def fetched(name: str, revision: str | None, patterns: list[str] | None) -> Path:
    """The folder of a data set's files; `patterns` are those to fetch, all where None."""
    # Only whoever names a data set of the hub waits for this.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    absent = ABSENT.format(name=name)
    try:
        for local in (True, False):
            try:
                return Path(
                    snapshot_download(
                        name,
                        repo_type="dataset",
                        revision=revision,
                        allow_patterns=patterns,
                        local_files_only=local,
                    )
                )
            except LocalEntryNotFoundError:
                if not local:
                    raise
    except LocalEntryNotFoundError:
        offline = constants.is_offline_mode()
        reason = (
            "the hub is not asked while HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        )
        msg = f"{absent}, and {reason}: connect once to fetch it, or give a local folder."
    except GatedRepoError:
        msg = f"{absent}, and the hub gives it to those alone who have accepted its terms: do so, and log in."
    except RepositoryNotFoundError:
        msg = f"{absent}, and the hub has no data set of that name, or a private one: check it, or log in."
    except RevisionNotFoundError:
        msg = f"{absent}, and the hub knows no revision {revision!r} of it: give a branch, tag or commit."
    except HFValidationError:
        msg = f"{absent}, and is no name that the hub could have: expected a folder, or one as in owner/name."
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        msg = f"{absent}, and the hub gave nothing ({reason}): try again, or give a local folder."
    raise FileNotFoundError(msg)
