"""Data sets in the formats of Hugging Face: parquet or Arrow with sounds inside, or metadata beside them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, final

import pyarrow as pa

from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.corpus_options import expanded
from ser_strategies.data.listing import sounds_below
from ser_strategies.data.manifest.assigning import WORDS
from ser_strategies.data.manifest.bridges import home_of
from ser_strategies.data.manifest.described import DescribedCorpus, DescribedOptions
from ser_strategies.data.manifest.file import Raw, of_arrow, of_rows, read_file
from ser_strategies.data.manifest.hub import fetched
from ser_strategies.data.manifest.shards import Shard, check_complete, unpacked
from ser_strategies.data.manifest.sheet import ALIASES, SECOND_NAMES, Sheet, as_sheet, canonical

SPLITS, STATE = "dataset_dict.json", "state.json"
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# Names that the file of a sound may have in a row.
FILES = ("file_name", "audio_file_name")
# Folders that are no configuration.
PLAIN = ("", "data", "default")


@final
class HuggingFace(DescribedCorpus):
    """A data set of Hugging Face: parquet files or what save_to_disk wrote, sounds inside, or an audiofolder.

    Sounds inside are written, once, to files of their own in the cache of this package. No code of a data set
    is run. The split of a file is told by its name or its folder.

    Args:
        path: The folder, or the name of a data set on the hub, as in owner/name, which is fetched whole.
        name: The configuration, where there are several.
        revision: The branch, tag or commit of a data set on the hub, such as refs/convert/parquet.
        columns: What the data set calls a column, as in {label: mood}; names that a manifest knows, such as
            emotion, need not be given.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        revision: str | None = None,
        columns: dict[str, str] | None = None,
        **options: Unpack[DescribedOptions],
    ) -> None:
        self._columns = dict(columns or {})
        folder = expanded("path", path)
        if not folder.is_dir():
            folder = fetched(path, revision)
        self._found: tuple[Raw, Path] | None = _contents(folder, name, self._columns)
        self._source = (folder, name)
        super().__init__(
            expanded("path", path),
            self._found[1],
            **options,
        )

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each row of the data set."""
        raw, _ = self._found or _contents(*self._source, self._columns)
        self._found = None
        return as_sheet(self.path, raw, columns=self._columns, dimensions=dimensions)


def _contents(folder: Path, name: str | None, columns: Mapping[str, str]) -> tuple[Raw, Path]:
    """The rows of a data set, and the folder that the paths of their sounds are relative to."""
    shards = _shards(folder, name)
    if shards:
        check_complete(shards)
        return _of_shards(folder, shards, columns)
    metadata = sorted(each for name in METADATA for each in folder.rglob(name))
    if metadata:
        return _of_metadata(folder, metadata, columns), folder
    sounds = next(sounds_below(folder), None)
    msg = (
        f"{folder} has neither parquet files, nor what save_to_disk writes, nor a metadata.csv or .jsonl: "
        f"expected one of them."
    )
    if sounds is not None:
        msg = f"{msg[:-1]}; a folder of sounds alone is read by --data Folder --data.root {folder}."
    raise FileNotFoundError(msg)


def _shards(folder: Path, name: str | None) -> list[Shard]:
    """The files with rows in them, each with its split."""
    if (folder / SPLITS).is_file():
        splits = _json(folder / SPLITS).get("splits", [])
        return [shard for split in splits for shard in _saved(folder / split, split)]
    if (folder / STATE).is_file():
        return _saved(folder, "")
    files = sorted(each for each in folder.rglob("*.parquet") if each.name not in METADATA)
    of = {each: _configuration(each.relative_to(folder)) for each in files}
    known = sorted(set(of.values()))
    if name is not None and name not in known:
        there = f"has {listed(known, 'and')}" if len(known) > 1 else "has no configurations"
        msg = f"--data.name is {name!r}, but {folder} {there}{did_you_mean(name, known)}"
        raise ValueError(f"{msg.rstrip('.?')}.")
    if name is None and len(known) > 1:
        msg = f"{folder} has the configurations {listed(known, 'and')}: choose one by --data.name."
        raise ValueError(msg)
    return [Shard(each, _split(each.relative_to(folder))) for each in files if name in {None, of[each]}]


def _saved(folder: Path, split: str) -> list[Shard]:
    files = _json(folder / STATE).get("_data_files", [])
    return [Shard(folder / each["filename"], split) for each in files]


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as JSON: write the data set again."
        raise ValueError(msg) from error
    return found


def _words(path: Path) -> list[str]:
    """The words in the name of a file, and in those of its folders, nearest first."""
    return [word for part in reversed(path.parts) for word in re.split(r"[^A-Za-z]+", part.lower()) if word]


def _split(path: Path) -> str:
    return next((WORDS[word] for word in _words(path) if word in WORDS), "")


def _configuration(path: Path) -> str:
    """The folder that is neither of all configurations nor of a split."""
    first = path.parts[0] if len(path.parts) > 1 else ""
    return "" if first.lower() in {*PLAIN, *WORDS} else first


def _of_shards(folder: Path, shards: Sequence[Shard], columns: Mapping[str, str]) -> tuple[Raw, Path]:
    schema = shards[0].schema()
    said = _features(schema)
    sound = _sound_column(shards[0].path, schema, said, columns.get("path"))
    kept = [each.name for each in schema if not pa.types.is_nested(each.type) and _plain(each.name, columns)]
    tables = [_named(shard.read(kept), said) for shard in shards]
    splits = [shard.split for shard in shards]
    table = pa.concat_tables(tables, promote_options="permissive")
    if len(set(splits)) > 1 and "split" not in kept:
        told = [split for split, each in zip(splits, tables, strict=True) for _ in range(len(each))]
        table = table.append_column("split", pa.array(told, pa.string()))
    inside = unpacked(shards, sound)
    if inside is not None:
        root, paths = inside
    else:
        found = [each for shard in shards for part in shard.batches(sound) for each in part]
        paths = [each and each.get("path") for each in found]
        absolute = home_of(path for path in paths if path)
        root = folder if absolute == Path.cwd() else absolute
    name = columns.get("path", "path")
    return of_arrow(folder, table.append_column(name, pa.array(paths, pa.string()))), root


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` wrote of each column; nothing where something else wrote the file."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _sound_column(path: Path, schema: pa.Schema, said: Mapping[str, Any], chosen: str | None) -> str:
    """The column with the sounds."""
    fields = [each.name for each in schema if pa.types.is_struct(each.type)]
    found = [name for name in fields if (said.get(name) or {}).get("_type") == "Audio"] or [
        name for name in fields if schema.field(name).type.get_field_index("bytes") >= 0
    ]
    if chosen is not None:
        found = [name for name in found if name == chosen]
    if len(found) != 1:
        there = listed(found, "and") if found else f"none, only {listed(schema.names, 'and')}"
        msg = f"{path} should have one column of sounds, but has {there}: name it, as in --data.columns "
        raise ValueError(f"{msg}'{{path: audio}}'.")
    return str(found[0])


def _plain(name: str, columns: Mapping[str, str]) -> bool:
    """Whether a column means something else than the file of the sound, which comes from the sounds."""
    meant = canonical(name)
    return name != columns.get("path") and "path" not in {meant, SECOND_NAMES.get(meant), ALIASES.get(meant)}


def _named(table: pa.Table, said: Mapping[str, Any]) -> pa.Table:
    """A table with the names of classes in place of their numbers, as far as they are known."""
    for place, name in enumerate(table.column_names):
        names = (said.get(name) or {}).get("names")
        if isinstance(names, list) and pa.types.is_integer(table.column(place).type):
            numbers = table.column(place).to_pylist()
            words = [names[each] if each is not None and 0 <= each < len(names) else None for each in numbers]
            table = table.set_column(place, name, pa.array(words, pa.string()))
    return table.replace_schema_metadata(None)


def _of_metadata(folder: Path, files: Iterable[Path], columns: Mapping[str, str]) -> Raw:
    """The rows of the metadata of all folders."""
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    splits = {each: _split(each.parent.relative_to(folder)) for each in files}
    for file in splits:
        raw = read_file(file, known={*FILES, *columns.values()}, encoding=None)
        named = next((name for name in (columns.get("path"), *FILES) if name in raw.header), None)
        if named is None:
            msg = f"{file} has no column file_name, which names the sound: got {listed(raw.header, 'and')}."
            raise ValueError(msg)
        cells = {name: raw.words(index) for index, name in enumerate(raw.header)}
        below = file.parent.relative_to(folder)
        for row, place in enumerate(raw.places):
            told = {name: values.iloc[row] for name, values in cells.items()}
            entry: dict[str, Any] = {name: value for name, value in told.items() if isinstance(value, str)}
            if named in entry:
                entry[columns.get("path", "path")] = (below / entry.pop(named)).as_posix()
            if len(set(splits.values())) > 1:
                entry.setdefault("split", splits[file])
            rows.append(entry)
            places.append(place)
    return of_rows(folder, rows, places)
