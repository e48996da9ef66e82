"""Limits of Recommendation ITU-R BS.1534-3, for making and analysing tests."""

from __future__ import annotations

MAX_EXCERPT_S = 12.0
#: Limit of signals in one trial, with hidden reference and anchors.
MAX_SIGNALS = 12
#: Least number of items of a test, and per system under test.
MIN_ITEMS = 5
ITEMS_PER_SYSTEM = 1.5

# Post-screening, section 4.1.2.

#: Points that the hidden reference should reach and the mid anchor should not exceed.
THRESHOLD = 90.0
#: Share of a listener's items that may break a rule.
MAX_SHARE = 0.15
#: An item does not count if more than this share of listeners rate its mid anchor over `THRESHOLD`.
EXEMPT_SHARE = 0.25
#: With fewer items one slip is more than `MAX_SHARE`, so the rules exclude nobody.
MIN_SCREENED_ITEMS = 7
