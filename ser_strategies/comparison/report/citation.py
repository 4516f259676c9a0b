"""What a paper cites: this library, its statistics, and the strategies, encoder and corpus that were used."""

import re
from importlib.metadata import version
from importlib.resources import files

from ser_strategies.comparison.findings import Findings

# The same facts as CITATION.cff, which is not in the installed package.
TITLE = "ser_strategies: fine-tuning strategies for speech emotion recognition, compared by accuracy and cost"
AUTHORS = "The ser_strategies developers"
# Where each piece of the statistics is from.
REFERENCES = (
    "Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering. "
    "Journal of Business & Economic Statistics, 29(2), 238-249.",
    "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
    "Statistics, 6(2), 65-70.",
)
# Keys of references.bib.
CITED = {
    **dict.fromkeys(("VanillaFineTuning", "TAPT", "PTAPT"), "chen2023exploring"),
    **dict.fromkeys(
        ("PartialFineTuning", "CachedFineTuning", "MixedPrecisionFineTuning"), "sampath2025efficient"
    ),
    **{"LoRAFineTuning": "hu2022lora", "wav2vec2": "baevski2020wav2vec", "hubert": "hsu2021hubert"},
    **{"wavlm": "chen2022wavlm", "IEMOCAP": "busso2008iemocap", "MSP-Podcast": "lotfian2019building"},
    **{"Vesper": "chen2023vesper", "MELD": "poria2019meld", "CREMA-D": "cao2014crema"},
}


def bibtex() -> str:
    """The entry of this library."""
    number = version("ser-strategies")
    return (
        "@software{ser_strategies,\n"
        f"  title = {{{{{TITLE}}}}},\n"
        f"  author = {{{{{AUTHORS}}}}},\n"
        f"  version = {{{number}}},\n"
        "}"
    )


def bibliography(findings: Findings) -> str:
    """Entries of this library, and of the strategies, the encoder and the corpus that are published."""
    used = [str(each) for each in findings.finished["strategy"]]
    models = (stage.get("model") for stages in findings.configurations.values() for stage in stages)
    used += [str(model.get("class_path")).rpartition(".")[2] for model in models if isinstance(model, dict)]
    if not str(findings.encoder.get("source")).startswith("random:"):
        used.append(str(findings.encoder.get("family")))
    used += [str(task).partition("/")[0] for task in findings.finished["task"].dropna()]
    text = files("ser_strategies.comparison.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = {re.findall(r"{(\w+),", entry)[0]: entry for entry in text.strip().split("\n\n")}
    cited = dict.fromkeys(CITED[name] for name in used if name in CITED)
    return "\n\n".join([bibtex(), *(entries[key] for key in cited)])
