// @ts-check
/** One tab per session: two would overwrite each other's pages. The listener decides whether a new tab takes over. */

/** Milliseconds for the other tab to answer; hidden tabs get messages, too. */
const ANSWER_MS = 500;

export class Tab {
  /**
   * @param {string} session id
   * @param {() => void} onlost called when another tab has taken over
   */
  constructor(session, onlost) {
    this._owner = false;
    this._channel = new BroadcastChannel(`mushra:${location.pathname}:${session}`);
    this._channel.onmessage = (event) => {
      if (event.data === "anyone?" && this._owner) this._channel.postMessage("here");
      else if (event.data === "mine" && this._owner) {
        this._owner = false;
        onlost();
      } else if (event.data === "here") {
        this._answered?.();
        if (!this._owner) return;
        this._owner = false; // the other tab answered late, but has the session
        onlost();
      }
    };
    /** @type {(() => void)|undefined} */
    this._answered = undefined;
  }

  /** @returns {Promise<boolean>} whether this tab has the session, because no other tab has it */
  async claim() {
    const taken = await new Promise((resolve) => {
      this._answered = () => resolve(true);
      setTimeout(() => resolve(false), ANSWER_MS);
      this._channel.postMessage("anyone?");
    });
    this._owner = !taken;
    return this._owner;
  }

  /** Takes the session for this tab; the other tab stops. */
  take() {
    this._owner = true;
    this._channel.postMessage("mine");
  }
}
