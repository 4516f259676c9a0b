"""Where each file of a tar file begins, so that any of them is one request for a range of bytes."""

import json
import tarfile
from functools import lru_cache
from typing import NamedTuple

import fsspec

TAR = ".tar/"
# An index beside a tar file, {"clip.flac": [first byte, bytes]}; without one its headers are read once.
INDEX = ".index.json"
# Bytes of a request while headers are read: each is 512, and what follows it is stepped over.
HEADERS = 4096


class Member(NamedTuple):
    """A file of a tar file."""

    tar: str
    start: int
    size: int


@lru_cache(maxsize=256)
def members(url: str) -> dict[str, Member]:
    """The files of a tar file by their names; raises OSError where it is none."""
    system, path = fsspec.core.url_to_fs(url)
    try:
        found: dict[str, list[int]] = json.loads(system.cat_file(f"{path}{INDEX}"))
        return {name: Member(url, start, size) for name, (start, size) in found.items()}
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{url}{INDEX} is no index of a tar file: remove it, or write it anew."
        raise OSError(msg) from error
    return {name: Member(url, start, size) for name, (start, size) in read_index(url).items()}


def read_index(url: str) -> dict[str, tuple[int, int]]:
    """First byte and bytes of each file of a tar file, from its headers."""
    system, path = fsspec.core.url_to_fs(url)
    try:
        with (
            system.open(path, "rb", block_size=HEADERS) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            return {
                each.name.removeprefix("./"): (each.offset_data, each.size) for each in tar if each.isfile()
            }
    except tarfile.TarError as error:
        msg = f"{url} is no tar file that can be read from any place in it ({error}): do not compress it."
        raise OSError(msg) from error


def write_index(url: str) -> str:
    """Writes the index of a tar file beside it, and gives its URL."""
    system, path = fsspec.core.url_to_fs(url)
    system.pipe_file(f"{path}{INDEX}", json.dumps(read_index(url)).encode())
    return f"{url}{INDEX}"
