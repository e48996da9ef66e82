"""QINCO2 against brute force, against the RVQ it starts from, and its search against itself."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qincodec.core.errors import UserError
from qincodec.quantizers import beam
from qincodec.quantizers.beam import Search, smallest
from qincodec.quantizers.qinco2 import QINCO2, SIZES, Training, widen
from qincodec.quantizers.rvq import RVQ

DIM, N, K = 6, 4, 16


def data(frames: int, seed: int = 0) -> torch.Tensor:
    """Correlated, heavy-tailed latents, off centre."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(99))
    z = torch.randn(frames, DIM, generator=random) @ mix
    return z * (0.3 + torch.rand(frames, 1, generator=random)) + 2


def random_network(seed: int = 0) -> QINCO2:
    """A QINCO2 whose networks do something: every parameter random."""
    torch.manual_seed(seed)
    model = QINCO2(DIM, N, K, num_blocks=2, width=12, hidden=20)
    for network in model.networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3 / math.sqrt(parameter.shape[-1]))
    model.mean.normal_()
    model.scale.fill_(1.7)
    return model


def codeword(model: QINCO2, m: int, k: int, x_hat: torch.Tensor) -> torch.Tensor:
    """f_m of one codeword and one reconstruction, from the definition, in float64."""
    c = model.codebooks[m, k].double()
    if m == 0:
        return c
    weights = {name: p.detach().double() for name, p in model.networks[m - 1].named_parameters()}
    h = weights["project_in.weight"] @ c
    h = h + weights["condition.weight"] @ torch.cat([h, x_hat]) + weights["condition.bias"]
    for block in range(2):
        h = h + weights[f"down.{block}.weight"] @ torch.relu(weights[f"up.{block}.weight"] @ h)
    return c + weights["project_out.weight"] @ h


@pytest.fixture(scope="module")
def rvq_and_data() -> tuple[RVQ, torch.Tensor, torch.Tensor, torch.Tensor]:
    x = data(2000)
    mean, scale = x.mean(0), (x - x.mean(0)).std()
    rvq = RVQ(DIM, N, K)
    rvq.fit((x - mean) / scale, seed=0)
    return rvq, x, mean, scale


@pytest.fixture(scope="module")
def trained(rvq_and_data: tuple[RVQ, torch.Tensor, torch.Tensor, torch.Tensor]) -> QINCO2:
    """A few steps of training by hand: networks that matter, and a pre-selection that fits them."""
    from qincodec.quantizers.qinco2 import loss_of

    rvq, x, mean, scale = rvq_and_data
    torch.manual_seed(0)
    model = QINCO2(DIM, N, K, num_blocks=2, width=16, hidden=16)
    model.start_from(rvq, mean, scale, noise=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    z = (x - mean) / scale
    for _ in range(60):
        loss, _ = loss_of(model, z, model.find(z, N, Search(4, 4)).codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def mse(model: QINCO2, x: torch.Tensor, how: Search, m: int = N) -> float:
    model = copy.deepcopy(model)
    model.search = how
    return float((model.decode(model.encode(x, m)) - x).square().mean())


def test_parameter_count_of_size_m() -> None:
    with torch.device("meta"):
        model = QINCO2(32, 9, 1024, **SIZES["M"])
    count = sum(parameter.numel() for parameter in model.parameters())
    # 8 networks of P_in, W, b, 4 x (Up, Down), P_out; 9 codebooks and 8 of the pre-selection.
    network = 32 * 384 + (384 + 32) * 384 + 384 + 4 * 2 * 384 * 384 + 384 * 32
    assert count == 8 * network + (9 + 8) * 1024 * 32 == 11_471_872


def test_starts_exactly_at_the_rvq(rvq_and_data) -> None:
    rvq, x, mean, scale = rvq_and_data
    model = QINCO2(DIM, N, K, **SIZES["S"])
    model.start_from(rvq, mean, scale)
    model.search = Search(candidates=K, beam=1)
    for m in range(1, N + 1):
        expected = rvq.encode((x - mean) / scale, m)
        codes = model.encode(x, m)
        assert torch.equal(codes, expected)
        torch.testing.assert_close(model.decode(codes), rvq.decode(expected) * scale + mean)


def test_noise_moves_the_start(rvq_and_data) -> None:
    rvq, _, mean, scale = rvq_and_data
    model = QINCO2(DIM, N, K, **SIZES["S"])
    model.start_from(rvq, mean, scale, noise=0.1, seed=3)
    moved = (model.codebooks - rvq.codebooks).std((1, 2)) / rvq.codebooks.std((1, 2))
    torch.testing.assert_close(moved, torch.full((N,), 0.1), atol=0.02, rtol=0)


@pytest.mark.parametrize("m", [1, 2, N])
def test_full_width_and_no_beam_is_greedy_search(m: int) -> None:
    model = random_network()
    model.search = Search(candidates=K, beam=1)
    x = data(40, seed=5)
    z = ((x - model.mean) / model.scale).double()
    expected = torch.zeros(len(x), m, dtype=torch.int64)
    for t in range(len(x)):
        x_hat = torch.zeros(DIM, dtype=torch.float64)
        for n in range(m):
            options = torch.stack([codeword(model, n, k, x_hat) for k in range(K)])
            expected[t, n] = (z[t] - x_hat - options).square().sum(1).argmin()
            x_hat = x_hat + options[expected[t, n]]
    assert torch.equal(model.encode(x, m), expected)


def test_exhaustive_beam_finds_the_best_of_all_codes() -> None:
    model = random_network()
    model.search = Search(candidates=K, beam=K * K)
    x = data(5, seed=6)
    codes = torch.cartesian_prod(*[torch.arange(K)] * 3)
    everything = model.decode(codes)
    best = torch.cdist(x, everything).min(1).values
    found = (model.decode(model.encode(x, 3)) - x).norm(dim=1)
    torch.testing.assert_close(found, best)


def test_decoder_agrees_with_the_definition() -> None:
    model = random_network()
    codes = torch.randint(K, (20, N), generator=torch.Generator().manual_seed(0))
    for row, decoded in zip(codes, model.decode(codes), strict=True):
        x_hat = torch.zeros(DIM, dtype=torch.float64)
        for n in range(N):
            x_hat = x_hat + codeword(model, n, int(row[n]), x_hat)
        torch.testing.assert_close(decoded.double(), x_hat * model.scale + model.mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "how", [Search(4, 8), Search(4, 8, shortlist=12), Search(3, 5, precision="bfloat16")]
)
def test_a_prefix_decodes_to_the_search_s_own_partial(how: Search) -> None:
    model = random_network()
    x = data(50, seed=7)
    found = model.find((x - model.mean) / model.scale, N, how)
    tolerance = 3e-2 if how.precision == "bfloat16" else 1e-5
    for m in range(1, N + 1):
        partial = found.partials[:, m - 1] * model.scale + model.mean
        torch.testing.assert_close(model.decode(found.codes[:, :m]), partial, atol=tolerance, rtol=tolerance)


def test_wider_is_not_worse(trained: QINCO2, rvq_and_data) -> None:
    x = rvq_and_data[1]
    for axis in ("candidates", "beam"):
        errors = [
            mse(trained, x, Search(**{"candidates": 4, "beam": 4, axis: width})) for width in (1, 2, 4, 8, 16)
        ]
        for narrow, wide in itertools.pairwise(errors):
            assert wide <= narrow * 1.002, (axis, errors)
        assert errors[-1] < errors[0] * 0.97, (axis, errors)


def test_shortlist_of_everything_changes_nothing(trained: QINCO2, rvq_and_data) -> None:
    x = rvq_and_data[1][:300]
    full = mse(trained, x, Search(4, 8))
    assert mse(trained, x, Search(4, 8, shortlist=32)) == full
    assert mse(trained, x, Search(4, 8, shortlist=16)) <= full * 1.02


def test_bfloat16_search_is_close(trained: QINCO2, rvq_and_data) -> None:
    x = rvq_and_data[1]
    assert mse(trained, x, Search(4, 8, precision="bfloat16")) <= mse(trained, x, Search(4, 8)) * 1.005


def test_bfloat16_is_one_definition_on_every_processor(
    trained: QINCO2, rvq_and_data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of bfloat16, and of float32 rounded to it: they differ in the order of sums only."""
    x, how = rvq_and_data[1][:500], Search(4, 8, shortlist=12, precision="bfloat16")
    found = []
    for native in (True, False):
        monkeypatch.setattr(beam, "multiplies_bfloat16", lambda kind: native)  # noqa: B023
        model = copy.deepcopy(trained)
        model.forget_tables()
        model.search = how
        found.append(model.encode(x))
        (stage, *_) = model.tables("bfloat16")
        assert stage.out.dtype == (torch.bfloat16 if native else torch.float32)
        assert torch.equal(stage.out.float(), stage.out.bfloat16().float())
    assert (found[0] == found[1]).all(1).float().mean() > 0.97
    errors = [float((trained.decode(codes) - x).square().mean()) for codes in found]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@pytest.mark.parametrize("width", [3, 16, 64])
def test_a_shortlist_takes_at_most_a_of_every_beam(width: int) -> None:
    """Beside the definition: the A nearest of each beam, and of these the nearest. One beam is far ahead."""
    random = torch.Generator().manual_seed(width)
    guess = torch.randn(40, 8, 64, generator=random) + 3 * torch.arange(8)[:, None]
    expected = guess.sort(-1).values[..., :width].flatten(1).sort(-1).values[:, :20]
    beams, codes = beam._candidates(guess.clone(), Search(width, 8, shortlist=20))
    assert torch.equal(guess[torch.arange(40)[:, None], beams, codes].sort(-1).values, expected)


def test_guesses_are_squared_distances() -> None:
    model = random_network()
    residual = 5 * torch.randn(7, 3, DIM, generator=torch.Generator().manual_seed(0))
    exact = torch.cdist(residual.double(), model.preselection[0].double()).square()
    exact -= residual.double().square().sum(2).amin(1)[:, None, None]
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
        guess = beam._guesses(residual, model.tables(precision)[0])
        assert (guess - exact).abs().max() < tolerance * exact.abs().max()


def test_codes_of_a_frame_do_not_depend_on_the_batch(trained: QINCO2, rvq_and_data) -> None:
    x = rvq_and_data[1][:200]
    alone = torch.cat([trained.encode(frame[None]) for frame in x])
    assert (alone == trained.encode(x)).all(1).float().mean() > 0.99  # up to rounding at near ties


def test_tables_follow_the_parameters() -> None:
    model, other = random_network(0), random_network(1)
    x = data(100)
    before = model.encode(x)
    model.load_state_dict(other.state_dict())
    assert not torch.equal(before, model.encode(x))
    assert torch.equal(model.encode(x), other.encode(x))
    with torch.no_grad():
        model.networks[0].project_out.weight.mul_(-3)
    assert not torch.equal(model.encode(x), other.encode(x))


def test_search_settings_are_reported_and_checked() -> None:
    model = QINCO2(DIM, N, K, **SIZES["S"])
    model.search = Search(4, 2, shortlist=6, precision="bfloat16")
    expected = {
        "candidates": 4,
        "beam": 2,
        "shortlist": 6,
        "precision": "bfloat16",
        "preselection": "bfloat16",
    }
    assert model.settings() == expected
    assert QINCO2.from_config(model.config()).settings() == expected
    model.search = Search(4, 3, shortlist=7)
    widths = {"fast": (1, 3), "default": (3, 7), "best": (6, 14)}
    for name, (beams, shortlist) in widths.items():
        preset = Search(4, beams, shortlist, "bfloat16")
        assert model.search.preset(name) == preset
    with pytest.raises(UserError, match="search must be fast, default or best; got 'faster'"):
        model.searching("faster")
    assert Search(2, 1).preset("fast").beam == 1
    with pytest.raises(UserError, match="candidates must be a whole number from 1 to 65536, got 0"):
        Search(candidates=0)
    with pytest.raises(UserError, match="float32 or bfloat16"):
        Search(precision="int8")
    model.search = Search(candidates=K + 1)
    with pytest.raises(UserError, match="more than the 16 codewords"):
        model.encode(data(2))


@pytest.mark.parametrize(("size", "k"), [(1024, 16), (1024, 1), (4096, 64), (1000, 9), (17, 17), (32768, 40)])
def test_smallest_is_exact(size: int, k: int) -> None:
    x = torch.randn(3, 5, size, generator=torch.Generator().manual_seed(size))
    values, indices = smallest(x, k)
    assert torch.equal(values.sort(-1).values, x.sort(-1).values[..., :k])
    assert torch.equal(x.gather(-1, indices), values)


def test_training_begins_at_lloyd_s_codebooks() -> None:
    """Steps of no length leave the start, on whatever device the mini-batches of RVQ would be computed."""
    x = data(3000)
    model = QINCO2(DIM, N, K, num_blocks=1, width=8, hidden=8, search=Search(4, 4))
    model.fit(x, validation=data(500, 1), training=Training(epochs=1, lr=0, noise=0, ramp_epochs=0))
    start = RVQ(DIM, N, K)
    start.fit((x - model.mean) / model.scale, k_means="lloyd")
    used = model.codebooks.detach() - start.codebooks
    assert used.abs().max() < 1e-4


def test_a_shortlist_that_costs_too_much_is_widened() -> None:
    """Networks that were never trained: the pre-selection knows nothing of what they make of a codeword."""
    model, x = random_network(), data(300)
    with torch.no_grad():
        model.preselection.normal_()
    model.search = Search(8, 8, shortlist=2)
    full = mse(model, x, Search(8, 8))
    assert mse(model, x, model.search) > 1.05 * full
    widen(model, x)
    assert 2 < model.search.shortlist <= 64
    assert mse(model, x, model.search) <= 1.0101 * full
    assert mse(model, x, Search(8, 8, shortlist=model.search.shortlist // 2)) > 1.0099 * full
    wide = model.search
    widen(model, x)
    assert model.search == wide


def test_an_epoch_without_a_batch_is_reported_with_its_numbers() -> None:
    """It once said that 5000 latents were less than a batch of 1024."""
    message = "batch_size is 1024, epoch_frames 512, and the number of latents 4..."
    with pytest.raises(UserError, match=message):
        QINCO2(DIM, N, K, **SIZES["S"]).fit(data(5000).numpy(), training=Training(epoch_frames=512))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_benchmark_runs_with_few_steps(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "latents.npy", random.standard_normal((8000, 32)).astype(np.float32))
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "qinco2_speed.py"
    where = [f"--{name}={tmp_path / 'latents.npy'}" for name in ("train", "held-out")]
    how = [f"--state={tmp_path / 'm.pt'}", "--steps=2", "--vectors=2", "--reference-vectors=1"]
    done = subprocess.run([sys.executable, str(script), *where, *how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "plain (16, 32)" in done.stdout
