"""Limits of Recommendation ITU-R BS.1534-3, for those who make a test and those who analyse one."""

from __future__ import annotations

MAX_EXCERPT_S = 12.0
#: In one trial, hidden reference and anchors included.
MAX_SIGNALS = 12
#: Items that a test should have, and per system under test.
MIN_ITEMS = 5
ITEMS_PER_SYSTEM = 1.5

# Post-screening, section 4.1.2.

#: Points that the hidden reference should reach and the mid anchor should not exceed.
THRESHOLD = 90.0
#: Share of a listener's items on which he or she may slip.
MAX_SHARE = 0.15
#: An item whose mid anchor more than this share of listeners rate over `THRESHOLD` does not count.
EXEMPT_SHARE = 0.25
#: One slip of fewer items is more than `MAX_SHARE`: nobody is excluded by the rules alone.
MIN_SCREENED_ITEMS = 7
