// Talking to the program. Every request carries a header that pages of others cannot send; the session's cookie is not seen by scripts.

const HEADERS = { 'x-sense-butler-console': '1' };

// What the server refused, in its own words.
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

// Told when the session is over.
export const events = new EventTarget();

async function refusal(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // The status alone must do.
  }
  const told = typeof body.error === 'object' && body.error ? body.error : body;
  const refused = new Refused(response.status, told.code ?? '', told.message ?? `the server answered ${response.status}`);
  if (response.status === 401) events.dispatchEvent(new CustomEvent('logged-out', { detail: refused }));
  return refused;
}

async function send(method, path, { body, headers, signal } = {}) {
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  try {
    return await fetch(path, {
      method,
      signal,
      credentials: 'same-origin',
      cache: 'no-store',
      headers: { ...HEADERS, ...json, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, 'unreachable', 'sense-butler does not answer; is it stopped?');
  }
}

// Asks, and gives back the JSON of the answer (`null` where there is none). `accept`: statuses besides 2xx that are answers, too.
export async function call(method, path, options = {}) {
  const response = await send(method, path, options);
  if (!response.ok && !options.accept?.includes(response.status)) throw await refusal(response);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, signal) => call('GET', path, { signal });

// The text of an answer.
export async function text(path, signal) {
  const response = await send('GET', path, { signal });
  if (!response.ok) throw await refusal(response);
  return response.text();
}

// Reads the live stream until it ends or `signal` is aborted; `hear` gets each event's name and data.
export async function stream(filter, hear, signal) {
  const response = await send('GET', `/console/live?filter=${encodeURIComponent(filter)}`, { signal });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split('\n');
      const line = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = line('data');
      hear(line('event') ?? (data ? 'message' : 'quiet'), data ? JSON.parse(data) : null);
    }
  }
}

// Does something now and again after each pause, while the page is looked at and until `signal` is aborted.
export function repeat(seconds, work, signal) {
  let timer;
  let isBusy = false;
  const round = async () => {
    clearTimeout(timer);
    if (signal.aborted || isBusy) return;
    if (!document.hidden) {
      isBusy = true;
      await work();
      isBusy = false;
    }
    if (!signal.aborted) timer = setTimeout(round, seconds * 1000);
  };
  document.addEventListener('visibilitychange', () => !document.hidden && round(), { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  round();
  return round;
}
