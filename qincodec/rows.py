"""Encode and decode several signals at once, each with its own number of codebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from qincodec.autoencoder import CHUNK_FRAMES, Autoencoder
from qincodec.bitstream import NO_CODE
from qincodec.quantizers.base import Quantizer


def encode_rows(
    autoencoder: Autoencoder, quantizer: Quantizer, blocks: Iterable[torch.Tensor], counts: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Codes of rows that arrive in blocks (rows, n) with any n.

    Args:
        counts: codebooks of every row.

    Yields:
        (rows, max(counts), frames), int64, -1 where a row lacks a codebook.
    """
    for latents in autoencoder.encode_blocks(blocks):
        codes = latents.new_full((len(latents), max(counts), latents.shape[1]), NO_CODE, dtype=torch.long)
        for count, rows in _alike(counts):
            found = quantizer.encode(latents[rows].flatten(0, 1), count)
            codes[rows, :count] = found.unflatten(0, (len(rows), -1)).transpose(1, 2)
        yield codes


def decode_rows(
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    codes: torch.Tensor,
    counts: Sequence[int],
    noise_at: Sequence[int],
) -> Iterator[torch.Tensor]:
    """Audio (rows, samples) block by block of codes (rows, num_codebooks, frames), integers.

    Args:
        counts: codebooks of every row.
        noise_at: frame of the decoder's noise at which that of every row begins.
    """

    def latents(part: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(part), part.shape[2], quantizer.dim, device=part.device)
        for count, rows in _alike(counts):
            of_rows = quantizer.decode(part[rows, :count].transpose(1, 2).flatten(0, 1))
            found[rows] = of_rows.unflatten(0, (len(rows), -1))
        return found

    first = torch.tensor(noise_at, device=codes.device)[:, None] if any(noise_at) else 0
    return autoencoder.decode_blocks(map(latents, codes.split(CHUNK_FRAMES, 2)), first_frame=first)


def _alike(counts: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each number of codebooks with the rows that have it, which are quantized together."""
    for count in sorted(set(counts)):
        yield count, [row for row, n in enumerate(counts) if n == count]
