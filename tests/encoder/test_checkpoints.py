import argparse
import zipfile

import pytest
import torch

from ser_strategies.encoder import Encoder, LoRA, add_adapter, freeze_cnn, train_top_blocks
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import SIZES, TOLERANCE, alone, error, lively, noise, save_checkpoint, stir

SIZE = "wav2vec2-tiny"
every_kind = pytest.mark.parametrize("size", SIZES)
SETTINGS = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rank_stabilised": False, "decomposed": False}
TARGETS = ("q_proj", "v_proj", "intermediate_dense")


def frames_of(encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(*alone(noise(9_000))).values


def train(encoder: Encoder, seed: int = 7) -> None:
    """Moves what trains, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))


# What an earlier stage left ------------------------------------------------------------------------


@every_kind
def test_a_whole_checkpoint_is_the_encoder_that_was_trained(tmp_path, size):
    encoder = lively(size)
    freeze_cnn(encoder)
    path = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=True)
    found = Encoder(str(path))
    assert torch.equal(frames_of(found), frames_of(encoder))
    assert found.identity.source == str(path)
    assert found.identity.origin == encoder.identity.fingerprint
    assert found.identity.fingerprint != encoder.identity.fingerprint
    assert found.identity.normalise == encoder.identity.normalise


def test_a_whole_checkpoint_does_not_need_its_source(tmp_path, folder):
    source = folder(load_encoder("random:wavlm-tiny").model, normalise=False)
    encoder = Encoder(str(source))
    train(encoder)
    path = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=True)
    source.rename(tmp_path / "gone")
    assert torch.equal(frames_of(Encoder(str(path))), frames_of(encoder))


@every_kind
def test_a_checkpoint_of_top_blocks_is_put_on_its_source(tmp_path, size):
    encoder = Encoder(f"random:{size}")
    train_top_blocks(encoder, 2)
    train(encoder)
    path = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=False)
    assert len(torch.load(path)["state_dict"]) < len(encoder.state_dict()) * 0.7
    found = Encoder(str(path))
    assert torch.equal(frames_of(found), frames_of(encoder))
    assert frames_of(found).sub(frames_of(Encoder(f"random:{size}"))).norm() > 0.1


@pytest.mark.parametrize(
    "changes", [{}, {"decomposed": True}, {"rank_stabilised": True}], ids=["lora", "dora", "rslora"]
)
@every_kind
def test_a_checkpoint_of_adapters_gives_a_plain_encoder_with_the_same_frames(tmp_path, size, changes):
    encoder = Encoder(f"random:{size}")
    add_adapter(encoder, LoRA(**(SETTINGS | changes), targets=TARGETS))
    train(encoder)
    path = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=False)
    plain = Encoder(f"random:{size}")
    found = Encoder(str(path))
    assert set(found.state_dict()) == set(plain.state_dict())
    assert error(frames_of(found), frames_of(encoder)) < TOLERANCE
    assert error(frames_of(found), frames_of(plain)) > 0.01
    assert all(
        parameter.requires_grad
        for name, parameter in found.named_parameters()
        if not name.endswith("masked_spec_embed")
    )


def test_stages_can_be_chained(tmp_path):
    first = Encoder(f"random:{SIZE}")
    train(first)
    one = save_checkpoint(first, tmp_path / "one.ckpt", whole=True)
    second = Encoder(str(one))
    train_top_blocks(second, 1)
    train(second, seed=8)
    two = save_checkpoint(second, tmp_path / "two.ckpt", whole=False)
    found = Encoder(str(two))
    assert torch.equal(frames_of(found), frames_of(second))
    assert found.identity.origin == second.identity.fingerprint


def test_a_partial_checkpoint_on_another_encoder_is_refused(tmp_path, folder):
    model = load_encoder(f"random:{SIZE}").model
    path = folder(model)
    encoder = Encoder(str(path))
    train_top_blocks(encoder, 1)
    checkpoint = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=False)
    stir(model)
    model.save_pretrained(path)
    with pytest.raises(ValueError, match=f"{checkpoint} was trained on {path} with fingerprint"):
        Encoder(str(checkpoint))


def test_a_partial_checkpoint_with_a_weight_its_encoder_lacks_is_refused(tmp_path):
    encoder = Encoder(f"random:{SIZE}")
    train_top_blocks(encoder, 1)
    path = save_checkpoint(encoder, tmp_path / "best.ckpt", whole=False)
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["encoder.model.encoder.layers.9.stray"] = torch.zeros(1)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"holds encoder\.layers\.9\.stray, which its encoder does not have"):
        Encoder(str(path))


def test_reading_does_not_change_the_file(tmp_path):
    path = save_checkpoint(Encoder(f"random:{SIZE}"), tmp_path / "best.ckpt", whole=True)
    before = path.read_bytes()
    train(Encoder(str(path)))
    assert path.read_bytes() == before


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_checkpoint, load_encoder])
def test_a_checkpoint_that_does_not_exist_is_refused(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.ckpt: expected a \.ckpt file"):
        read(str(tmp_path / "none.ckpt"))


def test_a_folder_named_like_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "best.ckpt").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_encoder(str(tmp_path / "best.ckpt"))


@pytest.mark.parametrize("content", [b"", b"epoch: 3\n", b"PK\x03\x04"], ids=["empty", "text", "beginning"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{path} is not a checkpoint, or only part of one .{len(content)} bytes"
    ):
        load_encoder(str(path))


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, part):
    path = save_checkpoint(Encoder(f"random:{SIZE}"), tmp_path / "best.ckpt", whole=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"is not a checkpoint, or only part of one .* copy it again"):
        load_encoder(str(path))


def test_another_zip_file_is_refused(tmp_path):
    path = tmp_path / "best.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=f"{path} is damaged or holds more than plain weights"):
        load_encoder(str(path))


@pytest.mark.parametrize(
    "saved", [{"state_dict": {}}, [1, 2], torch.zeros(3)], ids=["dict", "list", "tensor"]
)
def test_what_another_program_saved_is_refused(tmp_path, saved):
    path = tmp_path / "best.ckpt"
    torch.save(saved, path)
    with pytest.raises(ValueError, match=f"{path} was not written by a strategy of ser_strategies"):
        load_encoder(str(path))


class Trap:
    sprung: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple:
        return self.sprung.append, ("sprung",)


@pytest.mark.parametrize("thing", [argparse.Namespace(lr=0.1), Trap()], ids=["namespace", "code"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, thing):
    path = tmp_path / "best.ckpt"
    torch.save({RECORD: {"format": FORMAT}, "state_dict": {}, "hyper_parameters": thing}, path)
    with pytest.raises(ValueError, match=f"{path} is damaged or holds more than plain weights"):
        load_encoder(str(path))
    assert Trap.sprung == []


def test_a_later_format_is_refused(tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save({RECORD: {"format": FORMAT + 1}}, path)
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, this version reads up to {FORMAT}"):
        read_checkpoint(path)
