// Tasks: find one, start it, see how it runs.

import { ago, badge, button, el, field, fill, many, notice, span } from '/console/dom.js';
import { call, get, repeat } from '/console/server.js';

export const title = 'Tasks';
export const isOffered = (session) => session.may.seeTasks;

const ROWS = 50;
const PAUSE = 2;
const TYPING = 300;

const KINDS = { started: 'run', finished: 'good', failed: 'bad', aborted: 'warn', unknown: 'warn' };

export function show(root, session, signal) {
  const search = el('input', { type: 'search', name: 'search', spellcheck: 'false', placeholder: 'part of its name' });
  const tag = el('input', { type: 'search', name: 'tag', spellcheck: 'false' });
  const count = el('p', { class: 'soft', role: 'status' });
  const list = el('ul', { class: 'cards', data: { part: 'tasks' } });
  const runs = el('ul', { class: 'runs', data: { part: 'executions' } });
  fill(
    root,
    el('div', { class: 'line wide' }, field('Find task', search), field('Tag', tag)),
    count,
    el('div', { class: 'columns tasks' }, el('div', {}, list), el('div', { class: 'panel' }, el('h2', {}, 'Executions'), runs)),
  );
  let last = 0;
  const find = async () => {
    last += 1;
    const mine = last;
    count.textContent = 'Asking Qlik Sense …';
    const query = new URLSearchParams({ name: search.value.trim(), tag: tag.value.trim(), limit: ROWS });
    try {
      const { tasks } = await get(`/api/v1/tasks?${query}`, signal);
      if (mine !== last) return;
      count.textContent = `${many(tasks.length, 'task')}${tasks.length === ROWS ? '; there may be more, narrow the search' : ''}`;
      fill(list, tasks.map((task) => card(task, session, refresh)));
    } catch (error) {
      if (!signal.aborted && mine === last) count.textContent = error.message;
    }
  };
  let timer;
  for (const input of [search, tag]) {
    input.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(find, TYPING);
    });
  }
  signal.addEventListener('abort', () => clearTimeout(timer));
  const refresh = repeat(PAUSE, async () => {
    try {
      const { executions } = await get('/api/v1/executions?limit=50', signal);
      fill(runs, executions.map((execution) => run(execution, session, refresh)), executions.length === 0 && el('li', { class: 'soft' }, 'None that sense-butler started.'));
    } catch (error) {
      if (!signal.aborted && error.status !== 401) fill(runs, el('li', {}, error.message));
    }
  }, signal);
  find();
}

function card(task, session, refresh) {
  const facts = [task.app?.name, task.type, ...task.tags.map((tag) => `#${tag}`)].filter(Boolean).join(' · ');
  const start = button('Start', () => begin(task, start, refresh), { 'aria-label': `Start ${task.taskName}` });
  start.disabled = !session.may.start;
  const last = task.last && el('span', { class: 'soft' }, `last: ${task.last.qlikStatus} `, ago(task.last.stoppedAt ?? task.last.startedAt));
  return el('li', { class: 'card task' },
    el('p', { class: 'head' }, el('b', {}, task.taskName), ' ', !task.enabled && badge('warn', 'disabled')),
    el('p', { class: 'soft' }, facts), last, el('div', { class: 'actions' }, start));
}

async function begin(task, start, refresh) {
  start.disabled = true;
  try {
    const key = `console-${crypto.getRandomValues(new Uint32Array(4)).join('-')}`;
    const { results } = await call('POST', '/api/v1/tasks/start?timeout=20', { body: { taskId: task.taskId }, headers: { 'idempotency-key': key } });
    const result = results[0];
    if (!result) notice(`${task.taskName}: asked for; no answer of Qlik Sense yet.`, 'warn');
    else if (result.error) notice(`${task.taskName}: ${result.error.message}`, 'bad');
    else notice(`${task.taskName}: ${result.status}.`);
  } catch (error) {
    notice(`${task.taskName}: ${error.message}`, 'bad');
  }
  start.disabled = false;
  refresh();
}

function run(execution, session, refresh) {
  const { executionId, taskName, taskId, status, qlikStatus, startedBy, end } = execution;
  const name = taskName ?? taskId;
  const stop = status === 'started' && session.may.stop && button('Stop', () => halt(executionId, name, refresh), { class: 'danger', 'aria-label': `Stop ${name}` });
  const by = startedBy && `by ${startedBy.requestedBy} (${startedBy.door})`;
  const took = end?.durationMs !== undefined && end?.durationMs !== null ? `took ${span(end.durationMs / 1000)}` : null;
  return el('li', { data: { execution: executionId, status } },
    el('p', {}, badge(KINDS[status] ?? 'warn', status === 'started' ? qlikStatus ?? 'running' : status), ' ', el('b', {}, name)),
    el('p', { class: 'soft' }, [took, end && ago(end.stoppedAt), by].filter(Boolean).flatMap((part, at) => (at ? [', ', part] : [part]))), stop);
}

async function halt(id, name, refresh) {
  try {
    await call('POST', `/api/v1/executions/${id}/stop`, { body: {} });
    notice(`${name}: Qlik Sense was asked to stop it.`);
  } catch (error) {
    notice(`${name}: ${error.message}`, 'bad');
  }
  refresh();
}
