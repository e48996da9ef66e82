"""Takes a listening test in a browser, as a person would: with the mouse, or with the keyboard alone."""

from __future__ import annotations

from typing import Any

#: Adds up, on the page's own display of the position, how long something has sounded.
HEARD = """
(wanted) => {
  const read = () => {
    const [now, all] = document.querySelector(".wave-time").textContent.split(" / ").map((text) => {
      const [minutes, seconds] = text.split(":");
      return 60 * Number(minutes) + Number(seconds);
    });
    return { now, all };
  };
  return new Promise((resolve) => {
    let { now: before } = read();
    let sum = 0;
    const timer = setInterval(() => {
      const { now, all } = read();
      sum += (now - before + all) % all;
      before = now;
      // An excerpt without a loop has ended: once more.
      document.querySelector(".current[aria-pressed=false]")?.click();
      if (sum >= wanted) { clearInterval(timer); resolve(); }
    }, 20);
  });
}
"""


def start(page: Any, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Start", exact=True).click()


def shown(page: Any, kind: str) -> None:
    """Waits until a page of that type is shown and takes input."""
    page.wait_for_selector(f"[data-type={kind}] .next:enabled")


def leave(page: Any) -> None:
    page.locator(".next").click()


def scale(page: Any, n: int) -> Any:
    """Scale of the n-th item, from 1."""
    return page.locator(".item").nth(n - 1).get_by_role("slider")


def listen(page: Any, seconds: float = 0.6) -> None:
    """Waits until something has sounded for so long; on a busy machine that takes longer than the time."""
    page.evaluate(HEARD, seconds)


def rate_with_mouse(page: Any, n: int, score: int) -> None:
    """Plays item n and drags its scale to a score."""
    page.locator(".item .play").nth(n - 1).click()
    track = page.locator(".item").nth(n - 1).locator(".scale-track")
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] * (1 - score / 100), steps=4)
    page.mouse.up()
    listen(page)


def rate_with_keys(page: Any, n: int, score: int) -> None:
    """The same from the keyboard: from the middle in steps of 10 and 1."""
    page.keyboard.press(str(n))
    page.keyboard.press("ArrowUp")  # unset -> 50
    away = score - 50
    for _ in range(abs(away) // 10):
        page.keyboard.press("Shift+ArrowUp" if away > 0 else "Shift+ArrowDown")
    for _ in range(abs(away) % 10):
        page.keyboard.press("ArrowRight" if away > 0 else "ArrowLeft")
    listen(page)


def tab_to(page: Any, selector: str, most: int = 60) -> None:
    """Presses Tab until what has the focus matches."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


def results_when_saved(page: Any) -> None:
    """Waits until the page says that everything is confirmed."""
    page.wait_for_selector(".state:text-is('Saved')")
