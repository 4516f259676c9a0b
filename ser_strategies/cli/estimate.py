"""`estimate`: runs a few steps of a configuration of `fit`, and says what the whole run will take."""

import json
import sys

from ser_strategies.common.errors import PROGRAM
from ser_strategies.estimates.dry_run import PlannedRun
from ser_strategies.estimates.estimating import estimate_run
from ser_strategies.fit.frame_cache import configured

JSON = "--json"


def run(command: str, arguments: list[str]) -> None:
    """Estimates one configuration; exits with 1 where it does not fit."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help(command))
        return
    made = configured([word for word in arguments if word != JSON])
    options = made.config_init["fit"].trainer
    figures = estimate_run(PlannedRun(made.model, made.datamodule, made.trainer, options))
    if JSON in arguments:
        print(json.dumps(figures.as_dict(), indent=2))
    else:
        if figures.cache is not None:
            for damage in figures.cache.damage:
                print(damage)
        print("\n".join(figures.lines()))
    if figures.fits is False:
        sys.exit(1)


def _help(command: str) -> str:
    return f"""usage: {PROGRAM} {command} [{JSON}] [options of fit]

What a run will take, told before it begins: memory, time, checkpoints, a cache, and whether it fits.
A few steps are run on the real device, the biggest batches of the corpus among them; nothing is written.

options:
  {JSON}    print the figures as JSON, under the names of costs.json
  All others are those of fit: {PROGRAM} fit --help

examples:
  {PROGRAM} {command} --config examples/vanilla.yaml
  {PROGRAM} {command} --config examples/vanilla.yaml --model.recompute true --data.batch_seconds 120"""
