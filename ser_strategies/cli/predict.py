"""`predict`: what a checkpoint says of plain files and folders, or of a corpus."""

import argparse

from ser_strategies.common.class_paths import is_safe
from ser_strategies.common.compatibility import check_torch
from ser_strategies.common.errors import PROGRAM, CommandParser, MistypedError

CONFIGURED = (
    "--config",
    "-c",
    "--model",
    "--data",
    "--print_config",
    "--model.help",
    "--data.help",
    "--help-trainer",
)


def run(command: str, arguments: list[str]) -> None:
    """Predicts files if files are given, else the test split of the corpus that the options describe."""
    if any(word.split("=")[0] in CONFIGURED for word in arguments):
        check_torch()
        from ser_strategies.fit.lightning_cli import run as run_on_corpus

        run_on_corpus(command, arguments)
        return
    options = _parser().parse_args(arguments)
    if options.trust and is_safe():
        msg = f"--safe refuses --trust {options.trust[0]}: leave one of them out."
        raise MistypedError(msg)
    check_torch()
    from ser_strategies.fit.predicting import predict

    table = predict(
        options.ckpt_path,
        options.paths,
        options.output,
        window=options.window,
        batch_size=options.batch_size,
        accelerator=options.accelerator,
        encoder=options.encoder,
        trust=tuple(options.trust),
        progress=True,
        rater_columns=options.rater_columns,
    )
    lost = int(table["error"].notna().sum()) if "error" in table else 0
    why = f"; {lost} of {len(table)} files could not be read: see its column error" if lost else ""
    print(f"{len(table) - lost} predictions in {options.output}{why}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=f"{PROGRAM} predict",
        description="Write what a checkpoint says of sound files. With --config, or --model and --data, "
        "it predicts the test split of a corpus instead.",
    )
    parser.add_argument(
        "paths", nargs="+", help="sound files (wav, flac, ogg, mp3, aiff and others), and folders to search"
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="a checkpoint, such as runs/lora/best.ckpt, or an ensemble"
    )
    parser.add_argument("--output", default="predictions.csv", help="the table to write, .csv or .parquet")
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="one row for each so many seconds of a recording, with start and end (default: one a file)",
    )
    parser.add_argument(
        "--rater_columns",
        action="store_true",
        help="what each rater would say, too, of a model of single raters",
    )
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
