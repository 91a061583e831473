// The server's OpenAPI document as a readable page.

import { Server } from "./http.js";
import { inWords } from "./words.js";

const $ = (id) => document.getElementById(id);
const server = new Server();

function element(name, text = "", more = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...more });
}

function table(caption, heads, rows) {
  const made = element("table");
  const head = element("tr");
  head.append(...heads.map((text) => element("th", text, { scope: "col" })));
  made.append(element("caption", caption), head);
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map((text) => element("td", text)));
    made.append(line);
  }
  return made;
}

const kind = (schema) => [schema?.type ?? ""].flat().join(" or ");

// What a "$ref" within the document refers to; anything else as it is.
function resolved(node, root) {
  if (!node.$ref) return node;
  return node.$ref.slice(2).split("/").reduce((at, key) => at[key], root);
}

function operation(path, method, { summary, parameters = [], requestBody, responses }, root) {
  const section = element("section");
  const title = element("h2");
  title.append(element("code", `${method.toUpperCase()} ${path}`));
  section.append(title, element("p", `${summary}.`));
  if (parameters.length) {
    const rows = parameters.map((p) => resolved(p, root)).map((p) => [p.name, p.in, p.required ? "yes" : "no", p.description ?? ""]);
    section.append(table("Parameters", ["name", "in", "required", "description"], rows));
  }
  if (requestBody) section.append(element("p", `Body: ${Object.keys(requestBody.content).join(", ")}`));
  const rows = Object.entries(responses).map(([status, response]) => {
    const { description, headers = {} } = resolved(response, root);
    const lines = Object.entries(headers).map(([name, header]) => `${name}: ${header.description}`);
    return [status, [description, ...lines].join(" — ")];
  });
  section.append(table("Responses", ["status", "description"], rows));
  return section;
}

function schema(name, { properties }) {
  const section = element("section");
  const rows = Object.entries(properties).map(([field, about]) => [field, kind(about), about.description ?? ""]);
  section.append(element("h2", name), table("Fields", ["name", "type", "description"], rows));
  return section;
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function show() {
  const tried = server.token !== "";
  try {
    const root = await (await server.request("api/openapi.json")).json();
    server.keepToken();
    $("access").hidden = true;
    const { info, paths, components } = root;
    say(`${info.summary} Version ${info.version}.`);
    const operations = Object.entries(paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, one]) => operation(path, method, one, root)));
    $("api").replaceChildren(...operations, ...Object.entries(components.schemas).map(([name, one]) => schema(name, one)));
  } catch (error) {
    if (error.status === 401) $("access").hidden = false;
    say(error.status === 401 && tried ? "That token is not this server’s." : inWords(error), true);
  }
}

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  server.token = $("token").value;
  show();
});
show();
