"""How a paper cites this library; the same facts as CITATION.cff, which is not in the installed package."""

from importlib.metadata import version

TITLE = "ser_strategies: fine-tuning strategies for speech emotion recognition, compared by accuracy and cost"
AUTHORS = "The ser_strategies developers"
# Where each piece of the statistics is from.
REFERENCES = (
    "Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering. "
    "Journal of Business & Economic Statistics, 29(2), 238-249.",
    "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
    "Statistics, 6(2), 65-70.",
)


def bibtex() -> str:
    """The entry for a bibliography."""
    number = version("ser-strategies")
    return (
        "@software{ser_strategies,\n"
        f"  title = {{{{{TITLE}}}}},\n"
        f"  author = {{{{{AUTHORS}}}}},\n"
        f"  version = {{{number}}},\n"
        "}"
    )
