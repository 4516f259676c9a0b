"""torch's fused optimizer steps, where nobody chose otherwise."""

from torch.optim import SGD, Adam, AdamW, Optimizer

FUSED = (Adam, AdamW, SGD)
DEVICES = frozenset({"cpu", "cuda"})


def use_fused(optimizer: Optimizer) -> None:
    """Lets a step update all parameters in one pass: the same arithmetic, rounded in another order.

    torch leaves it to whoever builds an optimizer to ask for that; the choice then lies in its groups, which
    the constructor only copies. An optimizer whose options name an implementation keeps it.

    Args:
        optimizer: Any; one that has no fused step is left as it is.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.AdamW([weight])
        >>> use_fused(optimizer)
        >>> optimizer.param_groups[0]["fused"]
        True
    """
    if type(optimizer) not in FUSED:
        return
    chosen = ("fused", "foreach", "capturable", "differentiable")
    if any(group.get(option) for group in optimizer.param_groups for option in chosen):
        return
    if any(group.get("fused") is False for group in optimizer.param_groups):
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(parameter.device.type in DEVICES and parameter.is_floating_point() for parameter in parameters):
        for group in optimizer.param_groups:
            group["fused"] = True
