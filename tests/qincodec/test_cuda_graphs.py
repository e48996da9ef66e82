"""What of `qincodec.cuda_graphs` does without a GPU; `test_gpu` has the rest."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import torch

from qincodec.cuda_graphs import Replayed, adamw, load_state, set_rate

CPU = torch.device("cpu")


def test_elsewhere_than_on_a_gpu_every_call_is_made() -> None:
    calls = []

    def double(key: str, x: torch.Tensor) -> torch.Tensor:
        calls.append(key)
        return 2 * x

    replayed = Replayed(double, CPU)
    assert [float(replayed("key", torch.tensor(float(n)))) for n in range(6)] == [0, 2, 4, 6, 8, 10]
    assert calls == ["key"] * 6


def steps(optimizer: torch.optim.Optimizer, weight: torch.Tensor, count: int) -> None:
    for step in range(count):
        set_rate(optimizer, 0.1 / (1 + step))
        weight.grad = (weight.detach() - 3.0).sign() + weight.detach()
        optimizer.step()


def test_a_state_of_a_gpu_continues_as_on_the_gpu() -> None:
    """Saved there, an optimizer's groups say that it is fused and keeps its rate in a tensor."""
    weight = torch.nn.Parameter(torch.randn(5))
    optimizer = adamw([weight], 0.1, CPU, betas=(0.8, 0.95))
    steps(optimizer, weight, 3)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0] |= {"lr": torch.tensor(0.1), "fused": True, "capturable": True}

    other = torch.nn.Parameter(weight.detach().clone())
    resumed = adamw([other], 1.0, CPU)
    load_state(resumed, state)
    (group,) = resumed.param_groups
    assert not group["fused"] and not group["capturable"] and group["betas"] == (0.8, 0.95)
    steps(optimizer, weight, 4)
    steps(resumed, other, 4)
    assert torch.equal(weight, other)


def test_a_rate_in_a_tensor_is_set_in_place() -> None:
    rate = torch.tensor(1.0)
    optimizer = SimpleNamespace(param_groups=[{"lr": rate}, {"lr": 1.0}])
    set_rate(optimizer, 0.25)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.25]
    assert optimizer.param_groups[0]["lr"] is rate
