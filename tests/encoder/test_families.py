import pytest
import torch

from ser_strategies.encoder.families import FAMILIES, random_shape
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import SIZES

PUBLISHED = {
    "wav2vec2-base": 94_371_712,
    "wav2vec2-large": 315_438_720,
    "wavlm-base": 94_381_936,
    "wavlm-large": 315_453_120,
    "hubert-base": 94_371_712,
    "hubert-large": 315_438_720,
    # 48 blocks of 19,677,440, convolutions 4,210,176, projection 657,664, positions 13,108,608, and 3,840
    "wav2vec2-xlarge": 962_497_408,
    "hubert-xlarge": 962_497_408,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_base_and_large_have_as_many_weights_as_the_published_checkpoints(size):
    config = random_shape(size).config
    with torch.device("meta"):
        model = FAMILIES[config.model_type].model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[size]


@pytest.mark.parametrize("size", [*SIZES, *PUBLISHED])
def test_only_the_smaller_wavlm_takes_waveforms_as_they_are(size):
    assert random_shape(size).normalise == (size not in {"wavlm-tiny", "wavlm-base"})


@pytest.mark.parametrize("size", [*SIZES, *PUBLISHED])
def test_every_size_has_fifty_frames_a_second(size):
    config = random_shape(size).config
    assert tuple(config.conv_kernel) == (10, 3, 3, 3, 3, 2, 2)
    assert tuple(config.conv_stride) == (5, 2, 2, 2, 2, 2, 2)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("wav2vec2-tyni", "wav2vec2-tiny"),
        ("wavlm_large", "wavlm-large"),
        ("hubert-tiny-prenrm", "hubert-tiny-prenorm"),
        ("wav2vec-base", "wav2vec2-base"),
    ],
)
def test_a_misspelt_size_names_the_nearest(typed, meant):
    with pytest.raises(ValueError, match=f"random:{typed} is not a size .* did you mean random:{meant}\\?"):
        load_encoder(f"random:{typed}")


@pytest.mark.parametrize("typed", ["", "zzz"])
def test_a_size_like_no_other_lists_them_all(typed):
    with pytest.raises(ValueError, match=r"expected random: and one of wav2vec2-tiny, .*hubert") as caught:
        load_encoder(f"random:{typed}")
    assert "did you mean" not in str(caught.value)
