"""What the tests of units share with those of strategies: a corpus, and a cache of each test's own."""

from tests.strategies.conftest import corpus, frames_elsewhere

__all__ = ["corpus", "frames_elsewhere"]
