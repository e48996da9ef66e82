"""Ranks: one process by default, several under torchrun."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from qincodec.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a run.

    The ranks share the run folder and take turns by batch; nothing but "go on" and rank 0's word is
    sent between them, so gloo over TCP is enough on any machine.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """Join the group torchrun describes in the environment; a single rank without it."""
        try:
            world_size = int(os.environ.get("WORLD_SIZE", "1"))
            ranks = cls(int(os.environ.get("RANK", "0")), world_size)
        except ValueError as error:
            raise UserError(f"RANK and WORLD_SIZE must be integers: {error}; use torchrun") from error
        if world_size > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
        return ranks

    def share(self, value: Any) -> Any:
        """Rank 0's ``value`` on every rank; waits until all are here."""
        if self.world_size == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def once(self, work: Callable[[], T]) -> T:
        """What ``work`` returns when rank 0 alone does it, on every rank; its UserError too."""
        result: T | None = None
        error: UserError | None = None
        if self.rank == 0:
            try:
                result = work()
            except UserError as caught:
                error = caught
        result, error = self.share((result, error))
        if error is not None:
            raise error
        return cast(T, result)

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.share(None)

    def close(self) -> None:
        if self.world_size > 1:
            from torch import distributed

            distributed.destroy_process_group()


def usable_cores() -> int:
    """CPU cores for this process: those it may run on, shared among torchrun's ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
