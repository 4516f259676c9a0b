"""What a paper cites: this library, its statistics, and the strategies, encoder and corpus that were used."""

from importlib.metadata import version

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
CHEN = """@inproceedings{chen2023exploring,
  title = {Exploring {Wav2vec} 2.0 fine-tuning for improved speech emotion recognition},
  author = {Chen, Li-Wei and Rudnicky, Alexander},
  booktitle = {ICASSP},
  year = {2023},
  note = {arXiv:2110.06309},
}"""
SAMPATH = """@inproceedings{sampath2025efficient,
  title = {Efficient Finetuning for Dimensional Speech Emotion Recognition in the Age of {Transformers}},
  author = {Sampath, Aneesha and Tavernor, James and Mower Provost, Emily},
  booktitle = {ICASSP},
  year = {2025},
  note = {arXiv:2503.03756},
}"""
HU = """@inproceedings{hu2022lora,
  title = {{LoRA}: Low-Rank Adaptation of Large Language Models},
  author = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and
            Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle = {ICLR},
  year = {2022},
  note = {arXiv:2106.09685},
}"""
OF_STRATEGIES = {
    "VanillaFineTuning": CHEN,
    "TAPT": CHEN,
    "PTAPT": CHEN,
    "PartialFineTuning": SAMPATH,
    "CachedFineTuning": SAMPATH,
    "MixedPrecisionFineTuning": SAMPATH,
    "LoRAFineTuning": HU,
}
OF_ENCODERS = {
    "wav2vec2": """@inproceedings{baevski2020wav2vec,
  title = {wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations},
  author = {Baevski, Alexei and Zhou, Yuhao and Mohamed, Abdelrahman and Auli, Michael},
  booktitle = {NeurIPS},
  year = {2020},
}""",
    "hubert": """@article{hsu2021hubert,
  title = {{HuBERT}: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units},
  author = {Hsu, Wei-Ning and others},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume = {29},
  year = {2021},
}""",
    "wavlm": """@article{chen2022wavlm,
  title = {{WavLM}: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing},
  author = {Chen, Sanyuan and others},
  journal = {IEEE Journal of Selected Topics in Signal Processing},
  volume = {16},
  number = {6},
  year = {2022},
}""",
}
OF_CORPORA = {
    "IEMOCAP": """@article{busso2008iemocap,
  title = {{IEMOCAP}: interactive emotional dyadic motion capture database},
  author = {Busso, Carlos and others},
  journal = {Language Resources and Evaluation},
  volume = {42},
  number = {4},
  year = {2008},
}""",
    "MSP-Podcast": """@article{lotfian2019building,
  title = {Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving Emotional Speech from
           Existing Podcast Recordings},
  author = {Lotfian, Reza and Busso, Carlos},
  journal = {IEEE Transactions on Affective Computing},
  volume = {10},
  number = {4},
  year = {2019},
}""",
    "MELD": """@inproceedings{poria2019meld,
  title = {{MELD}: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations},
  author = {Poria, Soujanya and others},
  booktitle = {ACL},
  year = {2019},
}""",
    "CREMA-D": """@article{cao2014crema,
  title = {{CREMA-D}: Crowd-Sourced Emotional Multimodal Actors Dataset},
  author = {Cao, Houwei and others},
  journal = {IEEE Transactions on Affective Computing},
  volume = {5},
  number = {4},
  year = {2014},
}""",
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
    for stages in findings.configurations.values():
        models = (each.get("model") for each in stages)
        used += [
            str(model.get("class_path")).rpartition(".")[2] for model in models if isinstance(model, dict)
        ]
    entries = [bibtex(), *(OF_STRATEGIES[name] for name in used if name in OF_STRATEGIES)]
    source = str(findings.encoder.get("source"))
    if not source.startswith("random:"):
        entries.append(OF_ENCODERS.get(str(findings.encoder.get("family")), ""))
    tasks = findings.finished["task"].dropna().astype(str)
    entries += [OF_CORPORA.get(task.partition("/")[0], "") for task in dict.fromkeys(tasks)]
    return "\n\n".join(dict.fromkeys(filter(None, entries)))
