"""Latents to fit a quantizer on: frames on disk or in memory, read in shuffled blocks.

60 million frames of 32 dimensions are 7.7 GB, so a whole set is read only on request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from qincodec.core.errors import UserError

LatentsLike: TypeAlias = "np.ndarray | torch.Tensor | Path | str | Latents"

#: Frames that are read together; consecutive, so mostly of one recording.
BLOCK = 256
#: Number of blocks whose frames are shuffled together: 262,144 frames, 34 MB at 32 dimensions.
POOL = 1024
#: Sums of squares of larger values exceed the range of float32.
_LARGEST = 1e15


def _open(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"latents {path} cannot be read: {error}") from error
    return array


class Latents:
    """(frames, dim) float32 or float16 latents from one array or several in a row.

    Args:
        source: an array or memory map, a tensor on the CPU, a ``.npy`` file, or a folder of ``.npy`` files,
            read in order of names.

    Raises:
        UserError: the source is empty, has another shape than (frames, dim), mixed dimensions, or another
            type.

    Examples:
        >>> latents = Latents(np.zeros((10, 4), np.float32))
        >>> len(latents), latents.dim
        (10, 4)
    """

    def __init__(self, source: LatentsLike) -> None:
        self._shards: list[np.ndarray]
        self._names: list[str]
        self._blocks: np.ndarray
        if isinstance(source, Latents):
            self._shards, self._names = source._shards, source._names
            self._blocks = source._blocks
        else:
            self._shards, self._names = _shards(source)
            # (first row, end) of each block; a block never spans two shards.
            starts, ends, offset = [], [], 0
            for shard in self._shards:
                first = np.arange(offset, offset + len(shard), BLOCK)
                starts.append(first)
                ends.append(np.minimum(first + BLOCK, offset + len(shard)))
                offset += len(shard)
            self._blocks = np.stack([np.concatenate(starts), np.concatenate(ends)], 1)
        self._offsets = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.dim = int(self._shards[0].shape[1])

    def __len__(self) -> int:
        return int((self._blocks[:, 1] - self._blocks[:, 0]).sum())

    def check(self, dim: int, least: int) -> None:
        """Raise UserError unless it has at least ``least`` frames of ``dim`` dimensions."""
        if self.dim != dim:
            raise UserError(f"latents have {self.dim} dimensions, but the quantizer {dim}")
        if len(self) < least:
            raise UserError(f"{len(self)} frames of latents are too few: this fit needs {least} or more")

    def signature(self) -> str:
        """Hash that identifies a set of latents without reading all of it: sizes, and 64 of its blocks."""
        digest = hashlib.sha256(f"{len(self)} {self.dim} {self._blocks.shape}".encode())
        for index in np.unique(np.linspace(0, len(self._blocks) - 1, 64).astype(int)):
            digest.update(self._read(*self._blocks[index]).tobytes())
        return digest.hexdigest()

    def hold_out(self, frames: int, seed: int) -> tuple[Latents, Latents]:
        """Split into the rest and about ``frames`` frames, in runs of 16 blocks (24 s) if possible."""
        run = max(1, min(16, len(self._blocks) // 50))
        runs = np.arange(len(self._blocks)) // run
        order = np.random.default_rng([seed, 1]).permutation(runs[-1] + 1)
        lengths = np.bincount(runs, weights=self._blocks[:, 1] - self._blocks[:, 0])
        taken = order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), frames)))]
        held = np.isin(runs, taken)
        if held.all():
            raise UserError(f"{len(self)} frames of latents are too few to hold {frames} out for validation")
        parts = Latents(self), Latents(self)
        parts[0]._blocks, parts[1]._blocks = self._blocks[~held], self._blocks[held]
        return parts

    def sample(self, frames: int, seed: int) -> np.ndarray:
        """(min(frames, all), dim) float32: frames drawn without replacement, in stored order."""
        total = len(self)
        ends = np.cumsum(self._blocks[:, 1] - self._blocks[:, 0])
        if frames >= total:
            chosen = np.arange(total)
        else:
            chosen = np.sort(np.random.default_rng([seed, 2]).choice(total, frames, replace=False))
        out = np.empty((len(chosen), self.dim), np.float32)
        splits = np.searchsorted(chosen, ends)
        start = 0
        for block, end in enumerate(splits):
            if end > start:
                within = chosen[start:end] - ends[block] + self._blocks[block, 1] - self._blocks[block, 0]
                out[start:end] = self._read(*self._blocks[block])[within]
            start = end
        return out

    def steps(self, batch: int, frames: int) -> int:
        """Number of batches that `batches` yields."""
        return min(frames, len(self)) // batch

    def batches(
        self, batch: int, frames: int, *, seed: int, epoch: int, start: int = 0
    ) -> Iterator[torch.Tensor]:
        """Batches of (batch, dim) float32 of an epoch, from the ``start``-th on, in the epoch's own order.

        Blocks are drawn in random order, and their frames shuffled within pools of `POOL` blocks.

        Args:
            frames: most frames of the epoch; a larger set gives every epoch other frames.
            epoch: counts from 0; seed and epoch decide the order.
            start: batches to skip, for a fit that continues within an epoch.
        """
        blocks = self._blocks[np.random.default_rng([seed, 3, epoch]).permutation(len(self._blocks))]
        steps, step = self.steps(batch, frames), 0
        rest = np.empty((0, self.dim), np.float32)
        for number, first in enumerate(range(0, len(blocks), POOL)):
            chosen = blocks[first : first + POOL]
            size = int((chosen[:, 1] - chosen[:, 0]).sum())
            # Whole batches of this pool; its rest begins the next.
            count = (len(rest) + size) // batch
            if step + count <= start and first + POOL < len(blocks):
                left = (len(rest) + size) - count * batch
                step += count
                # A skipped pool needs only its last `left` frames in shuffled order.
                rest = np.concatenate([rest, self._pool(chosen, seed, epoch, number)])[
                    -left or len(rest) + size :
                ]
                continue
            pool = np.concatenate([rest, self._pool(chosen, seed, epoch, number)])
            for index in range(count):
                if step >= steps:
                    return
                if step >= start:
                    yield torch.from_numpy(pool[index * batch : (index + 1) * batch])
                step += 1
            rest = pool[count * batch :]

    def _pool(self, blocks: np.ndarray, seed: int, epoch: int, number: int) -> np.ndarray:
        rows = np.concatenate([self._read(first, end) for first, end in blocks])
        np.random.default_rng([seed, 4, epoch, number]).shuffle(rows, axis=0)
        return rows

    def _read(self, first: int, end: int) -> np.ndarray:
        shard = int(np.searchsorted(self._offsets, first, side="right")) - 1
        offset = self._offsets[shard]
        rows = np.array(self._shards[shard][first - offset : end - offset], dtype=np.float32)
        if not (np.abs(rows) < _LARGEST).all():
            raise UserError(
                f"latents {self._names[shard]} hold NaN, infinity or more than {_LARGEST:g} between rows "
                f"{first - offset} and {end - offset}; make them again"
            )
        return rows


def _shards(source: LatentsLike) -> tuple[list[np.ndarray], list[str]]:
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        shards, names = [source], [str(getattr(source, "filename", None) or "in memory")]
    elif isinstance(source, str | Path):
        path = Path(source)
        files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"no .npy files of latents in {path}")
        shards, names = [_open(file) for file in files], [str(file) for file in files]
    else:
        raise UserError(
            f"latents must be an array, a tensor, a .npy file or a folder, got {type(source).__name__}"
        )
    for shard, name in zip(shards, names, strict=True):
        if shard.ndim != 2 or shard.shape[1] != shards[0].shape[1]:
            raise UserError(f"latents {name} have shape {shard.shape}, not (frames, {shards[0].shape[-1]})")
        if shard.dtype not in (np.float32, np.float16):
            raise UserError(f"latents {name} are {shard.dtype}; they must be float32 or float16")
    kept = [(shard, name) for shard, name in zip(shards, names, strict=True) if len(shard)]
    if not kept:
        raise UserError(f"latents {names[0]} have no frames")
    return [shard for shard, _ in kept], [name for _, name in kept]
