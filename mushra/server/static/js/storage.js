// @ts-check
/**
 * Data that the browser keeps until the server has them: in localStorage, which is written before the page can be
 * closed; in IndexedDB if they do not fit there; in memory (with a warning) if the browser allows neither.
 */

/** Prefix of all entries: one server may host several tests, each under its own path. */
const PREFIX = `mushra:${location.pathname}:`;

/** @type {Promise<IDBDatabase>|null} */
let database = null;

/** @returns {Promise<IDBDatabase>} */
function open() {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(PREFIX, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("entries");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

/**
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest} action
 * @returns {Promise<any>}
 */
async function inDatabase(mode, action) {
  const store = (await open()).transaction("entries", mode).objectStore("entries");
  return new Promise((resolve, reject) => {
    const request = action(store);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Entries by name, each a JSON value. */
export class Storage {
  constructor() {
    /** Entries that were read or written, as JSON. @type {Map<string, string>} */
    this._known = new Map();
    /** Whether entries survive a reload of the page. */
    this.lasting = true;
    /** Called when `lasting` becomes false. */
    this.onlost = () => {};
  }

  /** @param {string} name @returns {Promise<any>} undefined if there is none */
  async read(name) {
    let json = this._known.get(name) ?? null;
    try {
      json ??= localStorage.getItem(PREFIX + name);
    } catch {
      this._lost();
    }
    try {
      json ??= (await inDatabase("readonly", (store) => store.get(name))) ?? null;
    } catch {
      // Without IndexedDB there is no entry in it.
    }
    if (json === null) return undefined;
    try {
      return JSON.parse(json);
    } catch {
      return undefined; // another program wrote it
    }
  }

  /**
   * Writes an entry, at once if it fits into localStorage.
   *
   * @param {string} name
   * @param {any} value undefined removes the entry
   */
  write(name, value) {
    if (value === undefined) {
      this._remove(name);
      return;
    }
    const json = JSON.stringify(value);
    this._known.set(name, json);
    try {
      localStorage.setItem(PREFIX + name, json);
    } catch {
      this._spill(name, json);
    }
  }

  /** @param {string} name */
  _remove(name) {
    this._known.delete(name);
    try {
      localStorage.removeItem(PREFIX + name);
    } catch {
      // Then it was not in there.
    }
    inDatabase("readwrite", (store) => store.delete(name)).catch(() => {});
  }

  /** @param {string} name @param {string} json */
  _spill(name, json) {
    try {
      localStorage.removeItem(PREFIX + name); // an older value would be read first
    } catch {
      // IndexedDB may be allowed where localStorage is not.
    }
    inDatabase("readwrite", (store) => store.put(json, name)).catch(() => this._lost());
  }

  _lost() {
    if (!this.lasting) return;
    this.lasting = false;
    this.onlost();
  }
}
