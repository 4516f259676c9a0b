"""Who may import whom, read from the source: the rooms of the house keep their doors shut."""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import ser_strategies
from ser_strategies.strategies import STRATEGIES, Strategy

PACKAGE = "ser_strategies"
ROOT = Path(ser_strategies.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# What each room stands on, besides itself and `common`, which stands on nothing.
MAY_IMPORT = {
    "common": set(),
    "fast": set(),
    "encoder": {"batch", "fast"},
    "parts": {"batch"},
    "cache": {"encoder"},
    "data": {"batch"},
    "units": {"encoder", "cache"},
    "strategies": {"encoder", "parts", "cache", "units", "fast", "batch"},
    "costs": {"strategies", "parts", "encoder", "batch"},
    "comparison": set(),
    "ensembles": {"comparison", "encoder"},
    "fit": {"strategies", "data", "cache", "costs", "encoder", "batch", "ensembles", "comparison"},
    "estimates": {"fit", "strategies", "data", "cache", "costs", "encoder"},
    # A process that a run starts is the program itself.
    "runs": {"__main__", "fit", "strategies", "data", "cache", "costs", "encoder", "comparison", "ensembles"},
}


def name_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in FILES}


@cache
def imports_of(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, also within functions and for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            # `from package import module` imports the module.
            found |= {
                module if (module := f"{node.module}.{alias.name}") in NAMES else str(node.module)
                for alias in node.names
            }
    return found


def outside(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports_of(path)}


def rooms(path: Path) -> set[str]:
    """First part, within the package, of each of its own modules that a file imports."""
    own = (module.split(".") for module in imports_of(path) if module.split(".")[0] == PACKAGE)
    return {parts[1] if len(parts) > 1 else "" for parts in own}


def inside(room: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == room]


def breaches(files: Iterable[Path], allowed: Callable[[Path], bool]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in files if not allowed(path)]


def test_no_import_leads_back_not_even_a_late_one():
    TopologicalSorter({name_of(path): imports_of(path) & NAMES for path in FILES}).prepare()


def test_only_the_encoder_knows_transformers_and_peft():
    others = [path for path in FILES if path not in inside("encoder")]
    assert breaches(others, lambda path: not outside(path) & {"transformers", "peft"}) == []
    others.remove(ROOT / "common" / "hub.py")  # which says why it gave nothing
    others.remove(ROOT / "data" / "manifest" / "hub.py")  # which fetches data sets
    assert breaches(others, lambda path: "huggingface_hub" not in outside(path)) == []


def test_few_places_know_lightning():
    places = ("data/corpus.py", "costs/meter.py", "cache/training.py", "units/source.py")
    known = [ROOT / place for place in places]
    rooms_of_lightning = [
        path for room in ("cli", "fit", "runs", "estimates", "strategies") for path in inside(room)
    ]
    others = [path for path in FILES if path not in [*rooms_of_lightning, *known]]
    lightning = {"lightning", "pytorch_lightning", "lightning_fabric"}
    assert breaches(others, lambda path: not outside(path) & lightning) == []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_what_they_stand_on(room):
    known = {room, "common", *MAY_IMPORT[room]}
    assert breaches(inside(room), lambda path: rooms(path) <= known) == []


def test_only_the_room_itself_imports_a_strategy_so_that_none_stands_on_another():
    pages = {kind.__module__ for kind in STRATEGIES}
    assert len(pages) == len(STRATEGIES), "one strategy a page"
    others = [path for path in FILES if path != ROOT / "strategies" / "__init__.py"]
    assert breaches(others, lambda path: not imports_of(path) & pages) == []


def test_every_strategy_that_has_a_page_is_listed():
    found = {
        value
        for path in inside("strategies")
        for value in vars(import_module(name_of(path))).values()
        if isinstance(value, type) and issubclass(value, Strategy) and getattr(value, "__final__", False)
    }
    assert found == set(STRATEGIES)


def test_nothing_but_the_front_door_knows_the_front_door():
    others = [path for path in FILES if path not in inside("cli") and path.name != "__main__.py"]
    assert breaches(others, lambda path: "cli" not in rooms(path)) == []


def test_the_public_names_are_those_of_the_lazy_table():
    assert sorted(ser_strategies.__all__) == sorted([*ser_strategies._HOMES, "__version__"])
    assert dir(ser_strategies) == sorted(ser_strategies.__all__)


def test_type_checkers_see_the_names_that_python_finds():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"{PACKAGE}.{home}" for name, home in ser_strategies._HOMES.items()}


def test_a_public_name_is_the_object_of_its_home():
    for name, home in ser_strategies._HOMES.items():
        assert getattr(ser_strategies, name) is getattr(import_module(f"{PACKAGE}.{home}"), name)


def test_runs_import_nothing_that_only_one_system_has():
    own = [
        *inside("runs"),
        *inside("common"),
        ROOT / "cache/store.py",
        ROOT / "cli/run.py",
        ROOT / "cli/compare.py",
    ]
    posix = {"fcntl", "resource", "termios", "pwd", "grp", "msvcrt"}
    assert breaches(own, lambda path: not outside(path) & posix) == []


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="VanilaFineTuning"):
        _ = ser_strategies.VanilaFineTuning


def test_no_page_and_no_function_is_longer_than_can_be_read_at_a_glance():
    long = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 350:
            long.append(f"{name_of(path)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:  # help has the length that it needs
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > 60:
                long.append(f"{name_of(path)}.{node.name}: {lines} lines")
    assert long == []
