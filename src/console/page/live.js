// Live: what passes through the broker, as it passes. The server sends a sample of bounded size; so many rows are kept here, too.

import { badge, button, bytes, clock, el, field, fill, number, payload } from '/console/dom.js';
import { stream } from '/console/server.js';

export const title = 'Live';
export const isOffered = (session) => session.live;

const KEPT = 500;
const AGAIN = 2000;
const SHOWN = 160;

export function show(root, session, signal) {
  const own = session.ownTopics;
  const filter = el('input', { name: 'filter', value: '#', spellcheck: 'false', autocapitalize: 'none', list: 'filters', 'aria-describedby': 'filter-hint' });
  const known = [['#', 'everything'], ['qliksense/#', 'Qlik Sense and what answers it'], [`${own}/event`, 'every event of Qlik Sense'], [`${own}/task/+/execution`, 'executions']];
  const state = el('span', { class: 'stream-state', role: 'status' });
  const count = el('span', { class: 'soft', data: { part: 'count' } });
  const rows = el('div', { class: 'messages', role: 'listbox', 'aria-label': 'Messages, newest first', tabindex: '0' });
  const detail = el('div', { class: 'panel detail', 'aria-live': 'polite', data: { part: 'detail' } });
  const view = { rows, detail, count, messages: [], waiting: [], isPaused: false, shown: 0, missed: 0, chosen: null };

  const pause = button('Pause', () => {
    view.isPaused = !view.isPaused;
    pause.textContent = view.isPaused ? 'Go on' : 'Pause';
    pause.setAttribute('aria-pressed', String(view.isPaused));
    if (!view.isPaused) add(view, view.waiting.splice(0));
    tell(view);
  }, { 'aria-pressed': 'false' });
  const clear = button('Clear', () => {
    Object.assign(view, { messages: [], waiting: [], shown: 0, missed: 0, chosen: null });
    fill(rows);
    describe(view, null);
    tell(view);
  }, { class: 'quiet' });
  const form = el('form', { class: 'line wide' },
    field('Topic filter', filter), el('button', { type: 'submit' }, 'Listen'), pause, clear,
    el('datalist', { id: 'filters' }, known.map(([value, label]) => el('option', { value, label }))));
  fill(root, form, el('p', { class: 'line soft', id: 'filter-hint' }, state, count), el('div', { class: 'split' }, rows, detail));
  rows.addEventListener('click', (event) => choose(view, event.target.closest('[role=option]')));
  rows.addEventListener('keydown', (event) => move(view, event));
  describe(view, null);

  let listening = null;
  const listen = () => {
    listening?.abort();
    listening = new AbortController();
    hear(view, state, filter.value.trim() || '#', AbortSignal.any([signal, listening.signal]));
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    listen();
  });
  listen();
}

// Reads the stream, and again when it broke.
async function hear(view, state, filter, signal) {
  while (!signal.aborted) {
    fill(state, badge('warn', 'connecting'));
    try {
      await stream(filter, (name, data) => {
        if (signal.aborted) return;
        if (!state.querySelector('.good')) fill(state, badge('good', `listening to ${filter}`));
        if (name === 'message') take(view, data);
      }, signal);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      fill(state, badge('bad', error.message));
      if (error.status === 400 || error.status === 501) return;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

function take(view, { messages, notShown }) {
  view.shown += messages.length;
  view.missed += notShown;
  if (view.isPaused) view.waiting = [...view.waiting, ...messages].slice(-KEPT);
  else add(view, messages);
  tell(view);
}

function tell(view) {
  const parts = [`${number(view.shown)} shown`];
  if (view.missed > 0) parts.push(`${number(view.missed)} more not shown (too many to show; narrow the filter)`);
  if (view.isPaused) parts.push(`paused, ${number(view.waiting.length)} new`);
  view.count.textContent = parts.join(', ');
}

function add(view, messages) {
  if (messages.length === 0) return;
  const fresh = messages.map(row).reverse();
  view.rows.prepend(...fresh);
  while (view.rows.children.length > KEPT) view.rows.lastChild.remove();
}

const held = new WeakMap();

function row(message) {
  const text = message.encoding === 'text' ? message.payload.slice(0, SHOWN).replace(/\s+/g, ' ') : `(${bytes(message.size)} of binary data)`;
  const element = el('div', { role: 'option', 'aria-selected': 'false', class: `message ${message.door}` },
    el('time', { datetime: message.at }, clock(message.at)),
    el('span', { class: 'topic' }, message.topic),
    el('span', { class: 'text' }, message.size === 0 ? '(empty)' : text));
  held.set(element, message);
  return element;
}

function choose(view, element) {
  if (!element) return;
  view.chosen?.setAttribute('aria-selected', 'false');
  view.chosen = element;
  element.id = 'chosen';
  element.setAttribute('aria-selected', 'true');
  for (const other of view.rows.querySelectorAll('#chosen')) if (other !== element) other.removeAttribute('id');
  view.rows.setAttribute('aria-activedescendant', 'chosen');
  element.scrollIntoView({ block: 'nearest' });
  describe(view, held.get(element));
}

function move(view, event) {
  const to = {
    ArrowDown: () => view.chosen?.nextElementSibling ?? view.rows.firstElementChild,
    ArrowUp: () => view.chosen?.previousElementSibling ?? view.rows.firstElementChild,
    Home: () => view.rows.firstElementChild,
    End: () => view.rows.lastElementChild,
  }[event.key];
  if (!to) return;
  event.preventDefault();
  choose(view, to());
}

function describe(view, message) {
  if (!message) {
    fill(view.detail, el('h2', {}, 'Message'), el('p', { class: 'soft' }, 'Choose a message to see all of it.'));
    return;
  }
  const facts = [
    ['Time', new Date(message.at).toLocaleString()],
    ['From', [message.client ?? { internal: 'sense-butler itself', rest: 'REST', external: 'another broker' }[message.door] ?? 'unknown', message.user && ` (${message.user})`]],
    ['QoS', `${message.qos}${message.retain ? ', retained' : ''}`],
    ['Size', bytes(message.size)],
  ];
  fill(
    view.detail,
    el('h2', { class: 'topic' }, message.topic),
    el('dl', { class: 'facts' }, facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)))),
    el('pre', { tabindex: '0', 'aria-label': 'Payload' }, payload(message)),
    message.cut && el('p', { class: 'soft' }, `Only the beginning is shown.`),
  );
}
