// Clients: who is connected, what they listen to, and out with one.

import { ago, badge, button, bytes, confirmed, el, field, fill, notice, number } from '/console/dom.js';
import { call, get, repeat } from '/console/server.js';

export const title = 'Clients';
export const isOffered = (session) => session.embedded;

const PAGE = 200;
const PAUSE = 3;

export function show(root, session, signal) {
  const search = el('input', { type: 'search', name: 'search', spellcheck: 'false', autocapitalize: 'none' });
  const count = el('p', { class: 'soft', role: 'status' });
  const list = el('ul', { class: 'cards' });
  const more = button('Show more', () => {
    state.most += PAGE;
    refresh();
  }, { class: 'quiet', hidden: true });
  const state = { most: PAGE, clients: [], open: new Map(), isMore: false };
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const fits = (client) => [client.id, client.user, client.connection?.address].some((text) => text?.toLowerCase().includes(wanted));
    const shown = state.clients.filter((client) => !wanted || fits(client));
    reconcile(list, shown, (client) => card(client, state, refresh));
    more.hidden = !state.isMore;
    const connected = shown.filter((client) => client.connected).length;
    const text = `${number(connected)} connected, ${number(shown.length - connected)} away with a session${state.isMore ? '; there are more' : ''}`;
    if (count.textContent !== text) count.textContent = text;
  };
  search.addEventListener('input', draw);
  fill(root, el('div', { class: 'line wide' }, field('Find (client id, user, address)', search)), count, list, more);
  const refresh = repeat(PAUSE, async () => {
    try {
      Object.assign(state, await read(state.most, signal));
      draw();
    } catch (error) {
      if (!signal.aborted && error.status !== 401) count.textContent = error.message;
    }
  }, signal);
}

async function read(most, signal) {
  const clients = [];
  let from = '';
  for (;;) {
    const page = await get(`/api/v1/broker/clients?limit=${PAGE}${from && `&from=${from}`}`, signal);
    clients.push(...page.clients);
    from = page.next ?? '';
    if (!from || clients.length >= most) return { clients, isMore: Boolean(from) };
  }
}

// Cards that are there stay, so that focus and opened parts survive; what a card says is drawn anew.
function reconcile(list, rows, make) {
  const before = new Map([...list.children].map((child) => [child.dataset.id, child]));
  const after = rows.map((row) => {
    const card = before.get(row.id) ?? make(row);
    card.dataset.id = row.id;
    card.dispatchEvent(new CustomEvent('renew', { detail: row }));
    return card;
  });
  if (after.length !== list.children.length || after.some((card, at) => list.children[at] !== card)) list.replaceChildren(...after);
}

function card(client, state, refresh) {
  const head = el('p', { class: 'head' });
  const facts = el('p', { class: 'soft' });
  const filters = el('ul', { class: 'filters' });
  const details = el('details', {}, el('summary', {}, 'Subscriptions'), filters);
  details.addEventListener('toggle', () => details.open && subscriptions(client.id, filters));
  const out = button('Disconnect', () => disconnect(client.id, false, refresh), { class: 'danger', 'aria-label': `Disconnect ${client.id}` });
  const end = button('End session', () => disconnect(client.id, true, refresh), { class: 'danger', 'aria-label': `End the session of ${client.id}` });
  const element = el('li', { class: 'card' }, head, facts, details, el('div', { class: 'actions' }, out, end));
  element.addEventListener('renew', ({ detail }) => {
    fill(head, el('b', { class: 'topic' }, detail.id), ' ', detail.connected ? badge('good', 'connected') : badge('warn', 'away'), detail.user && ` ${detail.user}`);
    fill(facts, describe(detail));
    details.firstChild.textContent = `Subscriptions (${number(detail.subscriptions)})`;
    out.hidden = !detail.connected;
    end.hidden = detail.connected && !detail.session.persistent;
  });
  return element;
}

function describe({ connection, session, queue, dropped }) {
  const parts = [];
  if (connection) {
    parts.push(`${connection.address} at “${connection.listener}”, MQTT ${connection.protocol}, connected `, ago(connection.since));
    parts.push(`, ${number(connection.messagesIn)} messages in, ${number(connection.messagesOut)} out`);
  } else if (session.ends) {
    parts.push(`session ends ${new Date(session.ends).toLocaleString()}`);
  }
  if (queue.messages > 0) parts.push(`, ${number(queue.messages)} waiting (${bytes(queue.bytes)})`);
  if (dropped > 0) parts.push(`, ${number(dropped)} dropped`);
  return parts;
}

async function subscriptions(id, list) {
  try {
    const page = await get(`/api/v1/broker/subscriptions?client=${encodeURIComponent(id)}&limit=1000`);
    fill(list, page.subscriptions.map(({ filter, qos }) => el('li', {}, el('code', {}, filter), ` QoS ${qos}`)), page.subscriptions.length === 0 && el('li', { class: 'soft' }, 'none'));
  } catch (error) {
    fill(list, el('li', {}, error.message));
  }
}

async function disconnect(id, isSession, refresh) {
  const [question, detail, action] = isSession
    ? [`End the session of ${id}?`, 'Its subscriptions and the messages waiting for it are deleted.', 'End session']
    : [`Disconnect ${id}?`, 'It may come back by itself. To keep it out, take its user out of broker.toml.', 'Disconnect'];
  if (!(await confirmed(question, detail, action))) return;
  try {
    await call('DELETE', `/api/v1/broker/clients/${encodeURIComponent(id)}${isSession ? '?session=true' : ''}`);
    notice(isSession ? `The session of ${id} was ended.` : `${id} was disconnected.`);
  } catch (error) {
    notice(error.message, 'bad');
  }
  refresh();
}
