"""Every quantizer behind the interface, and what RVQ, iRVQ, FSQ and the FAISS ones promise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from qincodec.core.errors import UserError
from qincodec.quantizers import QUANTIZERS
from qincodec.quantizers.base import FitProgress, Quantizer
from qincodec.quantizers.faiss_additive import FaissLSQ, FaissRQ
from qincodec.quantizers.fsq import FSQ, allocate
from qincodec.quantizers.irvq import IRVQ, cluster_deviations
from qincodec.quantizers.qinco2 import QINCO2, Training
from qincodec.quantizers.rvq import RVQ, lloyd

DIM, N, K = 8, 4, 16
KINDS = ["rvq", "irvq", "qinco2", "faiss_rq", "faiss_lsq", "fsq"]


def data(frames: int, seed: int = 0) -> torch.Tensor:
    """Correlated, heavy-tailed latents, off centre."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(99))
    return (torch.randn(frames, DIM, generator=random) @ mix) * (
        0.3 + torch.rand(frames, 1, generator=random)
    ) + 1


def fit(kind: str, **more: object) -> Quantizer:
    if kind == "qinco2":
        quantizer: Quantizer = QINCO2(DIM, N, K, num_blocks=1, width=16, hidden=16)
        more.setdefault("training", Training(epochs=2, batch_size=256, ramp_epochs=1))
    else:
        quantizer = QUANTIZERS.load(kind).for_rate(DIM, N, K)
    if kind == "faiss_lsq":
        more.setdefault("iterations", 3)
    quantizer.fit(data(3000), **more)
    return quantizer


TOLD: dict[str, list[FitProgress]] = {kind: [] for kind in KINDS}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Quantizer]:
    return {kind: fit(kind, progress=TOLD[kind].append) for kind in KINDS}


def test_registry_knows_all() -> None:
    assert QUANTIZERS.names()[:6] == ["rvq", "irvq", "qinco2", "faiss_rq", "faiss_lsq", "fsq"]
    assert all(QUANTIZERS.load(kind).kind == kind for kind in KINDS)
    with pytest.raises(UserError, match="did you mean irvq"):
        QUANTIZERS.load("irqv")


@pytest.mark.parametrize("kind", KINDS)
def test_interface(kind: str, fitted: dict[str, Quantizer]) -> None:
    quantizer, x = fitted[kind], data(500, seed=1)
    codes = quantizer.encode(x)
    sizes = torch.tensor(quantizer.codebook_sizes)
    assert codes.dtype == torch.int64 and codes.shape == (500, quantizer.num_codebooks)
    assert (codes >= 0).all() and (codes < sizes).all()
    decoded = quantizer.decode(codes)
    assert decoded.dtype == torch.float32 and decoded.shape == x.shape and not decoded.requires_grad
    assert (decoded - x).square().mean() < 0.35 * (x - x.mean(0)).square().mean()
    assert quantizer.encode(x[:0]).shape == (0, quantizer.num_codebooks)
    assert quantizer.decode(codes[:0]).shape == (0, DIM)
    # Never more than the rate asked for.
    assert sizes.log2().sum() <= N * math.log2(K) + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_reported(kind: str, fitted: dict[str, Quantizer]) -> None:
    told = TOLD[kind]
    assert told and told[-1].done == told[-1].total
    if told[-1].mse is not None:  # in the units of the latents
        x = data(3000)
        mse = float((fitted[kind].decode(fitted[kind].encode(x)) - x).square().mean())
        assert told[-1].mse == pytest.approx(mse, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_rebuilt_from_config_and_tensors(kind: str, fitted: dict[str, Quantizer]) -> None:
    quantizer, x = fitted[kind], data(100, seed=1)
    config = json.loads(json.dumps(quantizer.config()))
    copy = QUANTIZERS.load(config["kind"]).from_config(config)
    copy.load_state_dict(quantizer.state_dict())
    assert copy.codebook_sizes == quantizer.codebook_sizes
    assert torch.equal(copy.encode(x), quantizer.encode(x))
    assert torch.equal(copy.decode(quantizer.encode(x)), quantizer.decode(quantizer.encode(x)))
    json.dumps(quantizer.settings())


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_quantizer(kind: str, fitted: dict[str, Quantizer]) -> None:
    torch.manual_seed(1234)  # the seed of the fit alone decides
    again = fit(kind).state_dict()
    for name, tensor in fitted[kind].state_dict().items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("kind", ["rvq", "irvq", "qinco2", "faiss_rq"])
def test_every_prefix_is_a_rate(kind: str, fitted: dict[str, Quantizer]) -> None:
    quantizer, x = fitted[kind], data(500, seed=1)
    assert quantizer.prefix_decodable
    errors = []
    for m in range(1, N + 1):
        codes = quantizer.encode(x, m)
        assert codes.shape == (500, m)
        errors.append(float((quantizer.decode(codes) - x).square().mean()))
        # The prefix of the whole is a rate too, if not a better one than codes chosen for that rate.
        cut = float((quantizer.decode(quantizer.encode(x)[:, :m]) - x).square().mean())
        assert errors[-1] <= cut * 1.01
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_prefix_encoded_is_declared(kind: str, fitted: dict[str, Quantizer]) -> None:
    """And who looks ahead does not: a beam chooses other codes for a lower rate."""
    quantizer, x = fitted[kind], data(500, seed=1)
    if not quantizer.prefix_decodable:
        assert not quantizer.prefix_encoded
        return
    whole = quantizer.encode(x)
    same = [torch.equal(quantizer.encode(x, m), whole[:, :m]) for m in range(1, N)]
    assert quantizer.prefix_encoded == all(same)


@pytest.mark.parametrize("kind", ["faiss_lsq", "fsq"])
def test_one_rate_only(kind: str, fitted: dict[str, Quantizer]) -> None:
    quantizer = fitted[kind]
    assert not quantizer.prefix_decodable
    with pytest.raises(UserError, match="only the rate of all its"):
        quantizer.encode(data(3), 1)
    with pytest.raises(UserError, match="only the rate of all its"):
        quantizer.decode(quantizer.encode(data(3))[:, :-1])


@pytest.mark.parametrize("kind", KINDS)
def test_rubbish_is_refused(kind: str, fitted: dict[str, Quantizer]) -> None:
    quantizer, x = fitted[kind], data(4)
    with pytest.raises(UserError, match=r"shape \(frames, 8\)"):
        quantizer.encode(x[:, :3])
    with pytest.raises(UserError, match=r"shape \(frames, 8\)"):
        quantizer.encode(x[0])
    with pytest.raises(UserError, match="NaN or infinity"):
        quantizer.encode(torch.full_like(x, math.nan))
    for m in (0, -1, quantizer.num_codebooks + 1):
        with pytest.raises(UserError, match="codebooks; got"):
            quantizer.encode(x, m)
    codes = quantizer.encode(x)
    with pytest.raises(UserError, match="outside their codebooks"):
        quantizer.decode(codes + 16)
    with pytest.raises(UserError, match="outside their codebooks"):
        quantizer.decode(codes - 17)
    with pytest.raises(UserError, match="integers"):
        quantizer.decode(codes.float())
    with pytest.raises(UserError, match="shape"):
        quantizer.decode(codes[0])
    with pytest.raises(UserError, match="3 dimensions, but the quantizer 8"):
        quantizer.fit(torch.randn(5000, 3))
    with pytest.raises(UserError, match="too few"):
        quantizer.fit(x)
    with pytest.raises(UserError, match="is of quantizer 'x'"):
        type(quantizer).from_config({**quantizer.config(), "kind": "x"})
    with pytest.raises(UserError, match="does not fit"):
        type(quantizer).from_config({**quantizer.config(), "colour": 1})


# RVQ


def test_rvq_is_greedy_and_additive(fitted: dict[str, Quantizer]) -> None:
    rvq, x = fitted["rvq"], data(300, seed=2)
    assert isinstance(rvq, RVQ)
    residual, codes = x.double(), rvq.encode(x)
    for n in range(N):
        expected = torch.cdist(residual, rvq.codebooks[n].double()).argmin(1)
        assert torch.equal(codes[:, n], expected)
        residual = residual - rvq.codebooks[n, expected]
    torch.testing.assert_close(rvq.decode(codes).double(), x - residual, atol=1e-5, rtol=1e-5)


def test_rvq_null_codeword_never_adds_error(fitted: dict[str, Quantizer]) -> None:
    rvq, x = fitted["rvq"], data(2000, seed=3)
    assert isinstance(rvq, RVQ)
    assert (rvq.codebooks[1:, 0] == 0).all() and not (rvq.codebooks[0] == 0).all(1).any()
    before = torch.full((len(x),), math.inf)
    for m in range(1, N + 1):
        error = (rvq.decode(rvq.encode(x, m)) - x).square().sum(1)
        assert (error <= before + 1e-5).all()
        before = error


def test_lloyd_is_scikit_learn_s_from_the_same_start() -> None:
    from sklearn.cluster import KMeans

    x = data(2000)
    start = lloyd(x, K, seed=0, passes=0)
    expected = KMeans(K, init=start.numpy(), n_init=1, max_iter=12, tol=0, algorithm="lloyd").fit(x.numpy())
    np.testing.assert_allclose(lloyd(x, K, seed=0, passes=12).numpy(), expected.cluster_centers_, atol=1e-4)


def test_lloyd_gives_empty_clusters_a_row() -> None:
    """More clusters than different rows: some stay empty, and none is lost to infinity."""
    x = torch.randn(3, DIM).repeat(10, 1)
    centroids = lloyd(x, 8, seed=0)
    distances = torch.cdist(centroids, x[:3])
    assert distances.min(1).values.max() < 1e-5 and distances.min(0).values.max() < 1e-5


def test_lloyd_is_as_good_as_faiss() -> None:
    """FAISS' k-means of as many passes; the mean over starts, of which each ends elsewhere."""
    faiss = pytest.importorskip("faiss")
    x = data(4000)

    def error(centroids: torch.Tensor) -> float:
        return float(torch.cdist(x, centroids).min(1).values.square().mean())

    ours = [error(lloyd(x, 64, seed)) for seed in range(5)]
    theirs = []
    for seed in range(5):
        means = faiss.Kmeans(DIM, 64, niter=25, seed=seed, max_points_per_centroid=10_000)
        means.train(x.numpy())
        theirs.append(error(torch.from_numpy(means.centroids)))
    assert np.mean(ours) < 1.01 * np.mean(theirs)


@pytest.mark.parametrize("kind", [RVQ, IRVQ])
def test_lloyd_or_mini_batches(kind: type[RVQ | IRVQ]) -> None:
    x = data(3000)
    quantizer = kind(DIM, 2, K)
    quantizer.fit(x, seed=5, k_means="lloyd")
    torch.testing.assert_close(quantizer.codebooks[0], lloyd(x, K, seed=5))
    with pytest.raises(UserError, match="unknown k_means 'elkan'; give minibatch or lloyd"):
        quantizer.fit(x, k_means="elkan")


def test_rvq_first_codebook_is_scikit_learn_s() -> None:
    from sklearn.cluster import MiniBatchKMeans

    x = data(3000).numpy()
    rvq = RVQ(DIM, 1, K)
    rvq.fit(x, seed=5)
    expected = MiniBatchKMeans(K, batch_size=3 * K, random_state=5).fit(x).cluster_centers_
    np.testing.assert_array_equal(rvq.codebooks[0].numpy(), expected)


# iRVQ


@pytest.mark.parametrize("selection", ["unweighted", "weighted"])
def test_irvq_invariant(selection: str) -> None:
    irvq = IRVQ(DIM, 6, K, selection)
    irvq.fit(data(3000))
    x = data(1000, seed=4)
    stages = irvq.stages(x, 6)
    for m, (_, x_hat, scale, r) in enumerate(stages, start=1):
        torch.testing.assert_close(x - x_hat, scale * r, atol=1e-5, rtol=0)
        codes = torch.stack([stage[0] for stage in stages[:m]], 1)
        torch.testing.assert_close(irvq.decode(codes), x_hat)


@pytest.mark.parametrize("selection", ["unweighted", "weighted"])
def test_irvq_selection_rule(selection: str) -> None:
    irvq = IRVQ(DIM, N, K, selection)
    irvq.fit(data(3000))
    x = data(200, seed=4).double()
    r, scale = x, torch.ones_like(x)
    codes = irvq.encode(x.float())
    for n in range(N):
        weight = scale[:, None] if selection == "weighted" else 1
        distances = (weight * (r[:, None] - irvq.codebooks[n].double())).square().sum(2)
        picked = distances.gather(1, codes[:, n : n + 1])[:, 0]
        torch.testing.assert_close(picked, distances.min(1).values, rtol=1e-4, atol=1e-6)
        r = (r - irvq.codebooks[n, codes[:, n]]) / irvq.sigmas[n, codes[:, n]]
        scale = scale * irvq.sigmas[n, codes[:, n]]


def test_weighted_irvq_never_adds_error() -> None:
    irvq = IRVQ(DIM, 6, K, "weighted")
    irvq.fit(data(3000))
    x = 5 * data(1000, seed=4)  # far from what it was fitted on
    before = torch.full((len(x),), math.inf)
    for m in range(1, 7):
        error = (irvq.decode(irvq.encode(x, m)) - x).square().sum(1)
        assert (error <= before * (1 + 1e-5)).all()
        before = error


def test_cluster_deviations() -> None:
    rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 0.1])
    labels = torch.randint(0, 4, (500,), generator=torch.Generator().manual_seed(1))
    rows = torch.cat([rows, torch.tensor([[100.0, 100, 100]]), torch.ones(5, 3)])
    labels = torch.cat([labels, torch.tensor([4]), torch.full((5,), 6)])  # 4 alone, 5 empty, 6 without spread
    sigma = cluster_deviations(rows, labels, 7)
    overall = rows.double().std(0, correction=0).float()
    for cluster in range(4):
        torch.testing.assert_close(sigma[cluster], rows[labels == cluster].std(0, correction=0))
    torch.testing.assert_close(sigma[4], overall)
    torch.testing.assert_close(sigma[5], overall)
    torch.testing.assert_close(sigma[6], 0.01 * overall)
    constant = cluster_deviations(torch.zeros(9, 2), torch.zeros(9, dtype=torch.int64), 2)
    assert (constant > 0).all()


def test_irvq_unknown_selection() -> None:
    with pytest.raises(UserError, match="unweighted or weighted"):
        IRVQ(DIM, N, K, "best")


# FSQ


def test_fsq_rounds_to_its_grid(fitted: dict[str, Quantizer]) -> None:
    fsq, x = fitted["fsq"], data(500, seed=2)
    assert isinstance(fsq, FSQ)
    torch.testing.assert_close(fsq.axes.T @ fsq.axes, torch.eye(fsq.num_codebooks), atol=1e-5, rtol=0)
    levels = torch.tensor(fsq.codebook_sizes)
    grid = [
        (torch.arange(level) - (level - 1) / 2) * step for level, step in zip(levels, fsq.steps, strict=True)
    ]
    projected = (x - fsq.mean) @ fsq.axes
    codes = fsq.encode(x)
    for axis, values in enumerate(grid):
        distance = (projected[:, axis : axis + 1] - values).abs()
        picked = distance.gather(1, codes[:, axis : axis + 1])[:, 0]
        torch.testing.assert_close(picked, distance.min(1).values, atol=1e-4, rtol=0)
    # Coding what was decoded gives the same codes.
    assert torch.equal(fsq.encode(fsq.decode(codes)), codes)


def test_fsq_spends_its_bits_near_the_gaussian_bound() -> None:
    deviations = torch.tensor([8.0, 4, 2, 1, 0.5, 0.25, 0.12, 0.06])
    x = torch.randn(20000, DIM, generator=torch.Generator().manual_seed(0)) * deviations
    fsq = FSQ(DIM, bits=16)
    fsq.fit(x)
    assert 15.5 < sum(map(math.log2, fsq.codebook_sizes)) <= 16
    assert list(fsq.codebook_sizes) == sorted(fsq.codebook_sizes, reverse=True)
    mse = float((fsq.decode(fsq.encode(x)) - x).square().sum(1).mean())
    # Reverse water-filling: no code of 16 bits beats this; uniform scalar rounding costs up to 2.6 times it.
    variances = deviations.square().numpy().astype(np.float64)
    water = next(
        w
        for w in np.geomspace(1e-4, 64, 20000)
        if 0.5 * np.log2(variances / np.minimum(w, variances)).sum() <= 16
    )
    bound = np.minimum(water, variances).sum()
    assert bound < mse < 2.6 * bound


def test_allocation_is_the_best_of_all() -> None:
    random = np.random.default_rng(0)
    costs = np.log2([1, 2, 3, 4, 8])
    for _ in range(20):
        distortions = random.gamma(1, size=(3, 1)) / np.array([1, 2, 3, 4, 8]) ** 2
        chosen = allocate(distortions, costs, 5)
        every = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)
        every = every[costs[every].sum(1) <= 5 + 1e-9]
        best = distortions[np.arange(3), every].sum(1).min()
        assert costs[chosen].sum() <= 5 + 1e-9
        assert distortions[np.arange(3), chosen].sum() <= best * 1.35


def test_fsq_refuses_what_it_cannot_code() -> None:
    with pytest.raises(UserError, match="bits"):
        FSQ(4, bits=3, levels=[4, 4])
    with pytest.raises(UserError, match="number of codebooks must be a whole number from 1"):
        FSQ(4, bits=0.5)
    with pytest.raises(UserError, match="levels must be a whole number from 2"):
        FSQ(4, bits=8, levels=[1, 4])


# FAISS


def test_faiss_rq_beats_greedy_search_and_keeps_its_beam(fitted: dict[str, Quantizer]) -> None:
    rq, x = fitted["faiss_rq"], data(500, seed=2)
    assert isinstance(rq, FaissRQ)
    greedy = RVQ(DIM, N, K)
    greedy.codebooks.copy_(rq.codebooks)
    errors = {}
    for beam in (1, 5, 32):
        rq.beam = beam
        assert rq.settings() == {"beam": beam}
        errors[beam] = float((rq.decode(rq.encode(x)) - x).square().mean())
    rq.beam = 5
    assert errors[1] == pytest.approx(float((greedy.decode(greedy.encode(x)) - x).square().mean()), rel=1e-4)
    assert errors[32] <= errors[5] * 1.001 < errors[1]


def test_faiss_lsq_search_is_as_good_as_faiss_s_own(fitted: dict[str, Quantizer]) -> None:
    faiss = pytest.importorskip("faiss")
    lsq, x = fitted["faiss_lsq"], data(500, seed=2)
    assert isinstance(lsq, FaissLSQ)
    model = faiss.LocalSearchQuantizer(DIM, N, 4)
    faiss.copy_array_to_vector(lsq.codebooks.numpy().ravel(), model.codebooks)
    model.is_trained = True
    own = np.square(model.decode(model.compute_codes(x.numpy())) - x.numpy()).mean()
    assert float((lsq.decode(lsq.encode(x)) - x).square().mean()) <= own * 1.01
    # And a frame's codes do not depend on the frames around it.
    assert torch.equal(lsq.encode(x)[100:200], lsq.encode(x[100:200]))


def test_faiss_needs_powers_of_two() -> None:
    with pytest.raises(UserError, match="power of two"):
        FaissRQ(DIM, N, 100)


def test_missing_faiss_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'qincodec\[faiss\]'"):
        FaissLSQ(DIM, N, K).fit(data(100))
