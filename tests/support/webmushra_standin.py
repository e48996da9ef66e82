"""A small checkout with the outside of webMUSHRA, made from what is documented: own page, own `write.php`.

It tests what walks through a checkout, not that webMUSHRA itself is walked through.
"""

from __future__ import annotations

import shutil
from pathlib import Path

CONFIG = """\
testname: Stand-in
testId: Stand In
remoteService: service/write.php
pages:
  - {type: generic, id: hello, name: Welcome, content: Hello}
  - type: mushra
    id: trial one
    name: Rate
    reference: sounds/ref.wav
    createAnchor35: false
    createAnchor70: false
    stimuli: {A: sounds/a.wav, B: sounds/b.wav}
  - type: finish
    name: Thanks
    questionnaire:
      - {type: text, label: Initials, name: initials}
"""
INDEX = """\
<!doctype html><meta charset="utf-8"><title>Stand-in</title><link rel="icon" href="data:,">
<div id="page"></div>
<script src="lib/yaml.js"></script><script src="lib/page.js"></script>
"""
PAGE = """\
const name = new URLSearchParams(location.search).get("config") ?? "default.yaml";
const box = document.getElementById("page");
const make = (tag, fields) => box.appendChild(Object.assign(document.createElement(tag), fields));
const session = { trials: [], participant: { name: [], response: [] }, uuid: "standin-1", config: name };
fetch("configs/" + name).then((answer) => answer.text()).then((text) => {
  const test = YAML.parse(text);
  session.testId = test.testId;
  const show = (index) => {
    box.textContent = "";
    const page = test.pages[index];
    make("h1", { textContent: page.name });
    let leave = () => show(index + 1);
    if (page.type === "mushra") {
      const names = ["reference", ...Object.keys(page.stimuli)];
      const sliders = [];
      const done = (one) => one.dataset.heard && one.dataset.moved;
      const next = () => { button.disabled = !sliders.every(done); };
      for (const one of names) {
        const url = one === "reference" ? page.reference : page.stimuli[one];
        const play = make("button", { textContent: "Play" });
        const slider = make("input", { type: "range", min: 0, max: 100, value: 100 });
        play.onclick = () => fetch(url).then((answer) => {
          if (answer.ok) slider.dataset.heard = "1";
          next();
        });
        slider.oninput = () => { slider.dataset.moved = "1"; next(); };
        sliders.push(slider);
      }
      leave = () => {
        const responses = names.map((stimulus, n) =>
          ({ stimulus, score: sliders[n].value, comment: "a, b", time: 4321 }));
        session.trials.push({ id: page.id, type: "mushra", responses });
        show(index + 1);
      };
    }
    const fields = (page.questionnaire ?? []).map((one) => [one.name, make("input", { type: "text" })]);
    if (page.type === "finish") {
      leave = () => {
        for (const [key, field] of fields) {
          session.participant.name.push(key);
          session.participant.response.push(field.value);
        }
        const headers = { "Content-Type": "application/x-www-form-urlencoded" };
        const body = "sessionJSON=" + JSON.stringify(session);
        fetch(test.remoteService, { method: "POST", headers, body });
      };
    }
    const button = make("button", { textContent: page.type === "finish" ? "Send Results" : "Next" });
    button.disabled = page.type === "mushra";
    button.onclick = () => leave();
  };
  show(0);
});
"""
WRITE = """\
<?php
$session = json_decode($_POST["sessionJSON"]);
$folder = __DIR__ . "/../results/" . preg_replace('/[^\\\\w-]/', "-", strtolower($session->testId));
@mkdir($folder, 0777, true);
$file = $folder . "/mushra.csv";
$rows = [];
if (!is_file($file)) {
  $rows[] = array_merge(["session_test_id"], $session->participant->name, ["session_uuid", "trial_id",
    "rating_stimulus", "rating_score", "rating_time", "rating_comment"]);
}
foreach ($session->trials as $trial) {
  foreach ($trial->responses as $one) {
    $rows[] = array_merge([$session->testId], $session->participant->response,
      [$session->uuid, $trial->id, $one->stimulus, $one->score, $one->time, $one->comment]);
  }
}
$out = fopen($file, "a");
foreach ($rows as $row) fputcsv($out, $row);
"""


def make_checkout(folder: Path) -> Path:
    """The stand-in with one sample file; needs tests/node/node_modules for the YAML parser."""
    parser = Path(__file__).parent.parent / "node" / "node_modules" / "yamljs" / "dist" / "yaml.js"
    for path, text in {
        "index.html": INDEX,
        "lib/page.js": PAGE,
        "configs/default.yaml": CONFIG,
        "service/write.php": WRITE,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    shutil.copyfile(parser, folder / "lib" / "yaml.js")
    return folder
