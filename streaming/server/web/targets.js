// Who can speak: the list, and what the chosen one looks like.

export class Targets {
  #select;
  #picture;
  #about;
  #headers;
  #known = new Map();
  #shown = null; // of the poster that stands there, a blob's address

  // `headers`: a function that returns those of a request.
  constructor(select, picture, about, headers) {
    this.#select = select;
    this.#picture = picture;
    this.#about = about;
    this.#headers = headers;
    select.addEventListener("change", () => this.show());
  }

  get chosen() {
    return this.#select.value;
  }

  // Fill the list. Resolves to how many there are, or to null when the server wants its token.
  async list() {
    const response = await fetch("/api/targets", { headers: this.#headers() });
    if (response.status === 401) return null;
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { targets } = await response.json();
    this.#known = new Map(targets.map((target) => [target.name, target]));
    this.#select.replaceChildren(...targets.map(({ name }) => new Option(name, name)));
    await this.show();
    return targets.length;
  }

  // The chosen one's picture, before it speaks, and its size, rate and kind.
  async show() {
    const target = this.#known.get(this.chosen);
    this.#about.textContent = target?.width
      ? `${target.kind}, ${target.width} × ${target.height}, ${target.fps} pictures a second`
      : "";
    let poster = "";
    if (target?.poster) {
      const response = await fetch(target.poster, { headers: this.#headers() }).catch(() => null);
      if (response?.ok) poster = URL.createObjectURL(await response.blob());
    }
    if (target?.name !== this.#known.get(this.chosen)?.name) return; // another was chosen meanwhile
    this.#picture.poster = poster;
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.#shown = poster;
  }
}
