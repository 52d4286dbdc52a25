// Retained: the messages the broker keeps, as the tree their topics make.

import { badge, button, bytes, confirmed, el, field, fill, many, notice, number, payload } from '/console/dom.js';
import { call, get } from '/console/server.js';

export const title = 'Retained';
export const isOffered = (session) => session.embedded;

const PAGE = 200;
const MOST = 5000;

export function show(root, session, signal) {
  const filter = el('input', { name: 'filter', value: '#', spellcheck: 'false', autocapitalize: 'none' });
  const count = el('p', { class: 'soft', role: 'status' });
  const tree = el('ul', { class: 'tree', 'aria-label': 'Topics' });
  const detail = el('div', { class: 'panel detail', 'aria-live': 'polite', data: { part: 'detail' } });
  const form = el('form', { class: 'line wide' }, field('Topic filter', filter), el('button', { type: 'submit' }, 'Show'));
  const load = async () => {
    count.textContent = 'Looking …';
    try {
      const { rows, isMore } = await read(filter.value.trim() || '#', signal);
      count.textContent = `${many(rows.length, 'retained message')}${isMore ? '; there are more, narrow the filter' : ''}`;
      fill(tree, branches(grow(rows), (message) => describe(detail, message, session, load), rows.length <= 40));
    } catch (error) {
      if (!signal.aborted) count.textContent = error.message;
    }
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    load();
  });
  fill(root, form, count, el('div', { class: 'split' }, tree, detail));
  fill(detail, el('h2', {}, 'Message'), el('p', { class: 'soft' }, 'Choose a topic to see what is kept of it.'));
  load();
}

async function read(filter, signal) {
  const rows = [];
  let from = '';
  do {
    const page = await get(`/api/v1/broker/retained?limit=${PAGE}&filter=${encodeURIComponent(filter)}${from && `&from=${from}`}`, signal);
    rows.push(...page.retained);
    from = page.next ?? '';
  } while (from && rows.length < MOST);
  return { rows, isMore: Boolean(from) };
}

// Nodes by level; a Map, because a level may be called anything.
function grow(rows) {
  const top = { children: new Map(), message: null, count: 0 };
  for (const message of rows) {
    let node = top;
    for (const level of message.topic.split('/')) {
      if (!node.children.has(level)) node.children.set(level, { children: new Map(), message: null, count: 0 });
      node = node.children.get(level);
      node.count += 1;
    }
    node.message = message;
  }
  return top;
}

// What lies in a branch is made when it is opened.
function branches(node, choose, isOpen) {
  return [...node.children].map(([level, child]) => {
    const name = level === '' ? '(empty level)' : level;
    const leaf = child.message && button(child.children.size ? 'its message' : name, () => choose(child.message), { class: 'leaf', 'aria-label': `Show ${child.message.topic}` });
    if (child.children.size === 0) return el('li', {}, leaf, el('span', { class: 'preview' }, preview(child.message)));
    const list = el('ul', {});
    const details = el('details', {}, el('summary', {}, name, el('span', { class: 'soft' }, ` ${number(child.count)}`)), leaf, list);
    details.addEventListener('toggle', () => details.open && list.children.length === 0 && fill(list, branches(child, choose, isOpen)));
    details.open = isOpen;
    return el('li', {}, details);
  });
}

function preview(message) {
  return message.encoding === 'text' ? message.payload.slice(0, 60).replace(/\s+/g, ' ') : `(${bytes(message.size)} of binary data)`;
}

async function describe(panel, summary, session, reload) {
  let message = summary;
  if (summary.cut) {
    try {
      message = (await get(`/api/v1/broker/retained?filter=${encodeURIComponent(summary.topic)}`)).retained[0] ?? summary;
    } catch (error) {
      notice(error.message, 'bad');
    }
  }
  const remove = button('Remove', async () => {
    if (!(await confirmed('Remove this retained message?', `${message.topic} – who listens to it gets an empty message.`, 'Remove'))) return;
    try {
      await call('DELETE', `/api/v1/broker/retained/${encodeURIComponent(message.topic)}`);
      notice(`${message.topic} was removed.`);
      fill(panel, el('h2', {}, 'Message'));
      reload();
    } catch (error) {
      notice(error.message, 'bad');
    }
  }, { class: 'danger', 'aria-label': `Remove ${message.topic}` });
  const expiry = message.expiresInSeconds === null ? null : `, expires in ${number(message.expiresInSeconds)} s`;
  fill(
    panel,
    el('h2', { class: 'topic' }, message.topic),
    el('p', { class: 'soft' }, `${bytes(message.size)}, QoS ${message.qos}`, expiry, ' ', message.cut && badge('warn', 'cut')),
    el('pre', { tabindex: '0', 'aria-label': 'Payload' }, payload(message)),
    session.may.publish && el('div', { class: 'actions' }, remove),
  );
}
