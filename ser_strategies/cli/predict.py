"""`predict`: what a checkpoint says of plain files and folders, or of a corpus."""

import argparse

from ser_strategies.common.compatibility import check_torch
from ser_strategies.common.errors import PROGRAM
from ser_strategies.common.parser import KindParser

CONFIGURED = ("--config", "-c", "--model", "--data", "--print_config", "--model.help", "--data.help")


def run(command: str, arguments: list[str]) -> None:
    """Predicts files if files are given, else the test split of the corpus that the options describe.

    Args:
        command: predict.
        arguments: The words after it.
    """
    if any(word.split("=")[0] in CONFIGURED for word in arguments):
        check_torch()
        from ser_strategies.fit.lightning_cli import run as run_on_corpus

        run_on_corpus(command, arguments)
        return
    options = _parser().parse_args(arguments)
    predict_files(
        options.ckpt_path,
        options.paths,
        output=options.output,
        batch_size=options.batch_size,
        accelerator=options.accelerator,
        encoder=options.encoder,
        trust=tuple(options.trust),
    )


def predict_files(
    checkpoint: str,
    paths: list[str],
    *,
    output: str,
    batch_size: int = 8,
    accelerator: str = "auto",
    encoder: str | None = None,
    trust: tuple[str, ...] = (),
) -> None:
    """Writes one row per sound file.

    Args:
        checkpoint: A .ckpt file of a strategy that predicts emotion.
        paths: Files, and folders to search.
        output: The table to write, .csv or .parquet.
        batch_size: Files in a batch.
        accelerator: cpu, gpu or auto.
        encoder: Where the encoder is, if it has moved since training.
        trust: Packages whose code the checkpoint may import.
    """
    check_torch()
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import RichProgressBar

    from ser_strategies.data.files import AudioFiles
    from ser_strategies.fit.lightning_cli import quiet
    from ser_strategies.fit.record import PredictionTable
    from ser_strategies.strategies import Recognizer, load_strategy

    quiet()
    table = PredictionTable(output)
    files = AudioFiles(paths, batch_size=batch_size)
    strategy = load_strategy(checkpoint, trust=trust, **({"encoder": encoder} if encoder else {}))
    if not isinstance(strategy, Recognizer):
        msg = (
            f"{checkpoint} is from {type(strategy).__name__}, which predicts no emotion: fine-tune it first."
        )
        raise ValueError(msg)
    trainer = Trainer(
        accelerator=accelerator,
        precision=strategy.required_precision,  # type: ignore[arg-type]  # one of the Literal's words
        devices=1,
        logger=False,
        callbacks=[table, RichProgressBar()],
        enable_checkpointing=False,
    )
    trainer.predict(strategy, files, return_predictions=False)
    lost = len(files.unreadable)
    why = f"; {lost} of {len(files.paths)} files could not be read: see its column error" if lost else ""
    print(f"{len(files.paths) - lost} predictions in {output}{why}")


def _parser() -> argparse.ArgumentParser:
    parser = KindParser(
        prog=f"{PROGRAM} predict",
        description="Write what a checkpoint says of sound files. With --config, or --model and --data, "
        "it predicts the test split of a corpus instead.",
    )
    parser.add_argument("paths", nargs="+", help="wav, flac, ogg or mp3 files, and folders to search")
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint, such as runs/lora/best.ckpt")
    parser.add_argument("--output", default="predictions.csv", help="the table to write, .csv or .parquet")
    parser.add_argument("--batch_size", type=int, default=8, help="files in a batch")
    parser.add_argument("--encoder", help="where the encoder is, if it has moved since training")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of your own that the checkpoint needs, and whose code may run; once for each",
    )
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu or auto")
    return parser
