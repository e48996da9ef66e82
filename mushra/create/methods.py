"""What a trial of each method is in the YAML, and what it asks of a listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mushra.config.methods import NO_PREFERENCE, QUALITY, Method
from mushra.config.pages import HIDDEN_REFERENCE, Language

#: Pages (ACR: sounds) in one session; more tire a listener.
MANY_PAGES = 60


def trial_page(
    method: Method,
    files: dict[str, tuple[str, str, str]],
    language: Language,
    *,
    loop: bool,
    show_reference: bool,
    presentations: int,
) -> dict[str, Any]:
    """Keys of a trial's page besides id and texts.

    Args:
        method: of the test.
        files: condition -> (name in the YAML, path, SHA-256), as of `mushra.create.documents.Trial`.
        language: of answers that the YAML has words for.
        loop: let listeners set a loop, where the method has one.
        show_reference: AB: with the reference.
        presentations: ABX: of each pair.
    """
    reference = {"reference": files[HIDDEN_REFERENCE][1]}
    systems = dict(sorted(entry[:2] for condition, entry in files.items() if condition != HIDDEN_REFERENCE))
    player = {"showWaveform": True, "enableLooping": loop}
    match method:
        case "mushra":
            made = {"createAnchor35": False, "createAnchor70": False, "randomize": True}
            shown = {"showConditionNames": False, "stimuli": systems}
            return {"type": "mushra", **player, **reference, **made, **shown}
        case "bs1116":
            return {"type": "bs1116", **player, **reference, "stimuli": systems}
        case "ab":
            shown = {**player, **reference} if show_reference else {"enableLooping": loop}
            return {"type": "ab", **shown, "unforced": NO_PREFERENCE[language], "stimuli": systems}
        case "abx":
            looped = {"enableLooping": loop, **reference}
            return {"type": "abx", **looped, "trials": presentations, "stimuli": systems}
        case "dcr":
            return {"type": "dcr", **reference, "stimuli": systems}
        case "acr":
            values = zip("54321", QUALITY[language], strict=True)
            return {
                "type": "likert_single_stimulus",
                "showWaveform": False,
                "mustRate": True,
                "mustPlayback": "ended",
                "stimuli": dict(sorted(entry[:2] for entry in files.values())),
                "response": [{"value": value, "label": label} for value, label in values],
            }


@dataclass(frozen=True)
class Effort:
    """What one item asks of a listener: ``times`` pages (ACR: sounds on one page), and what they are of."""

    times: int
    unit: str
    of: str


def effort(method: Method, n_systems: int, presentations: int) -> Effort:
    """Of an item with that many systems; ``presentations``: ABX, of each pair."""
    match method:
        case "ab":
            return Effort(n_systems * (n_systems - 1) // 2, "page", "pair")
        case "abx":
            return Effort(n_systems * presentations, "page", "presentation" if presentations > 1 else "pair")
        case "bs1116" | "dcr":
            return Effort(n_systems, "page", "system")
        case "acr":
            return Effort(n_systems + 1, "sound", "signal")
    return Effort(1, "page", "page")
