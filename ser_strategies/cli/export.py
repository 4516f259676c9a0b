"""`export`: the encoder of a checkpoint as a folder for transformers, or its recogniser as an ONNX graph."""

from ser_strategies.common.errors import PROGRAM, CommandParser
from ser_strategies.common.quantities import count
from ser_strategies.encoder.exporting import export_encoder
from ser_strategies.fit.graph import SUFFIX, export_onnx

EXAMPLES = f"""examples:
  {PROGRAM} export runs/vesper/1-compress/best.ckpt --to my-encoder
  {PROGRAM} export runs/lora --to my-encoder      best.ckpt of a run, its updates added to the weights
  {PROGRAM} export runs/lora --to lora.onnx       all of the model: sound in, probabilities out"""


def run(command: str, arguments: list[str]) -> None:
    """Writes the folder, or the graph.

    Args:
        command: export.
        arguments: The words after it.
    """
    parser = CommandParser(
        prog=f"{PROGRAM} {command}",
        description="Write the encoder of a checkpoint, adapters merged, as a folder for transformers' "
        "AutoModel.from_pretrained; or all of a recogniser as an ONNX graph, which takes the package's extra "
        "onnx.",
        epilog=EXAMPLES,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .ckpt, or the folder of a run")
    parser.add_argument(
        "--to", required=True, metavar="PATH", help="a new folder, or a new file that ends in .onnx"
    )
    asked = parser.parse_args(arguments)
    if asked.to.endswith(SUFFIX):
        graph = export_onnx(asked.checkpoint, asked.to)
        said = ", ".join([*graph.labels, *graph.dimensions])
        print(f"{said} of sound at 16 kHz, in {graph.file}")
        print(f"its answers are the model's to {graph.difference:.1g}, as tried on clips of several lengths")
        return
    made = export_encoder(asked.checkpoint, asked.to)
    print(f"{made.identity.family}, {count(made.parameters)} parameters, in {made.folder}")
    if made.note:
        print(f"note: {made.note}")
    print(f"next: {PROGRAM} fit --model lora --model.encoder {made.folder} --data ...")
