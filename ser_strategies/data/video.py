"""The sound of video clips, as FLAC files beside them."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample

from ser_strategies.common.files import UNFINISHED, whole_file
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.audio import ChannelRule, Samples

_AT_ONCE = 4  # clips a process takes at a time: a twentieth of a second, and what an interrupt waits for


@dataclass(frozen=True)
class Extraction:
    """Files written and kept, and clips that gave no sound."""

    written: int
    kept: int  # those that were there already, whole
    failed: dict[str, str]  # the reason, by the path of a clip


def extract_sound(video: Path, target: Path, *, channel: ChannelRule) -> float:
    """Writes one channel of a clip's sound as 16 kHz FLAC, whole or not at all; gives its seconds."""
    channels, rate = _decode(video)
    sound: Samples = resample(torch.from_numpy(channel(channels)), rate, SAMPLE_RATE).numpy()
    flac = BytesIO()  # libsndfile would say nothing of a full disk
    soundfile.write(flac, sound, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with whole_file(target) as file:
        file.write(flac.getbuffer())
    return len(sound) / SAMPLE_RATE


def extract_all(
    videos: Sequence[Path], *, channel: ChannelRule, processes: int, progress: Callable[[int], None] | None
) -> Extraction:
    """Writes the sound of each clip beside it, as x.flac of x.mp4, unless that is there and whole.

    An interrupted run leaves whole files, and the next goes on from there. One run at a time for a folder.
    `channel` must be a function of a module, which other processes can import; one process is this one alone.
    """
    targets = Counter(video.with_suffix(".flac") for video in videos)
    if twice := [str(target) for target, count in targets.items() if count > 1]:
        msg = f"several clips would be written to {', '.join(twice)}: expected one for each file."
        raise ValueError(msg)
    for folder in {target.parent for target in targets}:
        for left in folder.glob(f".*.flac.*{UNFINISHED}"):  # by a run that was killed
            left.unlink(missing_ok=True)
    pending = [video for video, target in zip(videos, targets, strict=True) if not _is_done(target)]
    tell = progress or (lambda count: None)
    tell(len(videos) - len(pending))
    failed = {}
    with _workers(min(processes, len(pending))) as over_all:
        for video, reason in zip(pending, over_all(partial(_extract, channel), pending), strict=True):
            if reason:
                failed[str(video)] = reason
            tell(1)
    return Extraction(len(pending) - len(failed), len(videos) - len(pending), failed)


def _is_done(target: Path) -> bool:
    """Whether a file is there and whole; one that is not is removed."""
    try:
        with soundfile.SoundFile(target) as file:
            file.seek(file.frames - 1)  # a header does not know what is missing
            return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        target.unlink(missing_ok=True)
        return False


def _extract(channel: ChannelRule, video: Path) -> str:
    """The reason why a clip gave no sound; empty where it did."""
    try:
        extract_sound(video, video.with_suffix(".flac"), channel=channel)
    except ValueError as error:
        return str(error).removeprefix(f"{video} ")
    return ""


@contextmanager
def _workers(count: int) -> Iterator[Callable[..., Iterator[str]]]:
    """`map`, here or in several processes, which stop when this is left."""
    if count <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), _enter)
    try:
        with _deaf():
            for _ in range(count):
                pool.submit(int)  # starts a process
        yield partial(pool.map, chunksize=_AT_ONCE)
    finally:
        with _deaf():
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C does nothing meanwhile, nor ever to processes started meanwhile: a pool half there hangs."""
    if current_thread() is not main_thread():  # which alone it interrupts
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _enter() -> None:
    """Prepares a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _decode(video: Path) -> tuple[Samples, int]:
    """The sound of a clip as (channels, samples), and its rate."""
    try:
        import av
    except ImportError as error:
        msg = "reading video needs PyAV: pip install 'ser-strategies[video]'."
        raise ImportError(msg) from error
    parts: list[Any] = []
    try:
        with av.open(str(video), metadata_errors="ignore") as container:
            stream = next(iter(container.streams.audio), None)
            planar = av.AudioResampler(format="fltp")
            for packet in container.demux():
                if packet.is_corrupt:  # where a file is cut short, even if within a picture
                    raise ValueError("it breaks off")
                for frame in stream.decode(packet) if stream and packet.stream.index == stream.index else ():
                    parts += [part.to_ndarray() for part in planar.resample(frame)]
                    if (frame.sample_rate, len(frame.layout.channels)) != (planar.rate, len(parts[0])):
                        raise ValueError("its format changes")
            parts += [part.to_ndarray() for part in planar.resample(None)]
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"{video} cannot be decoded ({reason}): expected a whole clip."
        raise ValueError(msg) from error
    if not parts:
        what = "samples" if stream else "sound stream"
        msg = f"{video} holds no {what}: expected a clip with sound."
        raise ValueError(msg)
    return np.concatenate(parts, axis=1), planar.rate
