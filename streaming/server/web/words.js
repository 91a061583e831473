// Errors in words that a person can act on.

export class PlainError extends Error {}

const OTHERWISE = "or let the avatar say an audio file";
const BY_NAME = {
  NotAllowedError: `The microphone is blocked. Allow it beside the page’s address and start again, ${OTHERWISE}.`,
  SecurityError: `This page may not use the microphone. Allow it in the browser’s settings, ${OTHERWISE}.`,
  NotFoundError: `There is no microphone. Connect one and start again, ${OTHERWISE}.`,
  NotReadableError: `The microphone does not answer: another program may be using it. Close that program, ${OTHERWISE}.`,
  OverconstrainedError: "That microphone is not connected any more. Choose another one.",
  TypeError: "The server does not answer. Look whether `lipstream serve` still runs and the network is up, then try again.",
  TimeoutError: "The server does not answer in time. Try again.",
};

export const NO_MEDIA =
  "The server answers, but no picture comes through. A firewall may block UDP: try another network, or ask " +
  "whoever runs the server for a TURN server (--ice-server).";

export function inWords(error) {
  if (error instanceof PlainError) return error.message;
  if (error.status === 401) return "This server asks for its access token.";
  if (error.status === 503) return `${sentence(error.message)} Try again in a moment.`;
  if (error.status) return `The server says: ${error.message.replace(/\.$/, "")}.`;
  return BY_NAME[error.name] ?? `Something went wrong: ${sentence(error.message)}`;
}

export function sentence(text) {
  const full = text.trim() || "no reason given";
  return full[0].toUpperCase() + full.slice(1) + (/[.!?]$/.test(full) ? "" : ".");
}
