// @ts-check
/** Results to be sent: the browser keeps them and repeats sending until the server has confirmed them. */

import { ApiError, savePage } from "./api.js";

/** Waits in seconds between attempts; the last one is repeated. */
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
    /** The server's message when it refused a result. */
    this.message = "";
    this._storage = storage;
    this._session = session;
    this._key = key;
    /** Page -> result, in the order of sending. @type {Map<string, any>} */
    this._pending = new Map();
    this._attempt = 0;
    this._timer = 0;
    this._sending = false;
    addEventListener("online", () => this.retry());
  }

  /**
   * Restores the results that an earlier visit could not send.
   *
   * @param {any} session its `saved` gets them
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

  /** Number of results that the server has not confirmed. */
  get size() {
    return this._pending.size;
  }

  /** @param {string} page @returns {any} the waiting result, or undefined */
  waiting(page) {
    return this._pending.get(page);
  }

  /**
   * Stores a result in the browser and sends it.
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

  /** Sends the waiting results now. */
  retry() {
    clearTimeout(this._timer);
    if (this._pending.size && this.state !== "gone") this._send();
  }

  /** @returns {Promise<void>} resolves when all results are confirmed, or when none can be */
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
          this._forget(page); // and any newer result of the page, which was based on this one
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
      // The session was erased or finished elsewhere: it cannot store anything more.
      this._set("gone", known.message);
      return;
    }
    const wait = Math.max(WAITS_S[Math.min(this._attempt, WAITS_S.length - 1)], known.retryAfter ?? 0);
    this._attempt += 1;
    // A refused result is sent again, too, but rarely: the experimenter may repair the server meanwhile.
    this._timer = setTimeout(() => this.retry(), 1000 * (known.passing ? wait : Math.max(wait, 30)));
    this._set(known.passing ? "waiting" : "refused", known.message);
  }
}
