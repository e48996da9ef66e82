"""`evaluate` at nominal rates, for tests of what happens at operating points, whatever found them."""

from __future__ import annotations

from functools import partial

import evaluation

evaluate = partial(evaluation.evaluate, match="nominal")
