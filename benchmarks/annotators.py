"""What single raters cost: DiffKDE beside a training step, and the ratings of a large corpus in memory.

    python -m benchmarks.annotators [--device cpu|cuda] [--encoder random:wav2vec2-base] [--clips 4]
    python -m benchmarks.annotators --ratings
    python -m benchmarks.annotators --targets

DiffKDE, forward and backward, for 64 utterances of 30 raters, against a training step on as many utterances
of 3 s: that of PartialFineTuning with all blocks. On a CPU the step is taken on a part of them (`--clips`)
and scaled up, which flatters the step, if anything: small batches waste less of a CPU's cache. The sides
take turns, and the ratio is of the medians.

With `--ratings`, a file of 1.5 million ratings by 13,000 raters as MSP-Podcast has it is read, sorted and
handed out in batches: seconds, and what the process holds more than before. Then a model of as many raters
takes training steps of 32 utterances of six raters, head and objective alone, and scores them, all voting.

With `--targets`, a training step of the objective alone, for 60 utterances of five raters: where the
distributions of their ratings are estimated, as in the first epoch, and where they are looked up.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ser_strategies import DiffKDE, PartialFineTuning
from ser_strategies.batch import Batch
from ser_strategies.costs.machine import resident_peak
from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.ratings import take_ratings
from ser_strategies.parts.annotator_objective import Annotators
from ser_strategies.parts.rated_cells import RatedCells

UTTERANCES, RATERS, SAMPLES = 64, 30, 48_000
# Of a corpus of the size of MSP-Podcast 2.0.
SEGMENTS, PEOPLE, RATINGS = 268_000, 13_000, 1_500_000


def main() -> None:
    """Prints milliseconds of both sides, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--clips", type=int, default=4, help="utterances of the step that is timed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ratings", action="store_true", help="the ratings of a large corpus instead")
    parser.add_argument("--targets", action="store_true", help="what looking targets up is worth instead")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.targets:
        _targets(options.repeats, options.device)
        return
    if options.ratings:
        _ratings()
        return
    print(
        f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads, {options.encoder}"
    )
    step = _step(options.encoder, options.clips, options.device)
    kde = _density(options.device)
    times = [
        (_seconds(kde, options.device), _seconds(step, options.device)) for _ in range(options.repeats + 1)
    ]
    mine, other = (1000 * statistics.median(column[1:]) for column in zip(*times, strict=True))
    other *= UTTERANCES / options.clips
    print(f"DiffKDE, {UTTERANCES} x {RATERS} raters: {mine:.1f} ms; a step: {other:.1f} ms")
    print(f"ratio {mine / other:.4f} (wanted: below 0.05)")


def _step(encoder: str, clips: int, device: str) -> Callable[[], object]:
    model = PartialFineTuning(encoder, num_classes=4, top_blocks=12).train().to(device)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    batch = Batch(
        0.1 * torch.randn(clips, SAMPLES, device=device),
        torch.full((clips,), SAMPLES, device=device),
        tuple(map(str, range(clips))),
        labels=torch.arange(clips, device=device) % 4,
    )

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(model.loss_of(batch))
        optimizer.step()

    return step


def _density(device: str) -> Callable[[], object]:
    kde = DiffKDE()
    kde.to(device)
    ratings = (0.3 * torch.randn(UTTERANCES, RATERS, 2, device=device)).requires_grad_()

    def estimate() -> None:
        torch.autograd.backward(kde(ratings).square().sum())

    return estimate


def _targets(repeats: int, device: str) -> None:
    names = tuple(f"r{number:02d}" for number in range(12))
    raters = torch.randint(0, len(names), (60, 5), device=device)
    ratings = torch.randint(0, 5, (60, 5, 2), device=device) / 2 - 1
    nothing = torch.zeros(60, 0, device=device)
    batch = Batch(nothing, nothing, tuple(map(str, range(60))), raters=raters, ratings=ratings)
    outputs = torch.randn(60, 64, device=device, requires_grad=True)
    for kind, weight in {"raters, DiffKDE": 0.0, "raters with spread": 1.0}.items():
        model = Annotators(("activation", "valence"), names, width=64, variance_weight=weight).to(device)

        def step(model: Annotators = model) -> None:
            torch.autograd.backward(model.loss(outputs, batch))

        def first(model: Annotators = model) -> None:
            model.remembered = RatedCells(model.exact)
            step(model)

        times = [(_seconds(first, device), _seconds(step, device)) for _ in range(repeats + 1)]
        ours = [1000 * statistics.median(column[1:]) for column in zip(*times, strict=True)]
        print(f"{kind}: {ours[0]:.0f} ms where targets are estimated, {ours[1]:.0f} ms looked up")


def _write(path: Path) -> None:
    chance = np.random.default_rng(0)
    who = np.minimum(PEOPLE * chance.random(RATINGS) ** 3, PEOPLE - 1).astype(int)
    what = np.sort(chance.integers(0, SEGMENTS, RATINGS))
    said = pd.DataFrame(chance.integers(1, 8, (RATINGS, 3)), columns=["EmoAct", "EmoVal", "EmoDom"])
    said.insert(0, "FileName", [f"MSP-PODCAST_{each // 100:04d}_{each % 100:04d}.wav" for each in what])
    said.insert(1, "WorkerID", [f"WORKER{each:08d}" for each in who])
    said.insert(2, "EmoClass_Major", "Neutral")
    path.parent.mkdir()
    said.to_csv(path, index=False)


def _ratings() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # By another process, whose memory does not count.
        writer = multiprocessing.get_context("spawn").Process(
            target=_write, args=(Path(folder) / "Labels" / "labels_detailed.csv",)
        )
        writer.start()
        writer.join()
        corpus = MSPPodcast(folder, dimensions=("activation", "valence"), single_ratings=True)
        ids = [f"MSP-PODCAST_{each // 100:04d}_{each % 100:04d}" for each in range(SEGMENTS)]
        table = pd.DataFrame({"id": pd.array(ids, "string[pyarrow]"), "split": "train", "activation": 0.0})
        began, before = time.perf_counter(), resident_peak() or 0
        table, rated, _ = take_ratings(corpus, table)
        seconds, held = time.perf_counter() - began, (resident_peak() or 0) - before
    kept = sum(each.nbytes for each in (rated.starts, rated.who, rated.values))
    print(
        f"{rated.facts['ratings']:,} ratings by {rated.facts['raters']:,} raters, {len(table):,} utterances"
    )
    print(
        f"read and sorted: {seconds:.1f} s, {held / 2**20:.0f} MiB more at most; kept {kept / 2**20:.0f} MiB"
    )
    batch = Batch(torch.zeros(32, 0), torch.zeros(32), tuple(table["id"][:32]))
    rows = table.iloc[np.random.default_rng(1).integers(0, len(table), 32)]
    times = [_seconds(lambda: rated.added_to(batch, rows), "cpu") for _ in range(200)]
    print(f"a batch of 32: {1e6 * statistics.median(times):.0f} microseconds")
    model = multiprocessing.get_context("spawn").Process(target=_model_of_all)
    model.start()
    model.join()


def _model_of_all() -> None:
    before = resident_peak() or 0
    model = Annotators(("activation", "valence"), tuple(f"r{number:05d}" for number in range(PEOPLE)))
    optimizer = torch.optim.AdamW(model.parameters())
    raters, ratings = torch.randint(0, PEOPLE, (32, 6)), torch.randint(0, 7, (32, 6, 2)) / 3 - 1
    nothing = torch.zeros(32, 0)
    batch = Batch(nothing, nothing, tuple(map(str, range(32))), raters=raters, ratings=ratings)
    outputs = torch.randn(32, model.size)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(model.loss(outputs, batch))
        optimizer.step()

    scores = model.scores()
    trained, scored = (
        statistics.median([_processor_seconds(call) for _ in range(4)][1:])
        for call in (step, lambda: scores.update(outputs, batch))
    )
    held = sum(each.nbytes for each in model.parameters()) / 2**20
    more = ((resident_peak() or 0) - before) / 2**20
    print(f"a model of {PEOPLE:,} raters: {held:.0f} MiB, {more:.0f} MiB more at most with its optimizer")
    print(f"32 utterances: a step {1000 * trained:.0f} ms, scores {1000 * scored:.0f} ms, of a processor")


def _processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
