// Requests to the server. Every address is relative to the page, so that it works under any path.

const KEPT = "lipstream-token";

export class ServerError extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

export class Server {
  #token = sessionStorage.getItem(KEPT) ?? "";
  #node = document.baseURI; // where requests go
  #others = []; // addresses of the same service, for when that one is lost

  // Takes `#token=TOKEN` from the page's address, and out of it.
  constructor() {
    if (!location.hash.startsWith("#token=")) return;
    this.token = decoded(location.hash.slice(7));
    history.replaceState(null, "", location.pathname + location.search);
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token.trim();
    sessionStorage.removeItem(KEPT);
  }

  // To be called once the server has taken the token: it survives a reload of this tab.
  keepToken() {
    if (this.#token) sessionStorage.setItem(KEPT, this.#token);
  }

  // Throws ServerError with the server's reason, or TypeError when there is no answer.
  request = async (path, options = {}) => {
    const response = await this.#fetch(path, { ...options, headers: { ...options.headers, ...this.headers() } });
    if (response.ok) return response;
    const body = await response.json().catch(() => ({}));
    throw new ServerError(response.status, body.error ?? `the server answered ${response.status}`);
  };

  async #fetch(path, options, left = this.#others.length) {
    try {
      const response = await fetch(new URL(path, this.#node), options);
      const links = (response.headers.get("Link") ?? "").matchAll(/<([^>]+)>;\s*rel="alternate"/g);
      const others = [...links].map((link) => new URL(".", link[1]).href);
      if (others.length) this.#others = others;
      return response;
    } catch (error) {
      if (this.#others.length && error.name !== "AbortError") {
        this.#others.push(this.#node);
        this.#node = this.#others.shift();
        // Nobody has taken the request; where one is late in answering, who asked knows what to do.
        if (error instanceof TypeError && left > 0) return this.#fetch(path, options, left - 1);
      }
      throw error;
    }
  }

  headers() {
    // A header holds Latin-1 only; what a person pastes may hold anything.
    return this.#token ? { Authorization: `Bearer ${this.#token.replace(/[^\x20-\x7e]/g, "?")}` } : {};
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that stands for itself
  }
}
