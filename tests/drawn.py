"""What is the same each time and dear to find out: encoders that are drawn, what is installed, parsers."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

from torch import nn


@contextmanager
def drawn_once() -> Iterator[None]:
    """`random:<size>` is drawn once for each small size, and then copied, which takes an eighth of the time.

    `encoder/test_drawn.py` holds that a copy is what is drawn; what is about drawing asks for `drawn_anew`.
    Where nobody has imported encoders, nothing is done, since that takes seconds.
    """
    sources: Any = sys.modules.get("ser_strategies.encoder.sources")
    if sources is None:
        yield
        return
    draw, kept = sources._draw, {}

    @functools.wraps(draw)
    def hand_out(source: str) -> Any:
        if "tiny" not in source:
            return draw(source)
        if source not in kept:
            kept[source] = draw(source)
        found = kept[source]
        return found._replace(model=copied(found.model, deepcopy(found.model.config)))

    with patch.object(sources, "_draw", hand_out):
        yield


def copied(module: nn.Module, config: Any) -> Any:
    """A module of the same weights that shares none of them, with `config` wherever it has one.

    `deepcopy` takes four times as long, most of it over empty tables of hooks.
    """
    made = object.__new__(type(module))
    state = vars(made)
    state.update({name: it.copy() if isinstance(it, dict | set) else it for name, it in vars(module).items()})
    if "config" in state:
        state["config"] = config
    for name, weight in module._parameters.items():
        if weight is not None:
            state["_parameters"][name] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    for name, buffer in module._buffers.items():
        state["_buffers"][name] = None if buffer is None else buffer.clone()
    for name, part in module._modules.items():
        state["_modules"][name] = None if part is None else copied(part, config)
    return made


@contextmanager
def listed_once() -> Iterator[None]:
    """Each `Trainer` asks what every installed package offers, for most of the time it takes to build."""
    registry: Any = sys.modules.get("lightning.fabric.utilities.registry")
    if registry is None:
        yield
        return
    with patch.object(registry, "entry_points", functools.cache(registry.entry_points)):
        yield


@contextmanager
def parsed_alike() -> Iterator[None]:
    """`fit` and its like make their parser once each, which is most of what a refused word costs.

    What a parser was made by is asked when it links options, so that it becomes whoever parses last.
    """
    from ser_strategies.fit.lightning_cli import StrategyCLI

    make: Any = StrategyCLI.setup_parser
    made: dict[str, tuple[Any, dict[str, Any]]] = {}

    def setup_parser(self: Any, *given: Any) -> None:
        command = self._asked
        if command in made:
            maker, parts = made[command]
            vars(self).update(parts)
            maker.__dict__ = vars(self)
            return
        before = set(vars(self))
        make(self, *given)
        parts = {name: value for name, value in vars(self).items() if name not in before}
        made[command] = self, parts

    with patch.object(StrategyCLI, "setup_parser", setup_parser):
        yield
