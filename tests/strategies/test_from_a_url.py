"""Strategies that read a corpus otherwise than batch by batch, units and stored frames, from a web server."""

import tarfile

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_strategies import TAPT, CachedFineTuning, Manifest, Vesper
from tests.data.stores import Web, serving
from tests.strategies.conftest import WARNINGS, Losses, build, trainer

pytestmark = WARNINGS

CLIPS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Clips of noise in a folder with a table of them, and the same in a tar file; look, do not touch."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    names = [f"{number}.wav" for number in range(CLIPS)]
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number, name in enumerate(names):
            soundfile.write(folder / name, rng.normal(0, 0.1, 4_000 + 500 * number).astype("float32"), 16_000)
            tar.add(folder / name, name)
    rows = pd.DataFrame(
        {"id": names, "path": names, "label": ["anger", "joy", "neutral", "sadness"] * (CLIPS // 4)}
    )
    rows = rows.assign(
        split=["train"] * 6 + ["val"] * 2, speaker=[f"s{number // 2}" for number in range(CLIPS)]
    )
    rows.to_csv(folder / "files.csv", index=False)
    rows.assign(path="shard.tar/" + rows["path"]).to_csv(folder / "shards.csv", index=False)
    return folder


def learnt(strategy, table, root, folder):
    """The losses of two epochs over a table, and what has been stored by file: frames or units."""
    torch.manual_seed(0)
    options = {"cache": str(folder)} if strategy is CachedFineTuning else {}
    losses = Losses()
    fitted = trainer(max_epochs=2, callbacks=[losses], default_root_dir=str(folder))
    corpus = Manifest(str(table), root=str(root), batch_size=3, near_copies=False)
    fitted.fit(build(strategy, "wav2vec2-tiny", **options), datamodule=corpus)
    return losses.values, {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("strategy", [TAPT, Vesper, CachedFineTuning])
def test_what_is_learnt_from_a_web_server_is_what_is_learnt_from_a_folder(strategy, place, tmp_path):
    losses, stored = learnt(strategy, place / "files.csv", place, tmp_path / "here")
    with serving(Web, place) as (url, asked):
        assert learnt(strategy, place / "shards.csv", url, tmp_path / "there") == (losses, stored)
    assert len(losses) == 4
    assert any(path.endswith("shard.tar") and part for path, part in asked)
    assert stored or strategy is not CachedFineTuning
