"""Each method's trial in the YAML, and its effort for a listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mushra.config.methods import NO_PREFERENCE, QUALITY, Method
from mushra.config.pages import HIDDEN_REFERENCE, Language

#: More pages (ACR: sounds) than this in one session tire a listener.
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
        language: language of the answers in the YAML.
        loop: let listeners set a loop, if the method has one.
        show_reference: AB: also play the reference.
        presentations: ABX: presentations of each pair.
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
    """Effort of one item: ``times`` pages (ACR: sounds on one page); ``of`` names what each one is for."""

    times: int
    unit: str
    of: str


def effort(method: Method, n_systems: int, presentations: int) -> Effort:
    """Effort of an item with that many systems; ``presentations``: of each pair in ABX."""
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
