// @ts-check
/** The server's interface. All addresses are relative, so that it works under any prefix. */

/** An answer that is not a success. `status` 0: the server did not answer. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   * @param {any} [body]
   * @param {number} [retryAfter] seconds
   */
  constructor(status, code, message, body, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.body = body;
    this.retryAfter = retryAfter;
  }

  /** Whether the same call may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** Milliseconds after which a call counts as lost. */
const TIMEOUT_MS = 20000;

/**
 * @param {string} method
 * @param {string} path
 * @param {string|null} key of the session
 * @param {any} [body]
 * @returns {Promise<any>}
 */
async function call(method, path, key, body) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  let response;
  let text;
  try {
    response = await fetch(`./api/${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: abort.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    text = await response.text();
  } catch (error) {
    throw new ApiError(0, "network", String(error));
  } finally {
    clearTimeout(timer);
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy's error page, or a login page that came with status 200.
    throw new ApiError(response.ok ? 502 : response.status, "no_json", `HTTP ${response.status}, no JSON`);
  }
  if (response.ok) return answer;
  const wait = Number(response.headers.get("Retry-After")) || undefined;
  const message = typeof answer?.error === "string" ? answer.error : `HTTP ${response.status}`;
  throw new ApiError(response.status, String(answer?.code ?? ""), message, answer, wait);
}

/** @param {any} body @returns {Promise<any>} the new session, or this listener's running one */
export const createSession = (body) => call("POST", "sessions", null, body);

/** @param {string} id @param {string} key @returns {Promise<any>} */
export const readSession = (id, key) => call("GET", `sessions/${encodeURIComponent(id)}`, key);

/** @param {string} id @param {string} key @param {string} page @param {any} result @returns {Promise<any>} */
export const savePage = (id, key, page, result) =>
  call("PUT", `sessions/${encodeURIComponent(id)}/pages/${encodeURIComponent(page)}`, key, result);

/** @param {string} id @param {string} key @param {Record<string, number>} revisions @returns {Promise<any>} */
export const finishSession = (id, key, revisions) =>
  call("POST", `sessions/${encodeURIComponent(id)}/finish`, key, { revision_of: revisions });
