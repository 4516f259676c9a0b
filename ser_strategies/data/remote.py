"""Sounds behind a URL: in object storage, on a web server, in tar files, by whatever fsspec knows.

A root such as s3://bucket/corpus is a `Remote`, which answers what corpora ask of a folder's Path. It is
a URL and nothing else, so that worker processes open connections of their own.
"""

import io
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

import fsspec

from ser_strategies.data.tar_index import TAR, Member, members

# Requests at once, and bytes of each where a part of a long file is read.
AT_ONCE, BLOCK = 16, 2**18
# What was read ahead, by URL: each is handed out once.
_ahead: dict[str, bytes] = {}


class Remote:
    """A file or folder behind a URL, in the shape of Path as far as corpora ask.

    Below a folder of tar files, `shard-000.tar/clip.flac` is a file of a tar file.

    Args:
        url: Such as s3://bucket/corpus, hf://datasets/name/corpus, https://host/corpus, file:///shards.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        kind = self.url.partition("://")[0]
        try:
            fsspec.get_filesystem_class(kind)
        except (ImportError, ValueError) as error:
            known = f'{error}: pip install "ser-strategies[remote]", or the package of that protocol'
            msg = f"{url} cannot be reached ({known})."
            raise ValueError(msg) from error

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.url).suffix

    def absolute(self) -> "Remote":
        """Itself."""
        return self

    resolve = absolute

    def as_posix(self) -> str:
        """The URL."""
        return self.url

    def is_dir(self) -> bool:
        """Whether it may hold files; a server that lists nothing is given the benefit of the doubt."""
        if self.url.startswith("http"):
            return True
        system, path = self._system()
        with self._named():
            return bool(system.isdir(path))

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        system, path = self._system()
        with self._named():
            return bool(system.exists(path))

    def stat(self) -> Any:
        """Its size, and nothing that changes when it is copied."""
        return SimpleNamespace(st_size=self._size(), st_mtime_ns=0, st_mode=stat.S_IFREG)

    def open(self, mode: str = "rb") -> BinaryIO:
        """The file, to be read from any place in it."""
        del mode
        if self.url in _ahead:
            return io.BytesIO(_ahead.pop(self.url))
        inside = self._member()
        if inside is not None:
            return io.BytesIO(self._bytes(inside))
        system, path = self._system()
        with self._named():
            file: BinaryIO = system.open(path, "rb", block_size=BLOCK)
            return file

    def read_ahead(self, names: Iterable[str]) -> None:
        """Fetches files of this folder at once, which are then opened without waiting."""
        _ahead.clear()  # what was not asked for will not be
        wanted = [self / name for name in dict.fromkeys(names)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for each, content in zip(wanted, pool.map(_fetched, wanted), strict=True):
                if content is not None:
                    _ahead[each.url] = content

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of each of these files of the folder that is there, by one listing of each of its folders."""
        wanted: dict[str, list[str]] = {}
        for path in paths:
            wanted.setdefault(path.rpartition("/")[0], []).append(path)
        found: dict[str, int] = {}
        for folder, inside in wanted.items():
            listed = (self / folder if folder else self)._listed()
            if listed is None:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    sizes = pool.map(_size_or_none, [self / path for path in inside])
                    found |= {
                        path: size for path, size in zip(inside, sizes, strict=True) if size is not None
                    }
            else:
                named = {path: listed.get(path.rpartition("/")[2]) for path in inside}
                found |= {path: size for path, size in named.items() if size is not None}
        return found

    def _listed(self) -> dict[str, int] | None:
        """Bytes of each file of this folder by its name; None where a server does not list them."""
        tar, inside, rest = f"{self.url}/".partition(TAR)
        if inside:
            start = rest and f"{rest.strip('/')}/"
            found = members(f"{tar}.tar")
            return {
                name.removeprefix(start): each.size for name, each in found.items() if name.startswith(start)
            }
        if self.url.startswith("http"):
            return None
        system, path = self._system()
        try:
            with self._named():
                listed = system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            PurePosixPath(each["name"]).name: int(each["size"]) for each in listed if each["type"] == "file"
        }

    def _system(self) -> tuple[Any, str]:
        # Asked anew each time: fsspec keeps those of this process, and no others may be used after a fork.
        system, path = fsspec.core.url_to_fs(self.url)
        return system, str(path)

    def _member(self) -> Member | None:
        """Where the file is within a tar file; None where it is in none."""
        tar, inside, name = self.url.partition(TAR)
        if not inside:
            return None
        found = members(f"{tar}.tar").get(name)
        return self._missing() if found is None else found

    def _bytes(self, inside: Member | None) -> bytes:
        system, path = self._system() if inside is None else fsspec.core.url_to_fs(inside.tar)
        with self._named():
            if inside is None:
                return bytes(system.cat_file(path))
            return bytes(system.cat_file(path, start=inside.start, end=inside.start + inside.size))

    def _size(self) -> int:
        inside = self._member()
        if inside is not None:
            return inside.size
        system, path = self._system()
        with self._named():
            size = system.info(path)["size"]
        return len(self._bytes(None)) if size is None else int(size)

    def _missing(self) -> NoReturn:
        msg = f"there is no {self.url}"
        raise FileNotFoundError(msg)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Lets every failure be one of a file, as those of the protocols are of many kinds."""
        try:
            yield
        except FileNotFoundError:
            self._missing()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            msg = f"{self.url} cannot be read ({reason})"
            raise OSError(msg) from error


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def as_remote(path: object) -> Remote | None:
    """What is behind a URL, where a path is that; None where it is a Path."""
    return path if isinstance(path, Remote) else None


def _fetched(each: Remote) -> bytes | None:
    try:
        return each._bytes(each._member())
    except OSError:
        return None  # told where it is opened, by its name


def _size_or_none(each: Remote) -> int | None:
    try:
        return each._size()
    except FileNotFoundError:
        return None
