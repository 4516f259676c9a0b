"""`examples`: the configurations of the documentation, in a folder of the user's."""

import shutil
from pathlib import Path

from ser_strategies.common.errors import PROGRAM, CommandParser
from ser_strategies.common.files import whole_folder

PACKAGE = Path(__file__).parents[1]
# In an installed package beside the code, in a checkout beside the package.
PLACES = (PACKAGE / "examples", PACKAGE.parent / "examples")


def run(command: str, arguments: list[str]) -> None:
    """Copies them to where nothing is yet.

    Args:
        command: examples.
        arguments: The words after it.
    """
    parser = CommandParser(prog=f"{PROGRAM} {command}", description="Copy the examples of the documentation.")
    parser.add_argument("folder", nargs="?", default="examples", help="a new folder (default: %(default)s)")
    folder = Path(parser.parse_args(arguments).folder).expanduser()
    if folder.exists():
        msg = f"{folder} is there already: name a folder that is not, such as {folder}-2."
        raise FileExistsError(msg)
    source = next(place for place in PLACES if place.is_dir())
    with whole_folder(folder) as unfinished:
        shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    print(f"examples in {folder}; next: {PROGRAM} fit --config {folder / 'demo' / 'lora.yaml'}")
