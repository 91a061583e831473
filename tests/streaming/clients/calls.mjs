// One call after another, and what came of them. A call is begun by `begin(url, seconds)`, which
// resolves to what it received, or throws.

export async function post(url, sdp) {
  const answer = await fetch(url, {
    method: "POST", headers: { "Content-Type": "application/sdp" }, body: sdp,
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status} ${text}`);
  const resource = new URL(answer.headers.get("Location"), url);
  return {
    sdp: text,
    figures: async () => (await fetch(resource)).json(),
    end: async () => { await fetch(resource, { method: "DELETE" }); },
  };
}

export function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), 1000 * seconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// `send(k)` every 20 ms of the clock for so long.
export async function every20ms(seconds, send) {
  const began = performance.now();
  for (let k = 0; k < 50 * seconds; k++) {
    await new Promise((wake) => setTimeout(wake, Math.max(0, began + 20 * k - performance.now())));
    send(k);
  }
}

// An RTP packet: version 2, no extension.
export function rtp(payloadType, marker, sequence, timestamp, ssrc, payload) {
  const head = Buffer.alloc(12);
  head[0] = 0x80;
  head[1] = (marker ? 0x80 : 0) | payloadType;
  head.writeUInt16BE(sequence & 0xffff, 2);
  head.writeUInt32BE(timestamp >>> 0, 4);
  head.writeUInt32BE(ssrc, 8);
  return Buffer.concat([head, payload]);
}

export const SILENCE = Buffer.from([0xf8, 0xff, 0xfe]); // 20 ms of Opus

export async function run(begin) {
  const [mode, url, seconds, calls] = process.argv.slice(2);
  const failures = [];
  const received = [];
  for (let k = 0; k < Number(calls ?? 1); k++) {
    try {
      received.push(await begin[mode](url, Number(seconds)));
    } catch (error) {
      failures.push(String(error.message ?? error));
    }
  }
  console.log(JSON.stringify({ calls: Number(calls ?? 1), failed: failures.length, failures, received }));
  process.exit(failures.length ? 1 : 0);
}
