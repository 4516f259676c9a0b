"""A frozen encoder of text: what is said, as one vector, from transformers or from chance."""

import hashlib
import pickle
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel

from ser_strategies.common.errors import check_choice, first_line
from ser_strategies.encoder.published import (
    CONFIG,
    TOKENIZERS,
    VOCABULARIES,
    published,
    weight_files,
)
from ser_strategies.encoder.sources import SEED_OF_RANDOM_WEIGHTS, quiet_transformers

TextPooling = Literal["mean", "first"]
RANDOM = "random:bert-tiny"
TINY: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
}
PAD, FIRST, LAST, WORDS_FROM = 0, 1, 2, 3
# Texts of one length that go through the encoder at once. Nothing is padded.
BATCH = 32
# Tokenizers that know no limit say so by a very large number.
LONGEST = 4096
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    ImportError,
    SafetensorError,
    pickle.UnpicklingError,
)
EXPECTED = "expected an encoder of text in transformers' format, such as roberta-base, or " + RANDOM


class SentenceEncoder:
    """Vectors of what is said: the mean, or the first, of the last hidden states of an encoder of text.

    Its weights are read when the first vector is asked for; they never train, and are in no checkpoint.

    Args:
        source: A hub id, a folder in transformers' format, or `random:bert-tiny`.
        revision: Branch, tag or commit of a hub id.
        pooling: The "mean" over the tokens, or the "first" token, which BERT calls [CLS].
    """

    def __init__(self, source: str, revision: str | None = None, pooling: TextPooling = "mean") -> None:
        check_choice("text_pooling", pooling, TextPooling)
        self.source, self.pooling = source, pooling
        self.folder: Path | None = None
        self.commit: str | None = None
        if source.startswith("random:"):
            if source != RANDOM:
                msg = f"text_encoder {source!r} is not known: {EXPECTED}."
                raise ValueError(msg)
            self.config: Any = BertConfig(**TINY)
        else:
            path = Path(source).expanduser()
            self.source = str(path.resolve()) if path.is_dir() else source
            self.folder, self.commit = published(self.source, revision, text=True)
            self.config = _config(self.source, self.folder)
        self.width: int = self.config.hidden_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what it computes: settings, weights and tokenizer."""
        digest = hashlib.sha256()
        if self.folder is None:
            digest.update(repr((sorted(TINY.items()), WORDS_FROM)).encode())
            for name, tensor in sorted(self._model.state_dict().items()):
                digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
            return digest.hexdigest()
        named = [self.folder / name for name in (CONFIG, *TOKENIZERS)]
        for path in (*named, *weight_files(self.folder)):
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """Which encoder it is, as plain data."""
        return {
            "source": self.source,
            "revision": self.commit,
            "fingerprint": self.fingerprint,
            "pooling": self.pooling,
        }

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """A vector of each text, (texts, width) in float32 on the CPU; texts of one length go together."""
        tokens = [self._tokens(text) for text in texts]
        vectors = torch.empty(len(texts), self.width)
        model = self._model.to(device)
        for batch in _of_one_length(tokens):
            ids = torch.tensor([tokens[index] for index in batch], device=device)
            with torch.autocast(torch.device(device).type, enabled=False):
                states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            pooled = states.mean(1) if self.pooling == "mean" else states[:, 0]
            vectors[torch.tensor(batch)] = pooled.float().cpu()
        return vectors

    @cached_property
    def _model(self) -> nn.Module:
        if self.folder is None:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                torch.manual_seed(SEED_OF_RANDOM_WEIGHTS)
                drawn: nn.Module = BertModel(self.config, add_pooling_layer=False)
            return drawn.eval().requires_grad_(False)
        try:
            with quiet_transformers():
                model, report = AutoModel.from_pretrained(
                    str(self.folder),
                    config=self.config,
                    dtype=torch.float32,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except UNREADABLE as error:
            msg = f"the weights of the text encoder {self.source} cannot be read: {first_line(error)}."
            raise ValueError(msg) from error
        # What pools for other tasks may be missing, and is not used.
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:
            msg = f"the text encoder {self.source} lacks {len(missing)} weights, such as {missing[0]}."
            raise ValueError(msg)
        made: nn.Module = model
        return made.eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            return AutoTokenizer.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            msg = f"the tokenizer of the text encoder {self.source} cannot be read: {first_line(error)}."
            raise ValueError(msg) from error

    def _tokens(self, text: str) -> list[int]:
        positions = int(getattr(self.config, "max_position_embeddings", None) or LONGEST)
        if self.folder is None:
            return _tiny_tokens(text, positions)
        # RoBERTa and its kin begin to count their positions behind the number of their padding.
        reserved = (self.config.pad_token_id or 0) + 1 if "roberta" in self.config.model_type else 0
        longest = min(self._tokenizer.model_max_length, positions - reserved)
        tokens: list[int] = self._tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        return tokens


def _tiny_tokens(text: str, positions: int) -> list[int]:
    """Numbers of words: a hash of each, of its small letters; the same on every machine."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    room = TINY["vocab_size"] - WORDS_FROM
    numbers = [WORDS_FROM + zlib.crc32(word.encode()) % room for word in words]
    return [FIRST, *numbers[: positions - 2], LAST]


def _of_one_length(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of texts of as many tokens, in batches."""
    by_length: dict[int, list[int]] = {}
    for index, each in enumerate(tokens):
        by_length.setdefault(len(each), []).append(index)
    for length in sorted(by_length):
        alike = by_length[length]
        yield from (alike[first : first + BATCH] for first in range(0, len(alike), BATCH))


def _config(source: str, folder: Path) -> Any:
    """The settings of an encoder of text; ValueError where that is not what is in the folder."""
    if not (folder / CONFIG).is_file():
        msg = f"text_encoder {source} has no {CONFIG}: {EXPECTED}."
        raise FileNotFoundError(msg)
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        kind = AutoModel._model_mapping[type(config)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"text_encoder {source} is of a kind that transformers does not know: {EXPECTED}."
        raise ValueError(msg) from error
    reads = getattr(kind, "main_input_name", "") == "input_ids" and hasattr(config, "hidden_size")
    if not reads or config.is_encoder_decoder:
        msg = f"text_encoder {source} is a model of type {config.model_type!r}: {EXPECTED}."
        raise ValueError(msg)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        msg = f"text_encoder {source} has no tokenizer ({', '.join(VOCABULARIES[:3])}, ...): {EXPECTED}."
        raise FileNotFoundError(msg)
    if not weight_files(folder):
        msg = f"text_encoder {source} has no weights: expected model.safetensors beside its {CONFIG}."
        raise FileNotFoundError(msg)
    return config
