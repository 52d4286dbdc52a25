// Building blocks of the page. Whatever comes from the server becomes text, never markup: strings are appended as text nodes.

// An element with attributes; `on` holds listeners, `class` the classes, `data` what tests and styles look at. Absent and false ones are left out.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === 'data') Object.assign(element.dataset, value);
    else if (key === 'value') element.value = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  put(element, children);
  return element;
}

function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

// Replaces what is in an element.
export function fill(element, ...children) {
  element.replaceChildren();
  put(element, children);
}

export function button(text, click, attributes = {}) {
  return el('button', { type: 'button', ...attributes, on: { click } }, text);
}

// A field with its label above it.
export function field(label, input, hint) {
  return el('label', { class: 'field' }, el('span', {}, label), input, hint && el('small', {}, hint));
}

// A word with a colour and a sign; the sign stands for the colour where none is seen.
export function badge(kind, text) {
  const sign = { good: '✓', warn: '!', bad: '✕', run: '●' }[kind];
  return el('span', { class: `badge ${kind}` }, sign && el('span', { 'aria-hidden': 'true' }, `${sign} `), text);
}

// Tells something for a while, in a corner and to screen readers.
export function notice(text, kind = 'good') {
  const box = el('p', { class: `notice ${kind}` }, text);
  box.append(button('×', () => box.remove(), { class: 'quiet', 'aria-label': 'Close notice' }));
  const notices = document.getElementById('notices');
  notices.append(box);
  while (notices.children.length > 4) notices.firstChild.remove();
  setTimeout(() => box.remove(), kind === 'good' ? 6000 : 20000);
}

// Asks before something is done that cannot be undone; resolves to whether it was confirmed.
export function confirmed(question, detail, action) {
  return new Promise((resolve) => {
    const dialog = el('dialog', { 'aria-labelledby': 'question' });
    const close = (answer) => () => {
      resolve(answer);
      dialog.close();
    };
    dialog.append(
      el('h2', { id: 'question' }, question),
      el('p', {}, detail),
      el('div', { class: 'actions' }, button('Cancel', close(false), { class: 'quiet' }), button(action, close(true), { class: 'danger' })),
    );
    dialog.addEventListener('close', () => {
      resolve(false);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const number = (value) => Number(value ?? 0).toLocaleString('en');

export const many = (count, word) => `${number(count)} ${word}${count === 1 ? '' : 's'}`;

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let size = Number(value ?? 0);
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

// A time span in words, from seconds.
export function span(seconds) {
  const steps = [[86400, 'd'], [3600, 'h'], [60, 'min']];
  for (const [length, unit] of steps) if (seconds >= length * 2) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

// The time of day here, for a time of the server.
export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? '' : date.toLocaleTimeString('en-GB');
}

// How long ago; the exact time is in the title.
export function ago(time) {
  const date = new Date(time);
  if (!time || Number.isNaN(date.getTime())) return '';
  return el('time', { datetime: date.toISOString(), title: date.toLocaleString() }, `${span((Date.now() - date.getTime()) / 1000)} ago`);
}

// A payload as it can be read: JSON with line breaks, other text as it is, anything else in base64.
export function payload(message) {
  if (message.size === 0) return '(empty)';
  if (message.encoding !== 'text') return `${message.payload}${message.cut ? '…' : ''}`;
  if (!message.cut && /^\s*[[{]/.test(message.payload)) {
    try {
      return JSON.stringify(JSON.parse(message.payload), null, 2);
    } catch {
      return message.payload;
    }
  }
  return `${message.payload}${message.cut ? '…' : ''}`;
}
