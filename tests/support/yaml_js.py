"""What yaml.js, the parser that webMUSHRA bundles, reads in YAML: asked in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_NODE = Path(__file__).parent.parent / "node"

#: Reads a list of documents. "typed" is what yaml.js gives (dates as {"date": ...}), "text" the same with the
#: text of the file for all that has no quotes; a document it refuses has only "error".
_SCRIPT = """
const yaml = require("yamljs");
const Inline = require("yamljs/lib/Inline");
const own = Inline.evaluateScalar;
const plain = (text) => {
  const trimmed = text.trim();
  return ["null", "", "~"].includes(trimmed.toLowerCase()) ? null : trimmed;
};
const dated = (value) =>
  value instanceof Date ? { date: value.getTime() }
  : Array.isArray(value) ? value.map(dated)
  : value && typeof value === "object"
  ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, dated(inner)]))
  : typeof value === "number" && !Number.isFinite(value) ? { number: String(value) }
  : value;
const read = (text) => {
  try {
    Inline.evaluateScalar = own;
    const typed = dated(yaml.parse(text));
    Inline.evaluateScalar = plain;
    return { typed, text: dated(yaml.parse(text)) };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
};
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(texts.map(read)));
"""


def read_all(texts: list[str]) -> list[dict[str, Any]]:
    """For each document ``{"typed": ..., "text": ...}`` or ``{"error": ...}``, see above."""
    node = shutil.which("node")
    if node is None or not (_NODE / "node_modules" / "yamljs").exists():
        pytest.skip("needs Node and tests/node/node_modules (`make setup-dev`): webMUSHRA's parser is asked")
    done = subprocess.run(
        [node, "-e", _SCRIPT], input=json.dumps(texts), cwd=_NODE, capture_output=True, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers
