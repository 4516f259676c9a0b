"""`export`: the encoder of a checkpoint as a folder that transformers reads."""

from ser_strategies.common.errors import PROGRAM, CommandParser
from ser_strategies.common.quantities import count
from ser_strategies.encoder.exporting import export_encoder

EXAMPLES = f"""examples:
  {PROGRAM} export runs/vesper/1-compress/best.ckpt --to my-encoder
  {PROGRAM} export runs/lora --to my-encoder      best.ckpt of a run, its updates added to the weights"""


def run(command: str, arguments: list[str]) -> None:
    """Writes the folder.

    Args:
        command: export.
        arguments: The words after it.
    """
    parser = CommandParser(
        prog=f"{PROGRAM} {command}",
        description="Write the encoder of a checkpoint, adapters merged, as a folder for transformers' "
        "AutoModel.from_pretrained.",
        epilog=EXAMPLES,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .ckpt, or the folder of a run")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="a new folder")
    asked = parser.parse_args(arguments)
    made = export_encoder(asked.checkpoint, asked.to)
    print(f"{made.identity.family}, {count(made.parameters)} parameters, in {made.folder}")
    if made.note:
        print(f"note: {made.note}")
    print(f"next: {PROGRAM} fit --model lora --model.encoder {made.folder} --data ...")
