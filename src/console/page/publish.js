// Publish: a message by hand.

import { el, field, fill, notice } from '/console/dom.js';
import { call } from '/console/server.js';

export const title = 'Publish';
export const isOffered = (session) => session.may.publish;

export function show(root, session) {
  const topic = el('input', { name: 'topic', required: true, spellcheck: 'false', autocapitalize: 'none' });
  const message = el('textarea', { name: 'message', rows: 8, spellcheck: 'false' });
  const qos = el('select', { name: 'qos' }, ['0', '1', '2'].map((value) => el('option', { value }, value)));
  const retain = el('input', { type: 'checkbox', name: 'retain' });
  const submit = el('button', { type: 'submit' }, 'Publish');
  const sent = el('ul', { class: 'runs', 'aria-label': 'Sent from here' });
  const further = session.may.retain && [field('QoS', qos), el('label', { class: 'check' }, retain, ' retained: the broker keeps it as the last message of its topic')];
  const form = el('form', { class: 'panel form' }, field('Topic', topic, 'without + and #'), field('Message', message), further, el('div', { class: 'actions' }, submit));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    const body = { topic: topic.value, message: message.value };
    if (session.may.retain) Object.assign(body, { qos: Number(qos.value), retain: retain.checked });
    try {
      await call('PUT', '/v4/mqttpublishmessage', { body });
      notice(`Published on ${body.topic}.`);
      sent.prepend(el('li', {}, el('b', { class: 'topic' }, body.topic), ` ${body.message.slice(0, 200)}`));
      while (sent.children.length > 20) sent.lastChild.remove();
    } catch (error) {
      notice(error.message, 'bad');
    }
    submit.disabled = false;
  });
  fill(root, form, sent);
}
