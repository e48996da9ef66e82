"""What the player renders, sample by sample, against the standard's words (ITU-R BS.1534-3)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from offline_player import Rendered, render

FADE_S = 0.005
LEAD_S = 0.02
RATES = (44100, 48000, 96000)


@pytest.fixture(scope="module")
def blank(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A page of the server on which no test runs."""
    from listening_material import GENERIC
    from listening_site import Site

    site = Site(tmp_path_factory.mktemp("player"), [GENERIC])
    context = launch().new_context()
    page = context.new_page()
    page.goto(site.url + "static/icon.svg")
    # From here "./static/js" is where the listening page has it.
    page.evaluate("history.replaceState(null, '', '/')")
    yield page
    context.close()
    site.close()


def fade_frames(rate: int) -> int:
    return math.floor(FADE_S * rate + 0.5)


def fade(rate: int) -> np.ndarray:
    """5 ms of a raised cosine from 0 to 1, by its formula."""
    n = fade_frames(rate)
    return (1 - np.cos(np.pi * np.arange(n) / n)) / 2


def asked(block: int, rate: int) -> int:
    """Frame at which a change asked for in a block happens."""
    return math.ceil(block * 128 + LEAD_S * rate - 1e-6)


def rendered(
    page: Any, rate: int, actions: list[tuple[Any, ...]], seconds: float = 2.0, **keys: Any
) -> Rendered:
    return render(page, actions, rate=rate, seconds=seconds, **{"length": rate, **keys})


@pytest.mark.parametrize("rate", RATES)
def test_a_switch_is_what_the_standard_says(blank: Any, rate: int) -> None:
    first, second, third = 10, 100, 200
    result = rendered(blank, rate, [(first, "play", "s0"), (second, "play", "s1"), (third, "pause")], 0.9)
    begin, switch, end = (asked(block, rate) for block in (first, second, third))
    rise = fade(rate)
    n = rise.size
    expected = np.zeros_like(result.level)
    expected[0, begin:switch] = 1
    expected[0, begin : begin + n] = rise
    expected[0, switch : switch + n] = 1 - rise
    expected[1, switch + n : end] = 1
    expected[1, switch + n : switch + 2 * n] = rise
    expected[1, end : end + n] = 1 - rise
    assert np.abs(result.level - expected).max() < 2e-5
    # Both play the same place of the excerpt, to the frame: time runs on through the switch.
    audible = ~np.isnan(result.position)
    frames = np.arange(result.position.size)[audible]
    assert np.abs(result.position[audible] - (frames - begin)).max() < 0.05
    below_full = np.flatnonzero(result.level.max(axis=0)[begin + n : end] < 0.9999)
    assert below_full.size / rate <= 0.012


@pytest.mark.parametrize("rate", RATES)
def test_a_loop_has_its_edges_faded_and_never_drifts(blank: Any, rate: int) -> None:
    start, end = round(0.2 * rate), round(0.75 * rate)
    result = rendered(blank, rate, [(5, "setRegion", start, end), (6, "play", "s0")], 3.6, signals=1)
    begin = asked(6, rate)
    n = fade_frames(rate)
    passes = (result.level.shape[1] - begin) // (end - start)
    assert passes >= 6
    once = np.concatenate([fade(rate), np.ones(end - start - 2 * n), 1 - fade(rate)])
    played = result.level[0, begin : begin + passes * (end - start)].reshape(passes, -1)
    assert np.abs(played - once).max() < 2e-5
    middle = result.position[begin : begin + passes * (end - start)].reshape(passes, -1)[:, n:-n]
    assert np.abs(middle - np.arange(start + n, end - n)).max() < 0.1


def test_a_changed_end_of_the_loop_does_not_interrupt(blank: Any) -> None:
    rate = 48000
    actions = [(5, "play", "s0"), (60, "setRegion", 0, 40000), (90, "setRegion", 0, 30000)]
    result = rendered(blank, rate, actions, 1.2)
    begin = asked(5, rate)
    n = fade_frames(rate)
    assert result.level[0, begin + n : begin + 30000 - n].min() > 0.9999
    assert result.level[0, begin + 30000] == 0
    assert abs(result.position[begin + 30000 + n] - n) < 0.05


def test_an_excerpt_without_a_loop_ends_and_begins_again(blank: Any) -> None:
    rate = 44100
    actions = [(5, "play", "s0"), (480, "play", "s1")]
    result = rendered(blank, rate, actions, 2.2, looping=False)
    begin, again = asked(5, rate), asked(480, rate)
    assert result.level[:, begin + rate : again].max() == 0
    assert result.log[1]["heard"] == pytest.approx(1000, abs=1)
    assert abs(result.position[again + 1000] - 1000) < 0.05


def test_switching_back_begins_the_region_again(blank: Any) -> None:
    rate = 48000
    actions = [(5, "play", "s0"), (200, "play", "s1")]
    result = rendered(blank, rate, actions, 1.0, restart=True)
    switched = asked(200, rate) + fade_frames(rate)
    assert abs(result.position[switched + 500] - 500) < 0.05


def test_pause_and_resume_go_on_in_the_same_place(blank: Any) -> None:
    rate = 48000
    actions = [(5, "play", "s0"), (100, "pause"), (250, "resume")]
    result = rendered(blank, rate, actions, 1.2)
    stopped, resumed = asked(100, rate), asked(250, rate)
    assert result.level[:, stopped + 240 : resumed].max() == 0
    assert abs(result.position[resumed + 500] - (result.position[stopped] + 500)) < 0.1


def test_a_region_is_never_shorter_than_half_a_second(blank: Any) -> None:
    rate = 48000
    cases = [
        (0, 10, "end"),
        (47000, 48000, "start"),
        (20000, 20001, "end"),
        (40000, 1000, "start"),
        (-5, 9e9, "end"),
    ]
    actions = [(5 + n, "setRegion", *case) for n, case in enumerate(cases)]
    result = rendered(blank, rate, actions, 0.2)
    for entry in result.log:
        start, end = entry["region"]
        assert 0 <= start < end <= rate
        assert end - start >= rate // 2


def random_actions(rng: random.Random, rate: int, blocks: int) -> list[tuple[Any, ...]]:
    actions: list[tuple[Any, ...]] = [(2, "play", "s0")]
    block = 3
    while block < blocks:
        kind = rng.random()
        if kind < 0.6:
            actions.append((block, "play", f"s{rng.randrange(3)}"))
        elif kind < 0.7:
            actions += [(block, "pause"), (block + rng.randrange(1, 30), "resume")]
        elif kind < 0.8:
            actions.append((block, "seek", rng.randrange(rate)))
        else:
            actions.append(
                (block, "setRegion", rng.randrange(rate), rng.randrange(rate), rng.choice(["start", "end"]))
            )
        # From bursts within a fade to seconds.
        block += rng.choice([0, 1, 1, 2, 3, 8, 20, 90, 300])
    return sorted(actions, key=lambda action: action[0])


def check_invariants(result: Rendered, rate: int) -> None:
    """Never two at once, never a click, never out of step."""
    assert np.count_nonzero(result.level > 1e-6, axis=0).max() <= 1
    total = result.level.sum(axis=0)
    assert total.max() <= 1.00001
    assert total.min() >= -1e-6
    steepest = np.pi / 2 / fade_frames(rate)
    # Two fades at once (a switch inside a fade) are at most twice as steep as one.
    assert np.abs(np.diff(total)).max() <= 2 * steepest * 1.01
    runs = ~np.isnan(result.position[1:]) & ~np.isnan(result.position[:-1])
    same = runs & (result.signal[1:] == result.signal[:-1])
    assert np.abs(np.diff(result.position)[same] - 1).max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_listener_presses(blank: Any, seed: int) -> None:
    rate = RATES[seed % 3]
    rng = random.Random(seed)
    actions = random_actions(rng, rate, blocks=round(2.2 * rate / 128))
    check_invariants(rendered(blank, rate, actions, 2.5), rate)


def test_a_switch_right_after_a_pause_waits_for_its_fade(blank: Any) -> None:
    rate = 96000
    actions = [(2, "play", "s0"), (60, "pause"), (61, "play", "s1"), (62, "pause"), (62, "play", "s2")]
    check_invariants(rendered(blank, rate, actions, 0.3), rate)


def test_a_pause_right_after_a_switch_at_the_loops_edge_waits_for_it(blank: Any) -> None:
    rate = 48000  # the loop's edge is 12 ms behind the switch and makes it; pause and play come before that
    edge = asked(4, rate) + rate // 2
    switch = math.floor((edge - 0.012 * rate - LEAD_S * rate) / 128)
    actions = [(3, "setRegion", 0, rate // 2), (4, "play", "s0"), (switch, "play", "s1")]
    result = rendered(blank, rate, [*actions, (switch + 1, "pause"), (switch + 1, "play", "s2")], 0.8)
    check_invariants(result, rate)
    assert result.level[2, edge + fade_frames(rate)] > 0.9999


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_whatever_many_listeners_press(blank: Any, seed: int) -> None:
    rate = RATES[seed % 3]
    rng = random.Random(seed)
    actions = random_actions(rng, rate, blocks=round(9 * rate / 128))
    check_invariants(rendered(blank, rate, actions, 10.0, looping=seed % 5 != 0), rate)


def test_a_switch_never_leaves_a_longer_gap(blank: Any) -> None:
    """Switches at all phases of a loop of half a second, its edges included."""
    rate = 48000
    n = fade_frames(rate)
    blocks = [40 + 47 * k for k in range(28)]  # 125.3 ms apart: 47 blocks against 187.5 of the loop
    actions = [(3, "setRegion", 0, rate // 2), (4, "play", "s0")]
    actions += [(block, "play", f"s{k % 3}") for k, block in enumerate(blocks, start=1)]
    result = rendered(blank, rate, actions, 4.0)
    check_invariants(result, rate)
    total = result.level.sum(axis=0)[asked(4, rate) + n : asked(blocks[-1], rate)]
    low = np.flatnonzero(np.diff(np.concatenate([[0], (total < 0.9999).astype(int), [0]])))
    gaps = (low[1::2] - low[0::2]) / rate
    assert gaps.size > 28
    assert gaps.max() <= 0.012
