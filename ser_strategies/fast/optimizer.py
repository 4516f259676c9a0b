"""torch's fused optimizer steps, where nobody chose otherwise."""

from collections.abc import Sequence

from torch.optim import Adam, AdamW, Optimizer

# Not SGD, whose fused step with momentum fails where a parameter gets its first gradient later than others.
FUSED = (Adam, AdamW)
DEVICES = frozenset({"cpu", "cuda"})


def use_fused(optimizer: Optimizer) -> None:
    """Lets a step update all parameters in one pass: the same arithmetic, rounded in another order.

    torch leaves it to whoever builds an optimizer to ask for that; the choice then lies in its groups, which
    the constructor only copies. An optimizer whose options name an implementation keeps it, and one that has
    no fused step is left as it is.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.AdamW([weight])
        >>> use_fused(optimizer)
        >>> optimizer.param_groups[0]["fused"]
        True
    """
    if type(optimizer) not in FUSED:
        return
    groups = optimizer.param_groups
    named = any(group.get(option) is not None for group in groups for option in ("fused", "foreach"))
    special = any(group.get(option) for group in groups for option in ("capturable", "differentiable"))
    parameters = [parameter for group in groups for parameter in group["params"]]
    suitable = all(
        parameter.device.type in DEVICES and parameter.is_floating_point() and parameter.is_contiguous()
        for parameter in parameters
    )
    if suitable and not named and not special:
        for group in groups:
            group["fused"] = True


def fused_choices(optimizer: Optimizer) -> list[bool | None]:
    """Whether each group of an optimizer is fused; None where it has no such option or nobody chose."""
    return [group.get("fused") for group in optimizer.param_groups]


def restore_fused(optimizer: Optimizer, choices: Sequence[bool | None]) -> None:
    """Puts back choices of `fused_choices` that a loaded state has replaced by those of its own run."""
    for group, fused in zip(optimizer.param_groups, choices, strict=True):
        if group.get("fused") == fused:
            continue
        group["fused"] = fused
        for parameter in group["params"] if fused else ():
            state = optimizer.state.get(parameter, {})
            if "step" in state:  # which a fused step counts where the parameter is
                state["step"] = state["step"].to(parameter.device)
