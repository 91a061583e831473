// The list of targets, and the description and picture of the chosen one.

export class Targets {
  #select;
  #picture;
  #about;
  #headers;
  #known = new Map();
  #shown = null; // blob URL of the poster that is shown

  // `headers`: a function that returns the headers of a request.
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

  // Fill the list. Resolves to the number of targets, or to null when the server asks for its token.
  async list() {
    const response = await fetch("api/targets", { headers: this.#headers() });
    if (response.status === 401) return null;
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { targets } = await response.json();
    this.#known = new Map(targets.map((target) => [target.name, target]));
    this.#select.replaceChildren(...targets.map(({ name }) => new Option(name, name)));
    await this.show();
    return targets.length;
  }

  // Show the chosen target's picture, size, frame rate and kind.
  async show() {
    const target = this.#known.get(this.chosen);
    this.#about.textContent = target?.width
      ? `${target.kind}, ${target.width} × ${target.height}, ${target.fps} fps`
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
