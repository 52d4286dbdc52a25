// Shows the OpenAPI document of this server. Whatever it says becomes text, never markup.

import { badge, el, field, fill } from '/docs/dom.js';

const content = document.getElementById('content');
const METHODS = ['get', 'put', 'post', 'delete'];
const COLOURS = { GET: 'run', PUT: 'warn', POST: 'good', DELETE: 'bad' };
// How deep the fields of an object are shown.
const DEPTH = 6;

let spec = null;

// What a reference means; what is none, is itself.
function meant(value) {
  if (!value?.$ref) return value ?? {};
  const { $ref, ...rest } = value;
  const found = $ref.slice(2).split('/').reduce((node, name) => node?.[name], spec);
  return { ...meant(found), ...rest };
}

const nameOf = (value) => value?.$ref?.split('/').pop();

// Words between backquotes and asterisks, as elements.
function words(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith('`')) return el('code', {}, part.slice(1, -1));
    if (part.startsWith('**')) return el('strong', {}, part.slice(2, -2));
    return part;
  });
}

// The little of Markdown that the document has: paragraphs and lists.
function markdown(text) {
  const blocks = (text ?? '').trim().split(/\n\s*\n/);
  return el('div', { class: 'text' }, blocks.filter(Boolean).map((block) => {
    if (!block.startsWith('- ')) return el('p', {}, words(block));
    return el('ul', {}, block.slice(2).split('\n- ').map((line) => el('li', {}, words(line))));
  }));
}

const shown = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

// A schema in a few words.
function kind(given) {
  const schema = meant(given);
  if ('const' in schema) return `always ${shown(schema.const)}`;
  if (schema.enum) return schema.enum.map(shown).join(' | ');
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices && !schema.properties) return choices.map((choice) => nameOf(choice) ?? kind(choice)).join(' or ');
  if (schema.type === 'array') return `list of ${nameOf(schema.items) ?? kind(schema.items)}`;
  const types = [schema.type ?? (schema.allOf ? 'object' : 'anything')].flat().join(' or ');
  const bounds = [
    schema.format === 'date-time' && 'RFC 3339',
    schema.minimum !== undefined && schema.maximum !== undefined && `${schema.minimum} to ${schema.maximum}`,
    schema.maxLength !== undefined && `${schema.minLength ?? 0} to ${schema.maxLength} characters`,
    schema.default !== undefined && `default ${shown(schema.default)}`,
  ];
  return [types, ...bounds.filter(Boolean)].join(', ');
}

// The fields of an object, and of what stands in it.
function shape(given, depth = 0) {
  const schema = meant(given);
  if (depth > DEPTH) return null;
  if (schema.type === 'array' || schema.items) return shape(schema.items, depth);
  const parts = [...(schema.allOf ?? []), ...(schema.anyOf ?? [])];
  const below = parts.map((part) => shape(part, depth));
  if (!schema.properties) return below.some(Boolean) ? below : null;
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties).map(([name, value]) => {
    const text = value.description ?? meant(value).description;
    return el('li', {}, el('code', {}, name), required.has(name) ? '' : el('small', {}, ' may be absent'), ' ', el('small', {}, kind(value)),
      text && [' – ', words(text)], shape(value, depth + 1));
  });
  return [el('ul', { class: 'shape' }, rows), below];
}

function rows(entries) {
  return el('dl', { class: 'rows' }, entries.map(([term, ...detail]) => el('div', {}, el('dt', {}, term), el('dd', {}, detail))));
}

function parameters(operation) {
  const all = operation.parameters ?? [];
  if (all.length === 0) return null;
  return [el('h3', {}, 'Parameters'), rows(all.map((one) => [
    [el('code', {}, one.name), ' ', el('small', {}, `${one.in}${one.required ? '' : ', may be absent'}`)],
    el('small', {}, kind(one.schema)), one.description && [' – ', words(one.description)],
  ]))];
}

function requestBody(operation) {
  const body = operation.requestBody;
  if (!body) return null;
  const media = Object.entries(body.content).map(([type, { schema }]) => [
    el('code', {}, type), el('small', {}, nameOf(schema) ?? kind(schema)), meant(schema).description && [' – ', words(meant(schema).description)], shape(schema),
  ]);
  return [el('h3', {}, body.required ? 'Body' : 'Body (may be absent)'), rows(media)];
}

function answers(operation) {
  const all = Object.entries(operation.responses).map(([status, given]) => {
    const answer = meant(given);
    const isError = Number(status) >= 400;
    const bodies = Object.entries(answer.content ?? {}).map(([type, { schema }]) => [el('p', {}, el('small', {}, type)), isError ? null : shape(schema)]);
    return [badge(isError ? 'warn' : 'good', status), markdown(answer.description), bodies];
  });
  return [el('h3', {}, 'Answers'), rows(all)];
}

// A text between the single quotes of a shell.
const quoted = (text) => `'${text.replaceAll("'", `'"'"'`)}'`;

function curl(path, method, operation, name) {
  const value = (one) => one.examples?.[name]?.value;
  const given = (place) => (operation.parameters ?? []).filter((one) => one.in === place && value(one) !== undefined);
  let address = path;
  for (const one of given('path')) address = address.replace(`{${one.name}}`, encodeURIComponent(value(one)));
  const query = given('query').map((one) => `${encodeURIComponent(one.name)}=${encodeURIComponent(value(one))}`).join('&');
  const line = ['curl', ...(method === 'GET' ? [] : ['-X', method]), quoted(location.origin + address + (query ? `?${query}` : ''))];
  for (const one of given('header')) line.push('-H', quoted(`${one.name}: ${value(one)}`));
  for (const [type, { examples }] of Object.entries(operation.requestBody?.content ?? {})) {
    if (!examples?.[name]) continue;
    const body = examples[name].value;
    line.push('-H', quoted(`Content-Type: ${type}`), '--data-binary', quoted(type === 'application/json' ? JSON.stringify(body) : body));
  }
  return line.join(' ');
}

function examples(path, method, operation) {
  const all = operation['x-examples'] ?? [];
  if (all.length === 0) return null;
  return [el('h3', {}, 'Examples'), all.map(({ name, summary, status }) => {
    const content = Object.values(meant(operation.responses[status]).content ?? {});
    const answer = content.map((media) => media.examples?.[name]?.value).find((value) => value !== undefined);
    const text = answer === undefined ? '' : `\n${JSON.stringify(answer, null, 2)}`;
    return el('div', { class: 'example' }, el('p', {}, words(summary)), el('pre', {}, `$ ${curl(path, method, operation, name)}\nHTTP ${status}${text}`));
  })];
}

function operation(path, method, one) {
  const box = el('details', { class: 'operation', id: one.operationId, data: { text: `${method} ${path} ${one.summary} ${one.description}`.toLowerCase() } },
    el('summary', {}, el('span', { class: `badge method ${COLOURS[method] ?? 'run'}` }, method), el('span', { class: 'topic' }, path), el('span', { class: 'soft' }, one.summary)));
  // Most are never opened.
  box.addEventListener('toggle', () => {
    if (box.children.length > 1) return;
    box.append(el('div', {}, markdown(one.description), parameters(one), requestBody(one), answers(one), examples(path, method, one)));
  });
  return box;
}

function operationsOf(tag) {
  const all = Object.entries(spec.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => [path, method.toUpperCase(), item[method]]));
  return all.filter(([, , one]) => one.tags.includes(tag));
}

function find(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const box of document.querySelectorAll('.operation')) box.hidden = !wanted.every((word) => box.dataset.text.includes(word));
  for (const group of document.querySelectorAll('.group')) group.hidden = !group.querySelector('.operation:not([hidden])');
}

// Opens what the address names.
function open() {
  const box = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!box?.matches('.operation')) return;
  box.open = true;
  box.scrollIntoView();
}

function show() {
  const groups = spec.tags.map((tag, place) => ({ tag, id: `group-${place}`, all: operationsOf(tag.name) })).filter(({ all }) => all.length > 0);
  fill(document.getElementById('nav'), groups.map(({ tag, id }) => el('a', { href: `#${id}` }, tag.name)));
  const search = el('input', { type: 'search', on: { input: (event) => find(event.target.value) } });
  fill(content,
    el('h1', {}, `${spec.info.title} ${spec.info.version}`),
    markdown(spec.info.description),
    el('div', { class: 'find' }, field('Find', search)),
    groups.map(({ tag, id, all }) => el('section', { class: 'group', id, 'aria-label': tag.name },
      el('h2', {}, tag.name), markdown(tag.description), all.map(([path, method, one]) => operation(path, method, one)))));
  open();
}

async function begin() {
  try {
    const response = await fetch('/openapi.json', { cache: 'no-cache' });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    spec = await response.json();
    show();
  } catch (error) {
    fill(content, el('p', { class: 'alone' }, `The description cannot be shown: ${error.message}`));
  }
}

addEventListener('hashchange', open);
begin();
