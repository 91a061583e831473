// The targets as posters, one of which is chosen; `?target=NAME` in the page's address chooses too.

const PLACE = "target";

export class Targets extends EventTarget {
  #list;
  #server;
  #known = new Map();
  #posters = new Map(); // name: blob URL

  // Event "chosen" when another target is chosen, and when its poster is there.
  constructor(list, server) {
    super();
    this.#list = list;
    this.#server = server;
    list.addEventListener("change", () => {
      remember(this.chosen?.name);
      this.#tell();
    });
  }

  get chosen() {
    return this.#known.get(this.#list.querySelector("input:checked")?.value) ?? null;
  }

  get posterOfChosen() {
    return this.#posters.get(this.chosen?.name) ?? "";
  }

  get count() {
    return this.#known.size;
  }

  // Show what the server has. Resolves to a target that the address asks for and that is not there,
  // else null; posters follow. Throws as `Server.request`.
  async list() {
    const { targets } = await (await this.#server.request("api/targets")).json();
    const wanted = new URLSearchParams(location.search).get(PLACE);
    this.#known = new Map(targets.map((target) => [target.name, target]));
    const chosen = this.#known.has(wanted) ? wanted : targets[0]?.name;
    this.#list.replaceChildren(...targets.map(({ name }) => card(name, name === chosen)));
    this.#list.querySelector("input:checked")?.closest("label").scrollIntoView({ block: "nearest", inline: "center" });
    this.#tell();
    this.#load(targets);
    return wanted && !this.#known.has(wanted) ? wanted : null;
  }

  async #load(targets) {
    for (const { name, poster } of [this.chosen, ...targets]) {
      if (!poster || this.#posters.has(name)) continue;
      const path = `api/targets/${encodeURIComponent(name)}/poster`;
      const picture = await this.#server.request(path).then((r) => r.blob(), () => null);
      if (!picture) continue; // the card keeps its letter; a call says what is wrong
      this.#posters.set(name, URL.createObjectURL(picture));
      const image = [...this.#list.querySelectorAll("img")].find((each) => each.dataset.name === name);
      if (image) image.src = this.#posters.get(name);
      if (name === this.chosen?.name) this.#tell();
    }
  }

  #tell() {
    this.dispatchEvent(new Event("chosen"));
  }
}

function card(name, checked) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "target", value: name, checked });
  const frame = Object.assign(document.createElement("span"), { className: "poster", ariaHidden: "true" });
  frame.dataset.letter = name[0].toUpperCase();
  const image = Object.assign(document.createElement("img"), { alt: "" });
  image.dataset.name = name;
  frame.append(image);
  label.append(input, frame, Object.assign(document.createElement("span"), { className: "name", textContent: name }));
  return label;
}

// A link to the page as it is now opens with this target.
function remember(name) {
  const query = new URLSearchParams(location.search);
  query.set(PLACE, name);
  history.replaceState(null, "", `?${query}`);
}
