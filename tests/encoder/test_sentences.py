"""Encoders of text: from transformers itself, from chance, and what is none."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, RobertaConfig, RobertaModel

from ser_strategies.encoder.sentences import SentenceEncoder
from tests.encoder.conftest import stock

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "no", "yes", "i", "am", "fine", "not", "at", "all"]
TEXTS = ["no", "I am fine", "yes", "not at all fine am I", "am I"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT as transformers saves it, with its tokenizer."""
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    BertModel(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_vectors_are_those_of_transformers(folder, pooling):
    encoder = SentenceEncoder(str(folder), pooling=pooling)
    found = encoder.encode(TEXTS)
    tokens = BertTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    expected = (states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (encoder.width, found.dtype, found.requires_grad) == (16, torch.float32, False)


def test_a_text_does_not_depend_on_others_and_is_cut_where_positions_end(folder):
    encoder = SentenceEncoder(str(folder))
    torch.testing.assert_close(encoder.encode(TEXTS)[3:4], encoder.encode(TEXTS[3:4]))
    assert len(encoder._tokens("yes " * 50)) == 8
    assert encoder.encode(["yes " * 50]).isfinite().all()


def test_the_random_one_is_the_same_everywhere_and_tells_texts_apart():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = SentenceEncoder("random:bert-tiny"), SentenceEncoder("random:bert-tiny")
    assert one.fingerprint == two.fingerprint
    found = one.encode([*TEXTS, "NO", "long " * 200])
    assert torch.equal(torch.random.get_rng_state(), before), "no random number of anybody else is drawn"
    torch.testing.assert_close(two.encode(TEXTS), found[:5])
    torch.testing.assert_close(found[5], found[0])  # capital letters mean nothing
    assert torch.pdist(found[:5]).min() > 0.1


def test_the_fingerprint_is_of_weights_settings_and_tokenizer(folder, tmp_path):
    first = SentenceEncoder(str(folder)).fingerprint
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        assert SentenceEncoder(str(copy)).fingerprint == first
        changed = bytearray((copy / name).read_bytes())
        if name == "config.json":
            changed = json.dumps(json.loads(changed) | {"layer_norm_eps": 0.5}).encode()
        else:
            changed[-1] ^= 1
        (copy / name).write_bytes(changed)
        assert SentenceEncoder(str(copy)).fingerprint != first


def test_roberta_counts_its_positions_from_behind_its_padding(folder, tmp_path):
    config = RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=10,
        pad_token_id=0,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    for name in ("vocab.txt", "tokenizer_config.json", "tokenizer.json"):
        if (folder / name).exists():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    encoder = SentenceEncoder(str(tmp_path))
    encoder.__dict__["_tokenizer"] = BertTokenizer.from_pretrained(folder)
    assert encoder.encode(["yes " * 50]).isfinite().all()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("none", "random:bert-huge' is not known: expected an encoder of text"),
        ("speech", "is a model of type 'wav2vec2': expected an encoder of text"),
        ("tokenizer", "has no tokenizer"),
        ("weights", "has no weights: expected model.safetensors"),
        ("torn", "the weights of the text encoder .* cannot be read"),
        ("kind", "is of a kind that transformers does not know"),
        ("empty", "has no config.json"),
        ("absent", "neither a folder nor in the local cache"),
        ("pooling", r"text_pooling must be one of mean, first, got 'maen'; did you mean mean\?"),
    ],
)
def test_what_is_no_encoder_of_text_is_refused_in_a_sentence(spoil, says, folder, tmp_path):
    source, pooling = str(tmp_path), "mean"
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if spoil == "none":
        source = "random:bert-huge"
    elif spoil == "speech":
        stock("wav2vec2-tiny").save_pretrained(tmp_path)
    elif spoil == "tokenizer":
        for name in ("vocab.txt", "tokenizer.json"):
            (tmp_path / name).unlink(missing_ok=True)
    elif spoil == "weights":
        (tmp_path / "model.safetensors").unlink()
    elif spoil == "torn":
        (tmp_path / "model.safetensors").write_bytes(b"torn")
    elif spoil == "kind":
        (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    elif spoil == "empty":
        (tmp_path / "config.json").unlink()
    elif spoil == "absent":
        source = "somebody/nothing"
    elif spoil == "pooling":
        pooling = "maen"
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        SentenceEncoder(source, pooling=pooling).encode(TEXTS)
    assert "\n" not in str(caught.value)
