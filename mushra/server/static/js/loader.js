// @ts-check
/** Fetching and decoding sounds: those of the page in hand and of the next, each once. */

/** Seconds; nothing shorter can be faded in and out. */
const SHORTEST_S = 0.1;
/** Waits in milliseconds before a download that broke off is tried again. */
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
 * @property {Uint8Array[]} parts that have come, until it is decoded
 * @property {Promise<AudioBuffer>} buffer
 * @property {AbortController} abort
 */

/** All sounds of a page, by the id of their signal; "reference" for the reference. */
export function soundsOf(/** @type {any} */ page) {
  /** @type {Map<string, string>} */
  const sounds = new Map();
  if (page.reference) sounds.set("reference", page.reference.url);
  for (const signal of page.signals ?? []) sounds.set(signal.id, signal.url);
  return sounds;
}

export class Loader {
  /** @param {BaseAudioContext} context at whose rate sounds are decoded */
  constructor(context) {
    this.context = context;
    /** @type {Map<string, Entry>} */
    this._entries = new Map();
  }

  /**
   * Forgets all sounds but those of some pages.
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
   * A page's sounds by signal. The first of them, the reference, has the line for itself: it is heard first.
   *
   * @param {any} page
   * @returns {Promise<Map<string, AudioBuffer>>}
   * @throws {SoundError} the first that cannot be had; asking again tries again
   */
  async load(page) {
    const sounds = [...soundsOf(page)];
    if (sounds.length) await this._entry(sounds[0][1]).buffer;
    const buffers = await Promise.all(sounds.map(([, url]) => this._entry(url).buffer));
    return new Map(sounds.map(([id], index) => [id, buffers[index]]));
  }

  /** @param {any} page @returns {number} part of the page's sounds that is here, from 0 to 1 */
  progress(page) {
    const urls = [...soundsOf(page).values()];
    const sum = urls.reduce((total, url) => total + (this._entries.get(url)?.progress ?? 0), 0);
    return urls.length ? sum / urls.length : 1;
  }

  /** @param {string} url @returns {number} part of a sound that is here, from 0 to 1 */
  part(url) {
    return this._entries.get(url)?.progress ?? 0;
  }

  /**
   * A sound that is being loaded: what is here of it, or all of it where the browser decodes nothing less.
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
      // A file that breaks off is not decoded by every browser.
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
    entry.buffer.catch(() => {}); // whoever waits is told; a prefetch nobody waits for must not be an error
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
 * What is uneven about the sounds of a page whose signals are to be compared; null if nothing is.
 *
 * A frame of difference is allowed: it comes from converting to the device's rate.
 *
 * @param {Map<string, AudioBuffer>} buffers
 * @param {number} outputs channels that the device has
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
