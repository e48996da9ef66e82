"""Mid and side against their definition: what comes back, what panned sources leave of the side, noise."""

from __future__ import annotations

import pytest
import torch

from qincodec import stereo
from qincodec.codec import load
from qincodec.core.errors import UserError

torch.set_num_threads(1)


@pytest.fixture
def audio() -> torch.Tensor:
    return 0.2 * torch.randn(3, 2, 5000, generator=torch.Generator().manual_seed(0))


def test_mid_and_side_come_back(audio: torch.Tensor) -> None:
    pair = stereo.to_mid_side(audio)
    torch.testing.assert_close(pair[:, 0], audio.sum(1) / 2**0.5)
    torch.testing.assert_close(pair.square().sum(), audio.square().sum())  # a rotation
    for prediction in (0, -3, 8, torch.tensor([1, -8, 5])):
        pair = stereo.to_mid_side(audio, prediction)
        torch.testing.assert_close(stereo.to_left_right(pair, prediction), audio)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1, 1, 0), (1, 0, 8), (0, 1, -8), (0, 0, 0), (1, 0.2, 5), (0.2, 1, -5), (1, -1, 0)],
)
def test_predictions_of_one_source(audio: torch.Tensor, left: float, right: float, expected: int) -> None:
    """Of gains l and r, side is (l - r) / (l + r) of the mid, (1 - 0.2) / (1 + 0.2) = 5.3 / 8 say."""
    panned = torch.stack([left * audio[:, 0], right * audio[:, 0]], 1)
    assert stereo.best_predictions(panned) == [expected] * 3
    assert stereo.best_prediction(panned[0].split(777, 1)) == expected


def test_channels_with_little_in_common_are_not_predicted(audio: torch.Tensor) -> None:
    """One louder than the other: a part of the side follows from the mid, but less than three quarters."""
    assert stereo.best_predictions(audio * torch.tensor([[1.0], [0.5]])) == [0, 0, 0]


def test_codes_that_a_side_cannot_have_are_refused() -> None:
    codes = torch.zeros(2, 3, 4, dtype=torch.long)
    assert stereo.codebooks_of(codes) == [3, 3]
    codes[1, 2:] = -1
    assert stereo.codebooks_of(codes) == [3, 2]
    for row, book, frame in ((1, 1, 2), (1, 0, slice(None)), (0, slice(None), slice(None))):
        wrong = codes.clone()
        wrong[row, book, frame] = -1
        with pytest.raises(UserError, match="last codebooks that the side lacks"):
            stereo.codebooks_of(wrong)


def test_noise_of_the_side_is_not_that_of_the_mid() -> None:
    """A decoder that has learnt nothing adds as loud a noise to both; of one noise, right is silent."""
    codec = load("untrained:small")
    codes = codec.encode(torch.zeros(1, 1, 44_100), num_codebooks=1)
    decoded = codec.decode(codes.expand(1, 2, 1, -1))[0]
    left, right = decoded.square().mean(1).tolist()
    assert left / 2 < right < 2 * left
    whole = torch.cat(list(codec.decode_blocks(codes[0].expand(2, 1, -1))), 1)
    torch.testing.assert_close(whole, decoded)
