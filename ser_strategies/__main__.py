"""`python -m ser_strategies` is `ser-strategies`."""

from ser_strategies.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
