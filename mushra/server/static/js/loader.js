// @ts-check
/** Fetches and decodes the sounds of the current and the next page, each once. */

/** Shortest sound in seconds that can be faded in and out. */
const SHORTEST_S = 0.1;
/** Waits in milliseconds before an interrupted download is repeated. */
const RETRIES_MS = [500, 2000, 5000];

/** A sound that cannot be played; `kind` is a key of the texts. */
export class SoundError extends Error {
  /**
   * @param {"missing"|"refused"|"network"|"undecodable"|"short"|"lengths"|"channels"} kind
   * @param {string} url
   * @param {string} detail for the experimenter
   */
  constructor(kind, url, detail) {
    super(`${url}: ${detail}`);
    this.kind = kind;
    this.url = url;
    this.detail = detail;
  }
}

/**
 * @typedef {Object} Entry
 * @property {number} progress from 0 to 1
 * @property {Uint8Array[]} parts received so far; empty after decoding
 * @property {Promise<AudioBuffer>} buffer
 * @property {AbortController} abort
 */

/** Addresses of a page's sounds by signal id; "reference" for the reference. */
export function soundsOf(/** @type {any} */ page) {
  /** @type {Map<string, string>} */
  const sounds = new Map();
  if (page.reference) sounds.set("reference", page.reference.url);
  for (const signal of page.signals ?? []) sounds.set(signal.id, signal.url);
  return sounds;
}

export class Loader {
  /** @param {BaseAudioContext} context sets the rate of the decoded sounds */
  constructor(context) {
    this.context = context;
    /** @type {Map<string, Entry>} */
    this._entries = new Map();
  }

  /**
   * Drops all sounds except those of the given pages.
   *
   * @param {any[]} pages
   */
  keep(pages) {
    const wanted = new Set(pages.flatMap((page) => [...soundsOf(page).values()]));
    for (const [url, entry] of this._entries) {
      if (wanted.has(url)) continue;
      entry.abort.abort();
      this._entries.delete(url);
    }
  }

  /**
   * A page's sounds by signal. The reference is loaded alone and first, because it is heard first.
   *
   * @param {any} page
   * @returns {Promise<Map<string, AudioBuffer>>}
   * @throws {SoundError} for the first sound that cannot be loaded; another call tries again
   */
  async load(page) {
    const sounds = [...soundsOf(page)];
    if (sounds.length) await this._entry(sounds[0][1]).buffer;
    const buffers = await Promise.all(sounds.map(([, url]) => this._entry(url).buffer));
    return new Map(sounds.map(([id], index) => [id, buffers[index]]));
  }

  /** @param {any} page @returns {number} loaded part of the page's sounds, from 0 to 1 */
  progress(page) {
    const urls = [...soundsOf(page).values()];
    const sum = urls.reduce((total, url) => total + (this._entries.get(url)?.progress ?? 0), 0);
    return urls.length ? sum / urls.length : 1;
  }

  /** @param {string} url @returns {number} loaded part of a sound, from 0 to 1 */
  part(url) {
    return this._entries.get(url)?.progress ?? 0;
  }

  /**
   * The loaded part of a sound, or the whole sound if the browser cannot decode a part.
   *
   * @param {string} url
   * @returns {Promise<AudioBuffer>}
   */
  async beginning(url) {
    const entry = this._entry(url);
    if (entry.parts.length === 0) return entry.buffer;
    try {
      const begun = await this.context.decodeAudioData(await new Blob(entry.parts).arrayBuffer());
      if (begun.duration >= SHORTEST_S) return begun;
    } catch {
      // Some browsers do not decode an incomplete file.
    }
    return entry.buffer;
  }

  /** @param {string} url @returns {Entry} */
  _entry(url) {
    const known = this._entries.get(url);
    if (known) return known;
    const abort = new AbortController();
    /** @type {Entry} */
    const entry = { progress: 0, parts: [], abort, buffer: /** @type {any} */ (null) };
    entry.buffer = this._get(url, entry).catch((error) => {
      if (this._entries.get(url) === entry) this._entries.delete(url);
      throw error;
    });
    entry.buffer.catch(() => {}); // a prefetch must not fail without a caller; callers still get the error
    this._entries.set(url, entry);
    return entry;
  }

  /** @param {string} url @param {Entry} entry @returns {Promise<AudioBuffer>} */
  async _get(url, entry) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const data = await this._download(url, entry);
        return await this._decode(url, data, entry);
      } catch (error) {
        if (error instanceof SoundError || entry.abort.signal.aborted) throw error;
        if (attempt >= RETRIES_MS.length) throw new SoundError("network", url, String(error));
        await new Promise((resolve) => setTimeout(resolve, RETRIES_MS[attempt]));
      }
    }
  }

  /** @param {string} url @param {Entry} entry @returns {Promise<ArrayBuffer>} */
  async _download(url, entry) {
    const response = await fetch(url, { signal: entry.abort.signal });
    if (response.status >= 500 || response.status === 429) throw new Error(`HTTP ${response.status}`);
    if (!response.ok) {
      const kind = response.status === 404 ? "missing" : "refused";
      throw new SoundError(kind, url, `HTTP ${response.status}`);
    }
    const total = Number(response.headers.get("Content-Length"));
    if (!response.body || !total) return response.arrayBuffer();
    const reader = response.body.getReader();
    entry.parts = [];
    let received = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      entry.parts.push(part.value);
      received += part.value.length;
      entry.progress = Math.min(0.9, (0.9 * received) / total); // the rest is decoding
    }
    return new Blob(entry.parts).arrayBuffer();
  }

  /** @param {string} url @param {ArrayBuffer} data @param {Entry} entry @returns {Promise<AudioBuffer>} */
  async _decode(url, data, entry) {
    const bytes = data.byteLength;
    let buffer;
    try {
      buffer = await this.context.decodeAudioData(data);
    } catch (error) {
      throw new SoundError("undecodable", url, `${bytes} bytes; ${error}`);
    }
    if (buffer.duration < SHORTEST_S) throw new SoundError("short", url, `${buffer.duration.toFixed(3)} s`);
    entry.progress = 1;
    entry.parts = [];
    return buffer;
  }
}

/**
 * A difference in length, or more channels than outputs, among sounds that are compared; null if there is none.
 *
 * One frame of difference is allowed: resampling to the device's rate causes it.
 *
 * @param {Map<string, AudioBuffer>} buffers
 * @param {number} outputs channels of the device
 * @returns {{kind: "lengths"|"channels", signal: string, detail: string}|null}
 */
export function uneven(buffers, outputs) {
  const entries = [...buffers];
  if (entries.length === 0) return null;
  const [firstId, first] = entries[0];
  for (const [id, buffer] of entries) {
    if (buffer.numberOfChannels > 2 && buffer.numberOfChannels > outputs) {
      const detail = `${buffer.numberOfChannels} channels; this device plays ${outputs}`;
      return { kind: "channels", signal: id, detail };
    }
    if (Math.abs(buffer.length - first.length) > 1) {
      const detail = `${buffer.duration.toFixed(4)} s, ${firstId}: ${first.duration.toFixed(4)} s`;
      return { kind: "lengths", signal: id, detail };
    }
  }
  return null;
}
