"""Runs the listening page's own player in an OfflineAudioContext and hands back every sample.

Each signal has two channels of the rendering to itself: a constant 1, and its position divided by its length.
So at every instant the recording tells which signal sounds, how loud, and where in it we are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from browser_audio import ENCODE, samples

_RENDER = """
async ({ rate, length, signals, frames, looping, restart, actions }) => {
  const { Player } = await import("./static/js/player.js");
  const context = new OfflineAudioContext(2 * signals, frames, rate);
  context.destination.channelInterpretation = "discrete";
  const player = new Player(context);
  const buffers = new Map();
  for (let k = 0; k < signals; k += 1) {
    const buffer = context.createBuffer(2 * signals, length, rate);
    buffer.getChannelData(2 * k).fill(1);
    buffer.getChannelData(2 * k + 1).forEach((_, n, data) => { data[n] = n / length; });
    buffers.set(`s${k}`, buffer);
  }
  player.load({ buffers, length, looping, restart });
  const log = [];
  const steps = new Map();
  for (const [block, name, ...values] of actions) {
    steps.set(block, [...(steps.get(block) ?? []), [name, values]]);
  }
  for (let block = 1; block * 128 < frames; block += 1) {
    const due = steps.get(block) ?? [];
    if (due.length === 0 && block % 40) continue;
    context.suspend((block * 128) / rate).then(() => {
      for (const [name, values] of due) {
        player[name](...values);
        log.push({ block, name, region: player.region, heard: player.heard("s0") });
      }
      player.tick();
      context.resume();
    });
  }
  const rendered = await context.startRendering();
  player.close();
  const channels = [];
  for (let n = 0; n < rendered.numberOfChannels; n += 1) {
    channels.push(ENCODE(rendered.getChannelData(n)));
  }
  return { channels, log };
}
""".replace("ENCODE", ENCODE)


@dataclass(frozen=True)
class Rendered:
    """By frame: ``level[k]`` of signal k, and the ``position`` in the one that sounds (nan: none)."""

    level: np.ndarray
    position: np.ndarray
    log: list[dict[str, Any]]

    @property
    def signal(self) -> np.ndarray:
        """The one that sounds at each frame; -1 for silence."""
        return np.where(self.level.max(axis=0) > 0, self.level.argmax(axis=0), -1)


def render(
    page: Any,
    actions: list[tuple[Any, ...]],
    *,
    rate: int,
    seconds: float,
    length: int,
    signals: int = 3,
    looping: bool = True,
    restart: bool = False,
) -> Rendered:
    """What the player makes of ``actions``, each (block of 128 frames, method, arguments...)."""
    frames = round(seconds * rate)
    answer = page.evaluate(
        _RENDER,
        {
            "rate": rate,
            "length": length,
            "signals": signals,
            "frames": frames,
            "looping": looping,
            "restart": restart,
            "actions": [list(action) for action in actions],
        },
    )
    channels = np.stack([samples(text) for text in answer["channels"]])
    level = channels[0::2]
    with np.errstate(invalid="ignore", divide="ignore"):
        position = np.where(
            level.max(axis=0) > 1e-3, channels[1::2].sum(axis=0) / level.sum(axis=0) * length, np.nan
        )
    return Rendered(level, position, answer["log"])
