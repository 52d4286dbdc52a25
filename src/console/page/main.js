// The frame of the page: log-in, navigation, and the light that says whether all is well.

import { button, el, field, fill, notice } from '/console/dom.js';
import { call, events, get } from '/console/server.js';
import { watch } from '/console/overview.js';
import * as overview from '/console/overview.js';
import * as live from '/console/live.js';
import * as clients from '/console/clients.js';
import * as retained from '/console/retained.js';
import * as tasks from '/console/tasks.js';
import * as publish from '/console/publish.js';

const views = { overview, live, clients, retained, tasks, publish };
const content = document.getElementById('content');
const top = document.querySelector('.top');
const state = document.getElementById('state');

let session = null;
let leaving = new AbortController();
let ending = new AbortController();

function offered(name) {
  const view = views[name];
  return view && (!view.isOffered || view.isOffered(session));
}

function navigate() {
  if (!session) return;
  const wanted = location.hash.slice(1).split('?')[0];
  const name = offered(wanted) ? wanted : 'overview';
  leaving.abort();
  leaving = new AbortController();
  for (const link of document.querySelectorAll('#nav a')) {
    if (link.dataset.view === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${views[name].title} – sense-butler`;
  const root = el('section', { 'aria-label': views[name].title, data: { view: name } });
  fill(content, el('h1', {}, views[name].title), root);
  views[name].show(root, session, leaving.signal);
}

function light({ problems, reachable }) {
  const [kind, text] = !reachable
    ? ['bad', 'No answer']
    : problems.some((problem) => problem.kind === 'bad')
      ? ['bad', problems.length === 1 ? '1 problem' : `${problems.length} problems`]
      : problems.length > 0
        ? ['warn', problems.length === 1 ? '1 thing to look at' : `${problems.length} things to look at`]
        : ['good', 'All is well'];
  state.className = `state ${kind}`;
  if (state.textContent !== text) state.textContent = text;
}

function enter(known) {
  session = known;
  ending.abort();
  ending = new AbortController();
  top.hidden = false;
  const who = document.getElementById('who');
  who.textContent = known.user ? known.user : 'no log-in needed on this machine';
  document.getElementById('log-out').hidden = !known.user;
  const link = (name) => el('a', { href: `#${name}`, data: { view: name } }, views[name].title);
  fill(document.getElementById('nav'), Object.keys(views).filter(offered).map(link));
  watch(session, light, ending.signal);
  navigate();
}

function leave(refused) {
  session = null;
  leaving.abort();
  ending.abort();
  top.hidden = true;
  document.title = 'Log in – sense-butler';
  showLogIn(refused);
}

// Who may log in is in the words of the server; where nobody may, there is no form.
function showLogIn(refused) {
  const why = el('p', { class: 'why', role: 'alert' });
  const head = [el('img', { src: '/console/icon.svg', alt: '', width: 44, height: 44 }), el('h1', {}, 'sense-butler')];
  if (refused && !['log_in', 'session_ended'].includes(refused.code)) {
    why.textContent = refused.message;
    const again = button('Try again', begin);
    fill(content, el('div', { class: 'log-in' }, head, why, again));
    return;
  }
  const user = el('input', { name: 'user', autocomplete: 'username', required: true, spellcheck: 'false', autocapitalize: 'none' });
  const password = el('input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true });
  const submit = el('button', { type: 'submit' }, 'Log in');
  const form = el('form', { class: 'log-in' }, head, why, field('User', user), field('Password', password), submit);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await call('POST', '/console/session', { body: { user: user.value, password: password.value } });
      enter(await get('/console/session'));
    } catch (error) {
      why.textContent = error.message;
      password.value = '';
      password.focus();
    }
    submit.disabled = false;
  });
  if (refused?.code === 'session_ended') why.textContent = refused.message;
  fill(content, form);
  user.focus();
}

async function begin() {
  try {
    enter(await get('/console/session'));
  } catch (error) {
    if (error.status !== 401) leave(error);
  }
}

events.addEventListener('logged-out', ({ detail }) => {
  // A wrong password is the form's affair.
  if (detail.code !== 'wrong') leave(detail);
});
document.getElementById('log-out').addEventListener('click', async () => {
  try {
    await call('DELETE', '/console/session');
    leave(null);
  } catch (error) {
    notice(error.message, 'bad');
  }
});
document.getElementById('skip').addEventListener('click', () => content.focus());
addEventListener('hashchange', navigate);
begin();
