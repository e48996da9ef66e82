// @ts-check
/** The steps of a session: its pages, and the headphone check if the test has one. */

import { openOutputs } from "./device.js";
import { genericPage, consentPage } from "./pages/text.js";
import { finishPage } from "./pages/finish.js";
import { degradationPage } from "./pages/degradation.js";
import { bs1116Page, mushraPage } from "./pages/graded.js";
import { headphonePage } from "./pages/headphones.js";
import { likertPage } from "./pages/likert.js";
import { pairedPage } from "./pages/paired.js";
import { spatialPage } from "./pages/spatial.js";
import { volumePage } from "./pages/volume.js";
import { SoundError, soundsOf, uneven } from "./loader.js";

/** Id of the headphone check, which is not a page of the server. */
export const HEADPHONES = "headphones";

/** Types whose signals are compared and therefore must have one length. */
const COMPARED = new Set(["mushra", "bs1116", "paired_comparison", "ab", "abx"]);
/** Types before which the headphone check comes. */
const TRIALS = new Set([...COMPARED, "dcr", "likert_single_stimulus", "likert_multi_stimulus", "spatial"]);

/** @param {any} session @returns {any[]} */
export function stepsOf(session) {
  const steps = [...session.pages];
  const first = steps.findIndex((page) => TRIALS.has(page.type));
  if (session.headphone_check && first >= 0) steps.splice(first, 0, { id: HEADPHONES, type: HEADPHONES });
  return steps;
}

/**
 * The player's track for a page.
 *
 * @param {any} page
 * @param {Map<string, AudioBuffer>} buffers
 * @param {BaseAudioContext} context
 * @param {boolean} strict whether a difference in length is an error; otherwise the shortest length is used
 * @returns {import("./player.js").Track|null} null for a page without sound
 * @throws {SoundError}
 */
export function trackOf(page, buffers, context, strict) {
  if (buffers.size === 0) return null;
  const separate = !COMPARED.has(page.type) && page.type !== "volume";
  const problem = uneven(buffers, context.destination.maxChannelCount);
  if (problem && (problem.kind === "channels" || (strict && !separate))) {
    throw new SoundError(problem.kind, soundsOf(page).get(problem.signal) ?? "", problem.detail);
  }
  const channels = Math.max(...[...buffers.values()].map((buffer) => buffer.numberOfChannels));
  if (context instanceof AudioContext) openOutputs(context.destination, channels);
  return {
    buffers,
    length: Math.min(...[...buffers.values()].map((buffer) => buffer.length)),
    looping: page.type === "volume" || Boolean(page.enableLooping),
    restart: Boolean(page.switchBack),
    separate,
  };
}

/**
 * @param {any} page
 * @param {import("./trial.js").PageContext} context
 * @returns {import("./trial.js").PageView}
 */
export function viewOf(page, context) {
  switch (page.type) {
    case "consent":
      return consentPage(page, context);
    case "volume":
      return volumePage(page, context);
    case HEADPHONES:
      return headphonePage(context);
    case "mushra":
      return mushraPage(page, context);
    case "bs1116":
      return bs1116Page(page, context);
    case "paired_comparison":
    case "ab":
    case "abx":
      return pairedPage(page, context);
    case "dcr":
      return degradationPage(page, context);
    case "likert_single_stimulus":
    case "likert_multi_stimulus":
      return likertPage(page, context);
    case "spatial":
      return spatialPage(page, context);
    case "finish":
      return finishPage(page, context);
    default:
      return genericPage(page);
  }
}
