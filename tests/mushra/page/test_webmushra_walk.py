"""What `make test-webmushra` does with a checkout, on a stand-in for one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from webmushra_standin import make_checkout
from webmushra_walk import compare, take

pytestmark = pytest.mark.slow

NODE = Path(__file__).parents[2] / "node" / "node_modules" / "yamljs"


@pytest.mark.skipif(not NODE.exists(), reason="needs tests/node/node_modules (`make setup-dev`)")
@pytest.mark.skipif(shutil.which("php") is None, reason="needs PHP: apt-get install php-cli")
def test_a_checkout_is_walked_through_and_compared_with_php(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    taken = take(open_page(), checkout, "default.yaml", tmp_path)
    assert list(taken.files) == ["stand-in/mushra.csv"]
    compare(taken, checkout, tmp_path / "php")
    write = checkout / "service" / "write.php"
    write.write_text(write.read_text().replace("$one->score,", "$one->score . '0',"))
    with pytest.raises(AssertionError, match="differs from PHP's"):
        compare(taken, checkout, tmp_path / "other")
