"""YAML of a configuration: no key may stand twice, and no reference expand without end."""

from pathlib import Path
from typing import Any

import yaml

# A configuration with every option spelled out has some hundreds.
MOST_NODES = 50_000
# The C parser where there is one: 1,000 configurations take Python's own the better part of a minute.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """The content of a file; YAMLError where a key stands twice, or where references expand without end."""
    return parse_yaml(path.read_text(encoding="utf-8"))


def parse_yaml(text: str) -> Any:
    """The same for a text."""
    loader = LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _size(root, {}, [])
        return loader.construct_document(root)
    except (ValueError, RecursionError) as error:  # a date that is none; brackets in thousands of brackets
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int], within: list[int]) -> int:
    """Nodes in all once every reference is written out."""
    if id(node) in within:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1} refers to itself")
    if id(node) not in known:
        within.append(id(node))
        known[id(node)] = 1 + sum(_size(each, known, within) for each in _children(node))
        within.pop()
    if known[id(node)] > MOST_NODES:
        raise yaml.YAMLError(f"it has more than {MOST_NODES:,} values once its references are written out")
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands twice, in lines {seen[key.value]} and {line}")
            seen[key.value] = line
    return [part for pair in node.value for part in pair]
