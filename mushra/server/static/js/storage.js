// @ts-check
/**
 * What the browser keeps of a session until the server has it: localStorage, because it is written before the
 * page can be closed; IndexedDB for what does not fit there; memory (and a warning) where neither is allowed.
 */

/** Prefix of all our entries: several tests may live on one server, each under its own path. */
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

/** Entries by name, each anything that JSON can hold. */
export class Storage {
  constructor() {
    /** What has been read or written, as JSON. @type {Map<string, string>} */
    this._known = new Map();
    /** Whether what is written outlives the page. */
    this.lasting = true;
    /** Called when `lasting` becomes false. */
    this.onlost = () => {};
  }

  /** @param {string} name @returns {Promise<any>} undefined where there is none */
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
      // No IndexedDB: then there is nothing in it.
    }
    if (json === null) return undefined;
    try {
      return JSON.parse(json);
    } catch {
      return undefined; // someone else wrote it
    }
  }

  /**
   * Writes at once, unless it is too big for localStorage.
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
      // It cannot have been there.
    }
    inDatabase("readwrite", (store) => store.delete(name)).catch(() => {});
  }

  /** @param {string} name @param {string} json */
  _spill(name, json) {
    try {
      localStorage.removeItem(PREFIX + name); // an older value would be read first
    } catch {
      // Storage is not allowed at all; IndexedDB may be.
    }
    inDatabase("readwrite", (store) => store.put(json, name)).catch(() => this._lost());
  }

  _lost() {
    if (!this.lasting) return;
    this.lasting = false;
    this.onlost();
  }
}
