"""What a run imports anyway: the process imports it that runs are forked from."""

from ser_strategies.common.imports import much_imported

with much_imported():
    import ser_strategies.__main__  # noqa: F401
    import ser_strategies.fit.lightning_cli  # noqa: F401
