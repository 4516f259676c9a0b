"""Who may import whom, read from the source: the rooms of the house keep their doors shut."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import ser_strategies

PACKAGE = "ser_strategies"
ROOT = Path(ser_strategies.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STRATEGY_PAGES = (
    "vanilla.py",
    "partial.py",
    "lora.py",
    "mixed_precision.py",
    "cached.py",
    "tapt.py",
    "ptapt.py",
)
# What pages of strategies may import of their room, and what these stand on.
STRATEGY_BASES = ("base", "recognizer", "pretraining", "options", "caching", "units")
BELOW_BASES = ("guards", "heap", "preparation", "provenance", "unitreport")


def name_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in FILES}


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


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_only_the_encoder_knows_transformers_and_peft(path):
    if path not in inside("encoder"):
        assert not outside(path) & {"transformers", "peft", "huggingface_hub"}


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_only_the_front_door_strategies_the_base_of_corpora_and_the_meter_know_lightning(path):
    known = [ROOT / "data" / "base.py", ROOT / "comparison" / "costs.py"]
    if path not in [*inside("cli"), *inside("strategies"), *known]:
        assert not outside(path) & {"lightning", "pytorch_lightning", "lightning_fabric"}


@pytest.mark.parametrize("path", inside("strategies"), ids=shown)
def test_strategies_know_the_encoder_the_parts_and_the_batch(path):
    assert rooms(path) <= {"strategies", "encoder", "parts", "cache", "batch"}


@pytest.mark.parametrize("path", inside("data"), ids=shown)
def test_data_know_the_batch_and_themselves(path):
    assert rooms(path) <= {"data", "batch"}


@pytest.mark.parametrize("path", inside("parts"), ids=shown)
def test_parts_know_the_batch_and_themselves(path):
    assert rooms(path) <= {"parts", "batch"}


@pytest.mark.parametrize("path", inside("encoder"), ids=shown)
def test_the_encoder_knows_itself(path):
    assert rooms(path) <= {"encoder", "batch"}


@pytest.mark.parametrize("path", inside("cache"), ids=shown)
def test_the_cache_knows_the_encoder_and_itself(path):
    assert rooms(path) <= {"cache", "encoder"}


@pytest.mark.parametrize("path", inside("comparison"), ids=shown)
def test_comparisons_know_all_but_the_front_door(path):
    known = {"comparison", "strategies", "parts", "data", "cache", "encoder", "batch"}
    assert rooms(path) <= known


@pytest.mark.parametrize("page", STRATEGY_PAGES)
def test_a_strategy_imports_no_other_strategy(page):
    own = {module for module in imports_of(ROOT / "strategies" / page) if ".strategies" in module}
    assert own <= {f"{PACKAGE}.strategies.{base}" for base in STRATEGY_BASES}


@pytest.mark.parametrize("base", [*STRATEGY_BASES, *BELOW_BASES])
def test_what_strategies_stand_on_imports_no_strategy(base):
    own = {module for module in imports_of(ROOT / "strategies" / f"{base}.py") if ".strategies" in module}
    assert own <= {f"{PACKAGE}.strategies.{name}" for name in (*STRATEGY_BASES, *BELOW_BASES)}


def test_every_strategy_page_is_looked_at():
    bases = {f"{name}.py" for name in ("__init__", *STRATEGY_BASES, *BELOW_BASES)}
    pages = {path.name for path in (ROOT / "strategies").glob("*.py")} - bases
    assert pages >= set(STRATEGY_PAGES)
    for page in pages:
        test_a_strategy_imports_no_other_strategy(page)


@pytest.mark.parametrize("path", [p for p in FILES if p not in inside("cli")], ids=shown)
def test_nothing_but_the_front_door_prints_or_knows_the_front_door(path):
    if path.name != "__main__.py":
        assert "cli" not in rooms(path)


@pytest.mark.parametrize("name", ser_strategies.__all__)
def test_every_public_name_resolves(name):
    assert getattr(ser_strategies, name) is not None


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


@pytest.mark.parametrize("name", sorted(ser_strategies._HOMES))
def test_a_public_name_is_the_object_of_its_home(name):
    home = import_module(f"{PACKAGE}.{ser_strategies._HOMES[name]}")
    assert getattr(ser_strategies, name) is getattr(home, name)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="VanilaFineTuning"):
        _ = ser_strategies.VanilaFineTuning
