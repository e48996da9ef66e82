// @ts-check
/**
 * The headphone check: three tones, one of them 6 dB softer, one with its two channels in opposite phase. Over
 * loudspeakers the latter cancels in the air and seems the softest. Six rounds; five right answers pass.
 *
 * K. J. P. Woods, M. H. Siegel, J. Traer, J. H. McDermott: Headphone screening to facilitate web-based auditory
 * experiments. Attention, Perception, & Psychophysics 79 (2017). 200 Hz, 1 s, 100 ms ramps, 0.5 s apart.
 */

import { announce, button, element } from "../dom.js";
import { raisedCosine } from "../player.js";
import { t } from "../texts.js";

const ROUNDS = 6;
const NEEDED = 5;
const TONE_HZ = 200;
const TONE_S = 1;
const RAMP_S = 0.1;
const PAUSE_S = 0.5;
const LEVEL = 0.3;
/** Failures after which a listener may continue; the result then records that the check was not passed. */
const ATTEMPTS = 2;

/**
 * One round: three tones in a row.
 *
 * @param {BaseAudioContext} context
 * @param {number} soft which of the three is 6 dB softer
 * @param {number} opposed which of the three is in opposite phase
 * @returns {AudioBuffer}
 */
export function round(context, soft, opposed) {
  const rate = context.sampleRate;
  const tone = Math.round(TONE_S * rate);
  const step = tone + Math.round(PAUSE_S * rate);
  const ramp = raisedCosine(Math.round(RAMP_S * rate));
  const buffer = context.createBuffer(2, 2 * step + tone, rate);
  for (const channel of [0, 1]) {
    const data = buffer.getChannelData(channel);
    for (let which = 0; which < 3; which += 1) {
      const sign = which === opposed && channel === 1 ? -1 : 1;
      const level = sign * LEVEL * (which === soft ? 10 ** (-6 / 20) : 1);
      for (let n = 0; n < tone; n += 1) {
        const edge = Math.min(n, tone - 1 - n);
        const gain = edge < ramp.length ? ramp[edge] : 1;
        data[which * step + n] = level * gain * Math.sin((2 * Math.PI * TONE_HZ * n) / rate);
      }
    }
  }
  return buffer;
}

/** All pairs (soft, opposed), shuffled: each tone is the right answer twice. */
function shuffledRounds() {
  const rounds = [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]];
  for (let n = rounds.length - 1; n > 0; n -= 1) {
    const other = Math.floor(Math.random() * (n + 1));
    [rounds[n], rounds[other]] = [rounds[other], rounds[n]];
  }
  return rounds.slice(0, ROUNDS);
}

/**
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function headphonePage(context) {
  const { player } = context;
  /** @type {boolean[]} */
  let answers = [];
  let attempts = 0;
  let rounds = shuffledRounds();
  /** @type {{passed: boolean, answers: boolean[]}|null} */
  let outcome = context.draft.headphone_check ?? null;
  const status = element("p", { class: "round", role: "status" });
  const play = button(t("playTones"), () => player.play("tones"), { class: "play wide" });
  const choices = [1, 2, 3].map((number) => button(t("tone", { n: number }), () => choose(number - 1)));
  const group = element("div", { class: "choices", role: "group", "aria-label": t("softest") }, ...choices);
  const after = element("div", { class: "choices" });

  const show = () => {
    const running = outcome === null;
    play.hidden = !running;
    group.hidden = !running;
    after.replaceChildren();
    if (running) {
      status.textContent = t("headphoneRound", { n: answers.length + 1, total: ROUNDS });
      const [soft, opposed] = rounds[answers.length];
      const buffer = round(player.context, soft, opposed);
      const buffers = new Map([["tones", buffer]]);
      player.load({ buffers, length: buffer.length, looping: false, restart: false });
      for (const choice of choices) choice.disabled = true;
    } else if (outcome?.passed) status.textContent = t("headphonePassed");
    else {
      status.textContent = t(attempts < ATTEMPTS ? "headphoneFailed" : "headphoneGoOn");
      after.append(button(t("again"), restart, { class: "primary" }));
    }
  };
  const end = (/** @type {boolean} */ passed) => {
    player.load(null);
    attempts += 1;
    outcome = { passed, answers };
    context.changed();
    show();
    announce(status.textContent ?? "");
  };
  const restart = () => {
    answers = [];
    rounds = shuffledRounds();
    outcome = null;
    context.changed();
    show();
    play.focus();
  };
  const choose = (/** @type {number} */ which) => {
    if (choices[0].disabled) return;
    answers.push(which === rounds[answers.length][0]);
    if (answers.length === ROUNDS) end(answers.filter(Boolean).length >= NEEDED);
    else {
      show();
      play.focus();
    }
  };
  player.addEventListener("ended", () => {
    for (const choice of choices) choice.disabled = outcome !== null;
  }, { signal: context.signal });
  show();
  return {
    content: [element("p", { text: t("headphoneText") }), status, play, group, after],
    missing: () => (outcome?.passed || (outcome && attempts >= ATTEMPTS) ? [] : [t("headphoneMissing")]),
    result: () => (outcome ? { headphone_check: outcome } : {}),
    key: (event) => {
      if (outcome) return false;
      if (event.key === " " || event.key === "0") player.play("tones");
      else if (/^[123]$/.test(event.key)) choose(Number(event.key) - 1);
      else return false;
      return true;
    },
  };
}
