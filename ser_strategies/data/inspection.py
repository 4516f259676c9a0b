"""Problems of sound files: missing, cut short, silent, clipped. A bad file is a finding, no error."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.audio import resamples


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of finding.

    Attributes:
        severity: An error spoils training, a warning changes what is learned, a note is worth knowing.
        words: What is wrong, as the rest of a sentence about the file.
        advice: What to do, in one sentence.
    """

    severity: Literal["error", "warning", "note"]
    words: str
    advice: str


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """Facts about one sound file.

    Attributes:
        path: The file; bytes of its name that are not UTF-8 are escaped, so that it can be printed.
        size: Bytes; 0 where there is no file.
        seconds: Duration by the header, like rate and channels; None where that cannot be read.
        rate: Samples per second.
        channels: 1 for mono.
        problems: Keys of `PROBLEMS`, in its order, the gravest first.
        detail: What only this file has to say about its problems, such as the words of libsndfile.
    """

    path: str
    size: int
    seconds: float | None = None
    rate: int | None = None
    channels: int | None = None
    problems: tuple[str, ...] = ()
    detail: str = ""


_AGAIN = "copy or download it again, or take it out."
PROBLEMS: dict[str, Problem] = {
    "missing": Problem("error", "does not exist", "Correct the path, or fetch the rest of the corpus."),
    "empty": Problem("error", "holds no bytes", f"It was never written: {_AGAIN}"),
    "lfs-pointer": Problem("error", "is a Git LFS pointer", "Run `git lfs pull` in the corpus folder."),
    "unreadable": Problem("error", "cannot be read as sound", f"See what it is: {_AGAIN}"),
    "no-samples": Problem("error", "has a header but no sound", f"It was not written to its end: {_AGAIN}"),
    "truncated": Problem("error", "is shorter than its header says", f"Its end is lost: {_AGAIN}"),
    "undecodable": Problem("error", "cannot be decoded to its end", f"It is damaged: {_AGAIN}"),
    "strange-rate": Problem("error", "has a rate that cannot be resampled", "Convert it to 16 kHz first."),
    "not-finite": Problem("error", "holds NaN or infinity", "Write it anew from its source, or take it out."),
    "anti-phase": Problem(
        "warning", "is silent once its channels are averaged", "Take one channel: they cancel each other out."
    ),
    "silent": Problem("warning", "is silent (below -80 dBFS)", "Take it out: its label cannot be heard."),
    "too-short": Problem("warning", "is shorter than 25 ms", "Take it out, or let it be padded to a frame."),
    "very-long": Problem("warning", "is longer than a minute", "Cut it into utterances, or set max_seconds."),
    "clipped": Problem("warning", "is clipped", "Export it again with less gain, if its source exists."),
    "odd-rate": Problem("note", "is not sampled at 16 kHz", "Resample it once, to save that in every epoch."),
    "several-channels": Problem("note", "is not mono", "Do nothing, if the average of its channels will do."),
}

_FRAME = 400  # samples under one frame of every encoder here
_SILENCE = 1e-4  # -80 dBFS
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.001  # of the samples
_MP3_SLACK = 3 * 1152  # encoders and decoders differ in how much padding at the ends they count
_BLOCK = 2**20  # values decoded at a time: 4 MB, whatever rate, channels and length the header claims
# What soundfile raises, beyond its own: a name that is not UTF-8 (ValueError), a .raw file (TypeError).
_FAILURES = (soundfile.SoundFileError, OSError, ValueError, TypeError)


def inspect_audio(path: str | Path, *, decode: bool) -> AudioFacts:
    """Problems of one sound file, from its header or, with `decode`, from all of its samples."""
    file = Path(path)
    facts = AudioFacts(_printable(file), 0)
    found: dict[str, str] = {}
    try:
        facts = replace(facts, size=file.stat().st_size)
        if not file.is_file():  # to open a pipe would be to wait for ever
            msg = "a folder or a device"
            raise ValueError(msg)
        if _promising(file, facts.size, found):
            facts = _listened(file, facts, found, decode=decode)
    except (FileNotFoundError, NotADirectoryError):
        # Clones of git-annex leave such links for files they did not fetch.
        found["missing"] = f"a link to {_printable(file.readlink())}" if file.is_symlink() else ""
    except _FAILURES as error:
        found["unreadable"] = _reason(error)
    problems = tuple(key for key in PROBLEMS if key in found)
    detail = "; ".join(found[key] for key in problems if found[key])
    return replace(facts, problems=problems, detail=detail)


def inspect_all(
    paths: Sequence[Path], *, decode: bool, threads: int, progress: Callable[[int], None] | None = None
) -> list[AudioFacts]:
    """Problems of many files, in their order; `progress` is told in the calling thread how many are done."""
    # A future for each of 270,000 files would cost more than its header; too few would not share the work.
    step = max(1, min(64, len(paths) // (4 * max(threads, 1))))
    parts = [paths[start : start + step] for start in range(0, len(paths), step)]
    facts: list[AudioFacts] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in pool.map(lambda part: [inspect_audio(path, decode=decode) for path in part], parts):
                facts.extend(done)
                if progress:
                    progress(len(done))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # or Ctrl-C would wait for the whole queue
    return facts


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "its name is not UTF-8"
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    # What libsndfile says of an mp3 without frames; here the file is known to exist and to be regular.
    return "no sound in it" if reason.startswith("File does not exist or is not") else reason.rstrip(".")


def _promising(file: Path, size: int, found: dict[str, str]) -> bool:
    """Whether the bytes are worth showing to libsndfile; finds what it would not tell."""
    if size == 0:
        found["empty"] = ""
        return False
    with file.open("rb") as content:
        if content.read(64).startswith(b"version https://git-lfs"):
            found["lfs-pointer"] = ""
            return False
        announced, held = _wav_data(content, size)
    if announced == 0 and held:  # by a writer that could not go back to its header
        found["no-samples"] = f"the header announces 0 bytes of sound, but {held} bytes follow"
    # Writers to a pipe announce the most they can: just below 2 or 4 GiB, or 2 GiB sharp.
    elif announced > held and -announced % 2**31 > 4096:
        found["truncated"] = f"{held} of {announced} bytes"
    return True


def _wav_data(content: BinaryIO, size: int) -> tuple[int, int]:
    """Bytes that the data chunk of a WAV announces, and how many follow; libsndfile hides the difference."""
    content.seek(0)
    start = content.read(12)
    if start[:4] not in {b"RIFF", b"RIFX", b"RF64"} or start[8:] != b"WAVE":
        return 0, 0
    order: Literal["big", "little"] = "big" if start[:4] == b"RIFX" else "little"
    large = 0
    for _ in range(1000):  # bounded, since in a damaged file every eight zeros are one more empty chunk
        if len(head := content.read(8)) < 8:
            break
        name, length = head[:4], int.from_bytes(head[4:], order)
        here = content.tell()
        if name == b"data":
            return large or length, size - here
        if name == b"ds64":  # sizes beyond 32 bits: of the file, then of the data
            large = int.from_bytes(content.read(16)[8:], order)
        content.seek(here + length + length % 2)  # chunks start at even bytes
    return 0, 0


def _listened(file: Path, facts: AudioFacts, found: dict[str, str], *, decode: bool) -> AudioFacts:
    """The facts with what libsndfile knows of the file, opened the way `read_audio` does."""
    with soundfile.SoundFile(file) as sound:
        if (
            sound.frames == 2**63 - 1
        ):  # where a flac was written to a pipe; soundfile.read makes an array of it
            msg = "the header does not say how long the sound is"
            raise ValueError(msg)
        if not sound.seekable():
            msg = f"its coding, {sound.subtype}, can only be read from the start: convert it to PCM"
            raise ValueError(msg)
        seconds = sound.frames / sound.samplerate
        facts = replace(facts, seconds=seconds, rate=sound.samplerate, channels=sound.channels)
        if sound.frames:
            found.pop("no-samples", None)  # libsndfile sees through some of the headers that announce 0 bytes
        else:
            found.setdefault("no-samples", "")
        if 0 < -(-sound.frames * SAMPLE_RATE // sound.samplerate) < _FRAME:  # rounded up, as resampling does
            found["too-short"] = ""
        elif seconds > 60:
            found["very-long"] = ""
        if not resamples(sound.samplerate):
            found["strange-rate"] = f"{sound.samplerate} Hz"
        elif sound.samplerate != SAMPLE_RATE:
            found["odd-rate"] = ""
        if sound.channels > 1:
            found["several-channels"] = f"{sound.channels} channels"
        if decode and sound.frames:
            _decode(sound, found)
    return facts


def _decode(sound: Any, found: dict[str, str]) -> None:
    """Listens to the file block by block, so that hours of sound do not fill the memory."""
    heard, peak, stuck, averaged = 0, 0.0, 0, 0.0
    edge = np.zeros((4, sound.channels), bool)
    try:
        while len(block := sound.read(max(_BLOCK // sound.channels, 1), dtype="float32", always_2d=True)):
            level = np.abs(block)
            peak = float(np.maximum(peak, level.max()))  # stays NaN once it is
            with np.errstate(invalid="ignore"):  # NaN and infinity are told below
                averaged = float(np.maximum(averaged, np.abs(block.mean(axis=1)).max()))
            loud = np.concatenate([edge, level >= _FULL_SCALE])
            stuck += _in_runs(loud)
            heard, edge = heard + len(block), loud[-4:]
    except _FAILURES as error:
        found["undecodable"] = f"{_reason(error)}, after {heard} of {sound.frames} samples"
        return
    stuck += _in_runs(np.concatenate([edge, np.zeros_like(edge[:2])]))
    if heard == 0 or sound.frames - heard > (_MP3_SLACK if sound.format == "MP3" else 0):
        found["undecodable"] = f"{heard} of {sound.frames} samples"
    elif not math.isfinite(peak):
        found["not-finite"] = ""
    elif peak < _SILENCE:
        found["silent"] = ""
    elif averaged < _SILENCE:
        found["anti-phase"] = ""
    elif stuck > _CLIPPED_SHARE * heard * sound.channels:
        found["clipped"] = f"{stuck / heard / sound.channels:.1%} at full scale"


def _in_runs(loud: NDArray[np.bool_]) -> int:
    """Marked samples in runs of at least three; the two at each end are context and not counted."""
    threes = loud[:-2] & loud[1:-1] & loud[2:]
    return int((threes[:-2] | threes[1:-1] | threes[2:]).sum())
