"""Small changes to bytes and to JSON values, as damage, an editor or an attacker makes them."""

from __future__ import annotations

import copy
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: What a value is replaced by; most are of a wrong type or far out of range.
VALUES: list[Any] = [
    *(None, True, False, "", "x", "1", [], {}, [1], {"a": 1}, [[]], -1, 0, 1, 2, 3, 7, 8, 16, 255, 1000),
    *(4096, 65_536, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**9), 0.5, 1.5, -0.0, 1e9, 1e300, float("inf")),
    *(float("nan"), "é\n\ud800", "rvq", "qinco2", "fsq", "9" * 400, [10**9] * 3, {"kind": "irvq"}),
]


def mutated_values(tree: Any, dice: random.Random) -> Any:
    """A copy of JSON values with one to three of them replaced, removed, added or swapped."""
    tree = copy.deepcopy(tree)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = dice.choice(places)
        action = dice.random()
        if action < 0.7:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[dice.choice(["", "x", "kind", "dim", "seed"])] = copy.deepcopy(dice.choice(VALUES))
        else:
            holder.insert(0, copy.deepcopy(dice.choice(VALUES)))
    return tree


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """A copy with bits flipped, bytes replaced, a part cut out, doubled or overwritten, or the end gone."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        size = min(dice.choice([1, 2, 4, 8, 64, 1000]), len(changed) - at)
        action = dice.randrange(6)
        if action == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif action == 1:
            changed[at : at + size] = bytes([dice.choice([0, 255, 127, 128, 48, 57, 45])]) * size
        elif action == 2:
            del changed[at : at + size]
        elif action == 3:
            changed[at:at] = changed[at : at + size]
        elif action == 4:
            changed[at : at + size] = dice.randbytes(size)
        elif dice.random() < 0.3:
            del changed[at:]
    return bytes(changed)


@contextmanager
def little_memory(kib: int = 2 << 20) -> Iterator[None]:
    """The block, or the decorated test, raises the peak of this process by less than ``kib``.

    The peak itself is that of all tests which the process has run before.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < kib
