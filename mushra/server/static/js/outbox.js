// @ts-check
/** Results on their way to the server: kept in the browser until it has confirmed them, sent again until then. */

import { ApiError, savePage } from "./api.js";

/** Waits in seconds between attempts; the last is repeated. */
const WAITS_S = [1, 2, 4, 8, 15, 30];

/** @typedef {"saved"|"saving"|"waiting"|"refused"|"gone"} State */

/** Fires `change` whenever `state` may have changed; `elsewhere` when another browser has saved a page first. */
export class Outbox extends EventTarget {
  /**
   * @param {import("./storage.js").Storage} storage
   * @param {string} session id
   * @param {string} key
   */
  constructor(storage, session, key) {
    super();
    /** @type {State} */
    this.state = "saved";
    /** What the server said when it refused a result. */
    this.message = "";
    this._storage = storage;
    this._session = session;
    this._key = key;
    /** Page -> result, in the order they are due. @type {Map<string, any>} */
    this._pending = new Map();
    this._attempt = 0;
    this._timer = 0;
    this._sending = false;
    addEventListener("online", () => this.retry());
  }

  /**
   * Takes up what an earlier visit could not send.
   *
   * @param {any} session whose `saved` gets it
   */
  async restore(session) {
    const pages = (await this._storage.read(`${this._session}:outbox`)) ?? [];
    for (const page of pages) {
      const result = await this._storage.read(`${this._session}:result:${page}`);
      if (!result) continue;
      this._pending.set(page, result);
      session.saved[page] = { revision: result.revision, result };
    }
    if (this._pending.size) this._send();
  }

  /** How many results the server has not confirmed. */
  get size() {
    return this._pending.size;
  }

  /** @param {string} page @returns {any} the result that waits, if there is one */
  waiting(page) {
    return this._pending.get(page);
  }

  /**
   * Keeps a result and sends it.
   *
   * @param {string} page
   * @param {any} result with its revision
   */
  add(page, result) {
    this._pending.set(page, result);
    this._storage.write(`${this._session}:result:${page}`, result);
    this._list();
    this._attempt = 0;
    this._send();
  }

  /** Tries now what waits. */
  retry() {
    clearTimeout(this._timer);
    if (this._pending.size && this.state !== "gone") this._send();
  }

  /** @returns {Promise<void>} when everything is confirmed, or nothing can be any more */
  async empty() {
    while (this._pending.size && this.state !== "gone") {
      await new Promise((resolve) => this.addEventListener("change", resolve, { once: true }));
    }
  }

  /** @param {string} page */
  _forget(page) {
    this._pending.delete(page);
    this._storage.write(`${this._session}:result:${page}`, undefined);
    this._list();
  }

  _list() {
    const pages = [...this._pending.keys()];
    this._storage.write(`${this._session}:outbox`, pages.length ? pages : undefined);
  }

  /** @param {State} state @param {string} [message] */
  _set(state, message = "") {
    this.state = state;
    this.message = message;
    this.dispatchEvent(new Event("change"));
  }

  async _send() {
    if (this._sending) return;
    this._sending = true;
    try {
      while (this._pending.size) {
        const [page, result] = /** @type {[string, any]} */ (this._pending.entries().next().value);
        this._set("saving");
        try {
          await savePage(this._session, this._key, page, result);
        } catch (error) {
          if (!(error instanceof ApiError) || error.code !== "saved_elsewhere") throw error;
          this._forget(page); // also what was added since: it was built on what is not stored
          this.dispatchEvent(new Event("elsewhere"));
          continue;
        }
        this._attempt = 0;
        if (this._pending.get(page) === result) this._forget(page);
      }
      this._set("saved");
    } catch (error) {
      this._failed(error);
    } finally {
      this._sending = false;
    }
  }

  /** @param {unknown} error */
  _failed(error) {
    const known = error instanceof ApiError ? error : new ApiError(0, "", String(error));
    if (known.status === 401 || known.status === 404 || known.status === 409) {
      // The session was erased, or is finished elsewhere: nothing more can be stored.
      this._set("gone", known.message);
      return;
    }
    const wait = Math.max(WAITS_S[Math.min(this._attempt, WAITS_S.length - 1)], known.retryAfter ?? 0);
    this._attempt += 1;
    // A result that is refused is sent again, too, but rarely: the experimenter may repair the server meanwhile.
    this._timer = setTimeout(() => this.retry(), 1000 * (known.passing ? wait : Math.max(wait, 30)));
    this._set(known.passing ? "waiting" : "refused", known.message);
  }
}
