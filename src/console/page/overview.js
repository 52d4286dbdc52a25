// Overview: is all well, and if not, what is to be done.

import { ago, badge, button, bytes, el, fill, many, notice, number, span } from '/console/dom.js';
import { call, get, repeat, text } from '/console/server.js';

export const title = 'Overview';

const PAUSE = 3;
const MONTH = 30 * 86400;

// What helps where a part does not say so itself.
const REMEDIES = {
  broker: 'The log says why. If it does not come back within a minute, restart sense-butler.',
  'self-probe': 'The log says why. If it does not come back within a minute, restart sense-butler.',
  store: 'Look at the disk that holds the data directory: is it full, may sense-butler write there?',
  qrs: 'Run “sense-butler doctor”: it goes the way to Qlik Sense step by step and names the step that fails.',
  udp: 'Another program may hold the port. “sense-butler doctor” says which.',
  datagrams: 'Look at the log appender files on the Sense nodes and at the firewall: an upgrade of Qlik Sense removes the files.',
  'broker.toml': 'Mend the place the sentence names; until then the users and rules of before hold.',
  'external broker': 'Is the broker running, and do host, port and password in mqttConfig fit?',
};
const DOCTOR = 'Run “sense-butler doctor”: it looks at everything and says what to do.';

// What is known, newest first: the view shows what the watch has found last.
let found = { problems: [], reachable: true };
const listeners = new Set();

// Looks at the program every few seconds as long as somebody is logged in; `tell` gets the problems.
export function watch(session, tell, signal) {
  let before = null;
  repeat(
    PAUSE,
    async () => {
      try {
        const [status, stats, health, metrics] = await Promise.all([
          get('/api/v1/status', signal),
          session.embedded ? get('/api/v1/broker/stats', signal).catch(() => null) : null,
          session.embedded ? own(session, 'health', signal) : null,
          text('/metrics', signal).then(samples).catch(() => []),
        ]);
        const now = performance.now();
        const rates = before && stats ? rate(before, { at: now, stats }) : null;
        before = stats ? { at: now, stats } : before;
        found = { status, stats, health, metrics, rates, reachable: true };
        found.problems = problems(found);
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
        const problem = { kind: 'bad', what: 'No answer', why: error.message, remedy: 'Start the service, or look at its log.' };
        found = { ...found, problems: [problem], reachable: false };
      }
      if (signal.aborted) return;
      tell(found);
      listeners.forEach((listener) => listener());
    },
    signal,
  );
}

// One of the program's own retained topics, as JSON.
async function own(session, name, signal) {
  try {
    const filter = encodeURIComponent(`${session.ownTopics}/${name}`);
    const { retained } = await get(`/api/v1/broker/retained?filter=${filter}`, signal);
    return JSON.parse(retained[0].payload);
  } catch {
    return null;
  }
}

// Samples of the metrics: name, labels, value (OpenMetrics 1.0).
function samples(text) {
  const found = [];
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? ([-+0-9.eE]+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

const of = (metrics, name) => metrics.filter((sample) => sample.name === name);
const sum = (list) => list.reduce((total, sample) => total + sample.value, 0);

function rate(before, after) {
  const seconds = (after.at - before.at) / 1000;
  const each = (way) => Math.max(0, after.stats[way].messages - before.stats[way].messages) / seconds;
  return { received: each('received'), sent: each('sent') };
}

function problems({ status, stats, health, metrics }) {
  const list = [];
  for (const part of status.parts) {
    if (part.ready) continue;
    const remedy = (part.name === 'qrs' && health?.qrs?.remedy) || REMEDIES[part.name] || DOCTOR;
    list.push({ kind: part.required ? 'bad' : 'warn', what: part.name, why: part.detail, remedy });
  }
  if (health?.qrs?.warning) list.push({ kind: 'warn', what: 'qrs', why: health.qrs.warning, remedy: DOCTOR });
  for (const certificate of health?.certificates ?? []) list.push(...ofCertificate(certificate));
  const lost = of(metrics, 'sense_butler_udp_datagrams_dropped_total');
  for (const sample of lost.filter((sample) => sample.value > 0)) {
    const why = `dropped since the start: ${many(sample.value, 'datagram')} from Sense nodes (${sample.labels.reason})`;
    list.push({ kind: 'warn', what: 'events', why, remedy: 'The log names who sent them and why they were dropped; docs/troubleshooting.md says what each reason means.' });
  }
  const kernel = sum(of(metrics, 'sense_butler_udp_kernel_dropped_total'));
  if (kernel > 0) {
    list.push({ kind: 'warn', what: 'events', why: `dropped by the system because they came too fast: ${many(kernel, 'datagram')}`, remedy: 'Give the socket a larger receive buffer: the log names the setting.' });
  }
  if (stats?.dropped > 0) {
    list.push({ kind: 'warn', what: 'messages', why: `dropped since the start: ${many(stats.dropped, 'message')}`, remedy: 'Clients shows whose: such a client reads too slowly, or is not allowed to receive them.' });
  }
  const panics = health?.panics ?? 0;
  if (panics > 0) list.push({ kind: 'warn', what: 'sense-butler', why: `met and confined: ${many(panics, 'defect')}`, remedy: 'Please report what the log says of them.' });
  return list;
}

function ofCertificate({ door, file, expires, problem }) {
  if (problem) return [{ kind: 'warn', what: 'certificates', why: `${door}: ${problem}`, remedy: 'Put a certificate and its key there that belong together; they are taken within seconds.' }];
  const seconds = (typeof expires === 'number' ? expires : Date.parse(expires) / 1000) - Date.now() / 1000;
  if (!(seconds < MONTH)) return [];
  const when = seconds < 0 ? 'has ended' : `ends in ${span(seconds)}`;
  return [{ kind: seconds < 0 ? 'bad' : 'warn', what: 'certificates', why: `the certificate ${file} ${when}`, remedy: 'Renew it; the changed file is taken within seconds.' }];
}

export function show(root, session, signal) {
  const verdict = el('div', { class: 'verdict', data: { part: 'verdict' } });
  const figures = el('dl', { class: 'figures' });
  const parts = el('ul', { class: 'parts flow' });
  const nodes = el('ul', { class: 'parts' });
  const kind = el('select', { 'aria-label': 'What the test event reports' }, el('option', { value: 'succeeded' }, 'a task that succeeded'), el('option', { value: 'failed' }, 'a task that failed'));
  const outcome = el('p', { role: 'status', data: { part: 'test-outcome' } });
  const send = button('Send test event', () => trial(send, kind, outcome));
  send.disabled = !session.may.publish;
  fill(
    root,
    verdict,
    figures,
    el('div', { class: 'columns' },
      el('div', { class: 'panel' }, el('h2', {}, 'Parts'), parts),
      el('div', { class: 'panel' },
        el('h2', {}, 'Events of Qlik Sense'),
        nodes,
        el('h3', {}, 'Test event'),
        el('p', { class: 'soft' }, 'Sends a datagram as a Sense node does, to this program, and waits for the message. Whatever listens for failures acts on a failure.'),
        el('div', { class: 'line' }, kind, send),
        outcome,
      ),
    ),
  );
  const draw = () => drawAll({ verdict, figures, parts, nodes }, session);
  listeners.add(draw);
  signal.addEventListener('abort', () => listeners.delete(draw));
  draw();
}

async function trial(send, kind, outcome) {
  send.disabled = true;
  fill(outcome, 'Waiting for it …');
  try {
    const report = await call('POST', '/console/test-event', { body: { kind: kind.value } });
    if (report.arrived) fill(outcome, badge('good', 'Arrived'), ` as a message after ${report.milliseconds.toFixed(1)} ms (datagram to ${report.sentTo}).`);
    else fill(outcome, badge('bad', 'Not arrived'), ` ${report.remedy}`);
  } catch (error) {
    fill(outcome, badge('bad', 'Not sent'), ` ${error.message}`);
    notice(error.message, 'bad');
  }
  send.disabled = false;
}

function drawAll({ verdict, figures, parts, nodes }, session) {
  const { status, stats, rates, metrics, reachable } = found;
  if (!status) {
    fill(verdict, found.problems.length ? drawProblems() : el('p', { class: 'soft' }, 'Looking …'));
    return;
  }
  fill(verdict, found.problems.length ? drawProblems() : el('p', { class: 'well' }, badge('good', 'All is well'), ' Every part does its work.'));
  const rows = [['Running for', span(status.uptimeSeconds)], ['Version', status.version]];
  if (stats) {
    rows.push(
      ['MQTT clients', number(stats.clients.connected)],
      ['Messages in', rates ? `${number(Math.round(rates.received))}/s` : '…'],
      ['Messages out', rates ? `${number(Math.round(rates.sent))}/s` : '…'],
      ['Retained', `${number(stats.retained.messages)} (${bytes(stats.retained.bytes)})`],
      ['Waiting', number(stats.queued.messages)],
      ['Dropped', number(stats.dropped)],
    );
  }
  fill(figures, rows.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
  const part = ({ name, ready, required, detail }) =>
    el('li', { class: detail && 'soft' }, badge(ready && reachable ? 'good' : required ? 'bad' : 'warn', name), detail && ` ${detail}`);
  fill(parts, status.parts.map(part), el('li', { class: 'soft' }, session.embedded ? 'The built-in broker carries the messages: ' : 'A broker elsewhere carries the messages: ', session.broker));
  const heard = of(metrics, 'sense_butler_udp_last_datagram_timestamp_seconds');
  const node = ({ labels, value }) => el('li', {}, el('b', {}, labels.host), ` ${labels.port} events, `, ago(value * 1000));
  heard.sort((one, other) => other.value - one.value);
  fill(nodes, heard.slice(0, 12).map(node), heard.length === 0 && el('li', { class: 'soft' }, 'No Sense node was heard yet.'));
}

function drawProblems() {
  const item = ({ kind, what, why, remedy }) =>
    el('li', { class: kind }, el('p', {}, badge(kind, what), ` ${why}`), el('p', { class: 'remedy' }, remedy));
  return el('ul', { class: 'problems', data: { part: 'problems' } }, found.problems.map(item));
}
