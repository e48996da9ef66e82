// @ts-check
/**
 * Plays the signals of one page, sample-accurately.
 *
 * Every stretch of sound is a "pass": one AudioBufferSourceNode that starts at a whole frame of the context's
 * clock, with its fades as gain curves at whole frames. A loop is a row of passes that are scheduled ahead. So
 * neither the edges of a loop nor a switch depends on when a timer fires. A switch fades one signal out and then the
 * other in, never both at once. The position advances meanwhile, so that it is the same for all signals.
 *
 * It uses buffer sources and not an AudioWorklet: browsers allow worklets on secure origins only, and a listening
 * lab often uses plain http on a local network.
 */

/** Duration of a fade in or out in seconds (ITU-R BS.1534-3). */
export const FADE_S = 0.005;
/** Shortest loop in seconds (ITU-R BS.1534-3). */
export const MIN_LOOP_S = 0.5;
/** Seconds that are always scheduled ahead: background tabs run timers once a second. */
const AHEAD_S = 3;
/** Least seconds between a request and its change, which must lie ahead of the renderer. */
const LEAD_S = 0.02;

/**
 * @typedef {Object} Track sounds of a page
 * @property {Map<string, AudioBuffer>} buffers by the signal's id, all at the context's rate
 * @property {number} length in frames, of the shortest buffer
 * @property {boolean} looping
 * @property {boolean} [restart] whether a switch goes back to the beginning of the region
 * @property {boolean} [separate] whether each signal plays from its beginning at its own length, without comparison
 */

/**
 * @typedef {Object} Pass
 * @property {number} from frame of the clock at which it begins
 * @property {number} until frame of the clock at which it has ended
 * @property {number} position frame of the signal at which it begins
 * @property {AudioBufferSourceNode} source
 * @property {GainNode} edge fades at its beginning and end
 * @property {GainNode} leave fade when it is stopped early
 */

/**
 * Half a period of a raised cosine from 0 to 1, one point per frame.
 *
 * @param {number} frames
 * @returns {Float32Array}
 */
export function raisedCosine(frames) {
  return Float32Array.from({ length: frames + 1 }, (_, n) => 0.5 - 0.5 * Math.cos((Math.PI * n) / frames));
}

/** Fires `change` when the signal, the region or the volume changes, and `ended` at the end without a loop. */
export class Player extends EventTarget {
  /** @param {BaseAudioContext} context */
  constructor(context) {
    super();
    this.context = context;
    this.rate = context.sampleRate;
    /** Id of the signal that plays or played last; null before the first. @type {string|null} */
    this.current = null;
    this.playing = false;
    /** First frame of the region and the frame after its last. @type {[number, number]} */
    this.region = [0, 0];
    /** @type {Track|null} */
    this.track = null;
    this.volume = 1;
    this._fade = Math.round(FADE_S * this.rate);
    this._rise = raisedCosine(this._fade);
    this._fall = this._rise.slice().reverse();
    this._held = 0;
    this._since = 0;
    /** Frame of the clock at which all stopped passes have faded out. */
    this._quiet = 0;
    /** @type {Map<string, number>} */
    this._heard = new Map();
    /** Passes of the signal that plays, by time. @type {Pass[]} */
    this._passes = [];
    this._output = context.createGain();
    this._output.connect(context.destination);
    this._timer = setInterval(() => this.tick(), 100);
  }

  /**
   * Sets the signals of a page; those of the previous page stop.
   *
   * @param {Track|null} track
   */
  load(track) {
    if (this.playing) this._silence(this._soon());
    this._passes = [];
    this.playing = false;
    this.current = null;
    this._held = 0;
    this._heard = new Map();
    this.track = track;
    this.region = [0, track ? track.length : 0];
    this._changed();
  }

  /**
   * Plays a signal from where playing stopped, or switches to it from the signal that plays.
   *
   * @param {string} id
   */
  play(id) {
    if (!this.track?.buffers.has(id)) throw new Error(`no signal '${id}' on this page`);
    // Suspended, or interrupted by a telephone call.
    if (this.context.state !== "running" && this.context instanceof AudioContext) this.context.resume();
    const { separate, restart, buffers } = this.track;
    if (separate && id !== this.current) {
      this.track.length = /** @type {AudioBuffer} */ (buffers.get(id)).length;
      this.region = [0, this.track.length];
      this._move(id, 0);
    } else if (!this.playing || id !== this.current || restart) {
      this._move(id, restart && this.playing ? this.region[0] : null);
    }
  }

  /** Pauses; `resume` continues from there. */
  pause() {
    if (!this.playing) return;
    const at = this._soon();
    this._held = this._positionAt(at);
    this._silence(at);
    this._count(at);
    this.playing = false;
    this._changed();
  }

  /** Continues with the signal that played last. */
  resume() {
    if (!this.playing && this.current !== null) this.play(this.current);
  }

  /**
   * Moves to another position inside the region.
   *
   * @param {number} position in frames
   */
  seek(position) {
    const inside = Math.min(Math.max(Math.round(position), this.region[0]), this.region[1] - 1);
    if (this.playing && this.current !== null) this._move(this.current, inside);
    else this._held = inside;
    this._changed();
  }

  /**
   * Sets the region that is played: at least `MIN_LOOP_S`, or all of a shorter signal.
   *
   * @param {number} start in frames
   * @param {number} end in frames
   * @param {"start"|"end"} [keep] edge that keeps its position if the two are too close
   */
  setRegion(start, end, keep = "start") {
    if (!this.track) return;
    const { length } = this.track;
    const least = Math.min(length, Math.round(MIN_LOOP_S * this.rate));
    let first = Math.min(Math.max(0, Math.round(start)), length);
    let last = Math.min(Math.max(0, Math.round(end)), length);
    if (last - first < least) {
      if (keep === "start") first = Math.min(first, length - least);
      last = keep === "start" ? first + least : Math.max(last, least);
      if (keep === "end") first = last - least;
    }
    const before = this.region;
    this.region = [first, last];
    if (this.playing && (before[0] !== first || before[1] !== last)) this._refit();
    else if (!this.playing) this._held = Math.min(Math.max(this._held, first), last - 1);
    this._changed();
  }

  /** Frame of the signal that is heard now. */
  position() {
    return this.playing ? this._positionAt(this._now()) : this._held;
  }

  /**
   * Time for which a signal of this page has been heard.
   *
   * @param {string} id
   * @returns {number} milliseconds
   */
  heard(id) {
    const running = this.playing && id === this.current ? Math.max(0, this._until() - this._since) : 0;
    return (1000 * ((this._heard.get(id) ?? 0) + running)) / this.rate;
  }

  /** @param {number} volume factor from 0 to 1 */
  setVolume(volume) {
    this.volume = volume;
    // A step would click. The target is reached to 99.9 % after 35 ms.
    this._output.gain.setTargetAtTime(volume, this.context.currentTime, 0.005);
    this._changed();
  }

  /** Schedules passes that are due. Called by a timer. */
  tick() {
    if (!this.playing || !this.track) return;
    const now = this._now();
    if (this.track.looping) {
      this._passes = this._passes.filter((pass) => pass.until > now);
      this._fill();
    } else if (this._passes.every((pass) => pass.until <= now)) {
      this._count(this._until());
      this._passes = [];
      this._held = this.region[0];
      this.playing = false;
      this._changed();
      this.dispatchEvent(new Event("ended"));
    }
  }

  /** Ends the player. */
  close() {
    clearInterval(this._timer);
    this.load(null);
  }

  /** @param {number} frame of the clock @returns {number} seconds */
  _time(frame) {
    return frame / this.rate;
  }

  _now() {
    return Math.round(this.context.currentTime * this.rate); // rounded, although it is a whole frame
  }

  /** Earliest frame at which a change is sure to be rendered. */
  _soon() {
    const latency = /** @type {any} */ (this.context).baseLatency ?? 0;
    return this._now() + Math.ceil(Math.max(LEAD_S, 2 * latency) * this.rate);
  }

  _until() {
    const last = this._passes.at(-1);
    return Math.min(this._now(), last && !this.track?.looping ? last.until : Infinity);
  }

  /**
   * Starts a signal or replaces the signal that plays.
   *
   * @param {string} id
   * @param {number|null} target position to begin at; null: the current position
   */
  _move(id, target) {
    const at = this._soon();
    const upcoming = this.playing ? this._passes.find((pass) => pass.until > at) : undefined;
    let from = Math.max(at, this._quiet);
    let position = target ?? (this.playing ? this.region[0] : this._held);
    if (upcoming && upcoming.from >= at) {
      // The last change is not audible yet: this one replaces it.
      from = upcoming.from;
      position = target ?? upcoming.position;
      this._silence(from);
    } else if (upcoming && target === null && upcoming.until - at < 3 * this._fade) {
      // The region's edge is near: its fades serve the switch.
      from = upcoming.until;
      position = this.region[0];
      this._silence(from);
    } else if (upcoming) {
      from = at + this._fade;
      position = target ?? upcoming.position + (from - upcoming.from);
      this._silence(at);
    }
    if (this.playing) this._count(from);
    if (position < this.region[0] || this.region[1] - position < 2 * this._fade) position = this.region[0];
    this.current = id;
    this.playing = true;
    this._since = from;
    this._passes = [];
    this._add(from, position);
    this._fill();
    this._changed();
  }

  /** Applies a new region to the signal that plays, without a break if the position is inside it. */
  _refit() {
    const at = this._soon();
    const [start, end] = this.region;
    const pass = this._passes.find((one) => one.until > at);
    if (!pass || this.current === null) return;
    const position = pass.position + Math.max(0, at - pass.from);
    const until = pass.from + end - pass.position;
    const fits = position >= start && Math.min(until, pass.until) - at > 2 * this._fade;
    if (!fits || pass.from >= at) {
      this._move(this.current, position >= start && end - position > 3 * this._fade ? position : start);
      return;
    }
    for (const later of this._passes) if (later !== pass && later.from > pass.from) discard(later);
    pass.edge.gain.cancelScheduledValues(this._time(pass.until - this._fade));
    pass.edge.gain.setValueCurveAtTime(this._fall, this._time(until - this._fade), this._fade / this.rate);
    pass.source.stop(this._time(until));
    pass.until = until;
    this._passes = [pass];
    this._fill();
  }

  /**
   * Adds a pass from a position to the end of the region.
   *
   * @param {number} from frame of the clock
   * @param {number} position frame of the signal
   */
  _add(from, position) {
    const { context, rate } = this;
    const until = from + this.region[1] - position;
    const source = context.createBufferSource();
    source.buffer = this.track?.buffers.get(/** @type {string} */ (this.current)) ?? null;
    const edge = context.createGain();
    const leave = context.createGain();
    source.connect(edge).connect(leave).connect(this._output);
    const fade = this._fade / rate;
    edge.gain.setValueAtTime(0, 0);
    edge.gain.setValueCurveAtTime(this._rise, this._time(from), fade);
    edge.gain.setValueCurveAtTime(this._fall, this._time(until - this._fade), fade);
    source.start(this._time(from), position / rate);
    source.stop(this._time(until));
    source.onended = () => leave.disconnect();
    this._passes.push({ from, until, position, source, edge, leave });
  }

  /** Adds passes until enough is scheduled ahead. */
  _fill() {
    const horizon = this._now() + AHEAD_S * this.rate;
    for (let last = this._passes.at(-1); last && last.until < horizon; last = this._passes.at(-1)) {
      if (!this.track?.looping) break;
      this._add(last.until, this.region[0]);
    }
  }

  /**
   * Fades out the pass that sounds at a frame, and cancels later ones.
   *
   * @param {number} at frame of the clock
   */
  _silence(at) {
    for (const pass of this._passes) {
      if (pass.from >= at) {
        discard(pass);
        continue;
      }
      if (pass.until > at) {
        pass.leave.gain.setValueCurveAtTime(this._fall, this._time(at), this._fade / this.rate);
        pass.source.stop(this._time(at + this._fade));
      }
      this._quiet = Math.min(at + this._fade, pass.until);
    }
  }

  /** @param {number} frame of the clock @returns {number} frame of the signal */
  _positionAt(frame) {
    const pass = this._passes.find((one) => one.until > frame);
    return pass ? pass.position + Math.max(0, frame - pass.from) : this.region[0];
  }

  /** @param {number} frame of the clock at which the signal that plays is left */
  _count(frame) {
    if (this.current === null) return;
    const frames = Math.max(0, frame - this._since);
    this._heard.set(this.current, (this._heard.get(this.current) ?? 0) + frames);
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {Pass} pass */
function discard(pass) {
  pass.source.onended = null;
  pass.source.stop(0);
  pass.leave.disconnect();
}
