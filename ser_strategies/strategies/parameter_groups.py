"""Parameter groups, and whether together they are what trains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def checked_groups(
    strategy: str, groups: Sequence[dict[str, Any]], parameters: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Groups that are not empty; ValueError unless each parameter is in one and each has its own name."""
    groups = [{**group, "params": list(group["params"])} for group in groups]
    names = [group.get("name") for group in groups]
    if None in names or len(set(names)) < len(names):
        msg = f"parameter_groups of {strategy} must give each group a name of its own, got {names}."
        raise ValueError(msg)
    times = Counter(id(parameter) for group in groups for parameter in group["params"])
    wrong = [name for name, parameter in parameters.items() if times[id(parameter)] != 1]
    if wrong:
        found = "none" if times[id(parameters[wrong[0]])] == 0 else "several"
        msg = (
            f"parameter_groups of {strategy} must put each parameter that trains into one group, but "
            f"{wrong[0]} is in {found} ({len(wrong)} of {len(parameters)} such parameters)."
        )
        raise ValueError(msg)
    strangers = len(times) - len(parameters)
    if strangers:
        msg = f"parameter_groups of {strategy} has {strangers} parameters that are not among may_train()."
        raise ValueError(msg)
    return [group for group in groups if group["params"]]
