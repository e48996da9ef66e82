"""Training steps whose kernels are launched on a GPU together.

A step of a small model is a thousand kernels, each shorter than the time that Python takes to launch it.
Recorded as a CUDA graph they run without Python and without gaps, several times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch

#: Calls before the recorded one, in which libraries make their plans and workspaces.
_WARM_UP = 3


class Replayed:
    """A function of tensors; on a GPU it is recorded after a few calls and then replayed.

    Every replay repeats the function's effects on tensors (weights, buffers), but not those in Python. The
    function must not read values, and may depend only on its arguments and on tensors that it knows.

    Args:
        function: ``function(key, *tensors)`` to a tensor or a flat dict or tuple of tensors.
        device: of the tensors; on other devices than a GPU the function is called directly.
        enabled: False for functions that cannot be recorded.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, enabled: bool = True) -> None:
        self._function = function
        self._records = enabled and device.type == "cuda"
        self._calls: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]] = {}

    def __call__(self, key: Hashable, *tensors: torch.Tensor) -> Any:
        """``function(key, *tensors)``. Each ``key`` and set of shapes has its own recording.

        A replay's results are overwritten by the next: add or copy them before.
        """
        if not self._records:
            return self._function(key, *tensors)
        place = key, tuple(tensor.shape for tensor in tensors)
        if place not in self._graphs:
            calls = self._calls[place] = self._calls.get(place, 0) + 1
            if calls <= _WARM_UP:
                return self._on_another_stream(key, tensors)
            self._graphs[place] = self._record(key, tensors)
        graph, inputs, result = self._graphs[place]
        for mine, given in zip(inputs, tensors, strict=True):
            mine.copy_(given)
        graph.replay()
        return result

    def _on_another_stream(self, key: Hashable, tensors: Iterable[torch.Tensor]) -> Any:
        # Required by torch before a recording: gradients remember the stream that first made them.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._function(key, *tensors)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _record(
        self, key: Hashable, tensors: Iterable[torch.Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]:
        inputs = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        # Other threads (the data loader's) may continue to allocate.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._function(key, *inputs)
        return graph, inputs, result


def adamw(parameters: Any, lr: float, device: torch.device, **options: Any) -> torch.optim.AdamW:
    """AdamW; on a GPU in one kernel that can be recorded."""
    if device.type != "cuda":
        return torch.optim.AdamW(parameters, lr, **options)
    rate = torch.tensor(lr, device=device)
    return torch.optim.AdamW(parameters, rate, fused=True, capturable=True, **options)


def load_state(optimizer: Any, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict`` for a state that may come from another kind of device."""
    groups = [
        {**saved, **{name: own[name] for name in ("lr", "fused", "capturable")}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def set_rate(optimizer: Any, lr: float) -> None:
    """Set the learning rate of all groups, in place if a recording uses it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
