"""YAML as people write it for webMUSHRA, with every type of page: what yaml.js reads in it is right."""

from __future__ import annotations

_ALL = r"""
testname: Default test
testId: default_test
bufferSize: 2048
stopOnErrors: true
showButtonPreviousPage: true
remoteService: service/write.php
pages:
    - type: generic
      id: first_page
      name: Welcome
      content: Welcome to the test
=====
testname: Two colons: one line
testId: 2024_01
=====
testId: 18_27
=====
testId: 010
=====
testId: 1e3
=====
testId: 0x10
=====
testId: 1:30
=====
testId: 12:30:45
=====
testId: yes
stopOnErrors: no
=====
testId: 1.10
bufferSize: 4096
=====
testId: 2024-01-02
=====
testId: 007
name: +5
=====
testname: "Quoted: with colon"
testId: 'single'
=====
testname: 'It''s here'
content: "She said \"hi\" \\ and left"
=====
testname: "tab\tand\nline"
=====
testname: Ünïcödé — 音声 🎧
testId: ä
=====
testname: Trailing comment # not part of it
testId: a#b
=====
# first comment
testname: x # second
# third
testId: y
=====
testname: x
content:
name:
=====
name: null
content: ~
id: Null
=====
pages:
- type: generic
  id: a
- type: generic
  id: b
=====
pages:
  -
    type: generic
    id: a
  -
    type: generic
    id: b
=====
pages:
    -
        - random
        - type: mushra
          id: trial1
        - type: mushra
          id: trial2
    - type: finish
      name: End
=====
pages:
  -
    - random
    -
      - type: generic
        id: intro
      - type: mushra
        id: t1
=====
pages:
  - type: consent
    id: c
    name: Consent: please read
    content: I agree that: (a) my data are stored, (b) nothing else.
    mustConsent: true
=====
pages:
  - type: generic
    id: g
    content: <h1>Hello</h1><p style="color: red">Text, with: colons; and #hash</p>
=====
pages:
  - type: generic
    id: g
    content: |
      <h1>Hello</h1>
      <p>First: line</p>

      <p>Second "line"</p>
    name: After
=====
pages:
  - type: generic
    content: >
      folded
      text

      with a break
    name: After
=====
content: |-
  no end
name: x
=====
content: >-
  no
  end
name: x
=====
content: |+
  kept

name: x
=====
content: |
  one
    deeper
  two
=====
content: Many lines of text
  that go on here
  and here.
name: x
=====
content: "Quoted text
  over two lines"
name: x
=====
content: 'Quoted text: one
  two'
=====
- type: volume
  id: v
  name: Volume
  content: Set it: now!
  stimulus: configs/resources/audio/ref.wav
  defaultVolume: 0.5
=====
type: mushra
id: trial_1_pink
name: Pink noise (10 s), 75 %
content: test description
showWaveform: true
enableLooping: true
reference: configs/resources/audio/pink.wav
createAnchor35: true
createAnchor70: false
strict: false
switchBack: true
randomize: false
showConditionNames: true
stimuli:
    C1: configs/resources/audio/pink_c1.wav
    C2: configs/resources/audio/pink_c2.wav
    C 3: configs/resources/audio/pink_c3.wav
=====
stimuli:
    "cond: a": a.wav
    'cond_b': b.wav
    1: c.wav
    1.5: d.wav
    yes: e.wav
=====
stimuli: {C1: a.wav, C2: b.wav}
=====
stimuli: { C1: a.wav , C2: "b c.wav" }
=====
stimuli: {C1: 'a, b.wav', "C2": b.wav}
=====
stimuli: {a:a.wav, b:b.wav}
=====
- {type: bs1116, id: b, showWaveform: true, enableLooping: true, reference: r.wav, stimuli: {C: c.wav}}
- {type: paired_comparison, id: p, unforced: I cannot tell, reference: r.wav, stimuli: {C: c.wav}}
=====
type: paired_comparison
unforced: neither: both sound alike
content: Which one is it: A or B?
=====
type: likert_multi_stimulus
id: lms
mustRate: true
mustPlayback: ended
showWaveform: true
stimuli:
  C1: a.wav
response:
  - value: 1
    label: not at all
    img: img/1.png
    imgSelected: img/1s.png
    imgHigherResponseSelected: img/1h.png
  - value: 2
    label: very: much
maxStimuli: 3
=====
type: likert_single_stimulus
mustPlayback: processUpdate
mustRate: false
response: [{value: 18_27, label: 18 to 27}, {value: 1:30, label: half past one}, {value: yes}, {value: 010}]
=====
response:
  - - {value: bad, label: Bad}
    - {value: good, label: Good}
  - - {value: dull, label: Dull}
=====
response:
  -
    - value: bad
      label: Bad
    - value: good
  -
    - value: 1
    - value: 2
=====
type: spatial
id: s
framerate: 24
numberofLocObj: 2
roomMeasurements: {width: 3.2, length: 4, height: 2.5}
stimuli:
  A: a.wav
responses: [{name: loc, type: 3d}]
views: [top, side]
objects: []
=====
type: finish
name: Thank you
content: Thank you for attending!
popupContent: Your results were sent. Goodbye: and thank you!
showResults: true
writeResults: true
showErrors: false
questionnaire:
    - type: text
      label: eMail
      name: email
      optional: true
    - type: number
      label: Age
      name: age
      min: 0
      max: 100
      default: 30
    - type: likert
      name: gender
      response:
        - value: female
          label: Female
        - value: male
          label: Male
    - type: long_text
      label: Comments: anything?
      name: comments
=====
label: - none
a: > 5 years
b: < 5 years
c: % of all
d: @home
e: ? perhaps
f: ] x
g: , y
h: |x|
i: } z
=====
label: What is *this*?
name: R&B
content: 5 > 3 & 2 < 4
=====
a: [1, two, "three, four", 'five']
b: []
c: {}
=====
a: [[1, 2], [3], {b: c}]
d: {e: [1, 2], f: {g: h}}
=====
a: [one,
  two, three]
b: {c: d,
  e: f}
=====
testname: x
testname: y
a: {b: 1, b: 2}
=====
a: &anchor
  b: c
  d: 1
e: *anchor
f:
  <<: *anchor
  g: h
=====
a: &x text
b: *x
c:
  - *x
=====
---
testname: x
testId: y
...
=====
testname: x

testId: y


pages:
  - type: generic

    id: a

  - type: generic
=====
  testname: indented
  testId: whole
=====
testname:    many   blanks
testId:	tab
=====
url: http://localhost:8000/service/write.php
path: C:\folder\file.wav
time: 10:30
=====
key with blanks: value
key-with-dash: a
key.with.dot: b
key_under: c
"quoted key": d
=====
a: true
b: True
c: FALSE
d: on
e: off
f: 1
g: -1
h: 0.25
i: -0.5
j: 1e-3
k: .5
l: 5.
=====
language: en
content: <a href="http://x.org/?a=1&b=2">link</a>
=====
- random
- a
-
- b
=====
{"testname": "JSON", "testId": "j", "pages": [{"type": "generic", "id": "a", "content": "x: y"}]}
=====
questionnaire:
  - {type: likert, name: age, label: Age: in years, response: [{value: 18_27, label: 18-27}, {value: 28_37}]}
=====
content: text
# a comment between
name: x
  # an indented one
id: y
=====
popupcontent: old spelling
mushraImg: x.png
=====
mustPlayback: false
unforced: ""
name: ''
=====
pages:
  - type: mushra
    stimuli:
      a: a.wav
    # comment at the end of the page
  - type: finish
"""

SNIPPETS = [snippet.strip("\n") + "\n" for snippet in _ALL.split("\n=====\n")]
