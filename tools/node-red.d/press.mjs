// Presses the buttons of the example flow in a running Node-RED and looks at what its debug nodes show:
// `node press.mjs buttons|leave|come-back NODE_RED BROKER_PORT CONTROL FLOW`, with Node-RED in NODE_MODULES.
import assert from 'node:assert'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const [part, nodeRed, brokerPort, control, flowFile] = process.argv.slice(2)
const require = createRequire(path.join(process.env.NODE_MODULES, '@node-red/editor-api/package.json'))
const WebSocket = require('ws')
const sales = '5a1e5000-0000-4000-8000-000000000001'
const failing = '5a1e5000-0000-4000-8000-000000000003'
const nobody = '00000000-0000-4000-8000-0000000000ff'
const patience = 60_000

let checks = 0
const check = (...args) => { assert.deepStrictEqual(...args); checks += 1 }
const checkMatch = (...args) => { assert.match(...args); checks += 1 }

const flow = JSON.parse(readFileSync(flowFile, 'utf8'))
const idOf = name => flow.find(node => node.name === name).id

// What the debug nodes showed, and the latest state of every node, as the editor's side bar and workspace have them.
const shown = []
const state = {}
let wake = () => {}

const listen = () => new Promise((resolve, reject) => {
  const socket = new WebSocket(`${nodeRed.replace('http', 'ws')}/comms`)
  socket.on('error', reject)
  socket.on('open', () => {
    socket.send(JSON.stringify({ subscribe: 'status/#' }))
    resolve(socket)
  })
  socket.on('message', text => {
    for (const { topic, data } of [JSON.parse(text)].flat()) {
      if (topic === 'debug') shown.push([data.name, data.msg])
      if (topic?.startsWith('status/')) state[topic.slice('status/'.length)] = data.text
    }
    wake()
  })
})

const until = async (what, holds) => {
  const end = Date.now() + patience
  while (!holds()) {
    const left = end - Date.now()
    assert.ok(left > 0, `${what}: not within a minute; shown: ${JSON.stringify(shown)}, state: ${JSON.stringify(state)}`)
    await new Promise(resolve => { wake = resolve; setTimeout(resolve, Math.min(left, 500)) })
  }
}

const of = name => shown.filter(([node]) => node === name).map(([, text]) => text)

const ask = async (method, address, body) => {
  const headers = { 'Content-Type': 'application/json', 'Node-RED-Deployment-Type': 'full' }
  return fetch(address, { method, headers, body: body && JSON.stringify(body) })
}

// `payload`: instead of the one the button holds.
const press = async (name, payload) => {
  const body = payload && { __user_inject_props__: [{ p: 'payload', v: payload, vt: 'str' }] }
  check((await ask('POST', `${nodeRed}/inject/${idOf(name)}`, body)).status, 200)
}

const connected = () => until('connected to the broker', () => ['start', 'answers'].every(name => /connected$/.test(state[idOf(name)] ?? '') && !/disconnected$/.test(state[idOf(name)])))

const buttons = async () => {
  console.log(`version ${(await (await ask('GET', `${nodeRed}/settings`)).json()).version}`)
  const deployed = flow.map(node => node.type === 'mqtt-broker' ? { ...node, broker: '127.0.0.1', port: brokerPort } : node)
  check((await ask('POST', `${nodeRed}/flows`, deployed)).status, 204)
  await connected()

  await press('Reload Sales')
  await until('the answer of a task that finishes', () => of('done').length > 0)
  checkMatch(of('done')[0], /^Reload Sales: finished in \d+\.\d s$/)
  check(of('on the way'), ['started'])
  check(state[idOf('done')], of('done')[0])

  await press('A reload that fails')
  await until('the answer of a task that fails', () => of('not done').length > 0)
  const lines = of('not done')[0].split('\n')
  checkMatch(lines[0], /^Reload of Test failing reloads 1 .*: failed, FinishedFail$/)
  check(lines.length, 6)
  checkMatch(of('not done')[0], /Error: Field 'Amount' not found/)
  checkMatch(lines[5], /Execution finished\.$/)
  check(of('on the way'), ['started', 'started'])

  await press('Reload Sales', nobody)
  await until('the answer where there is no such task', () => of('not done').length > 1)
  checkMatch(of('not done')[1], new RegExp(`^${nobody}: unknown_task, `))
  check([of('done').length, of('not done').length], [1, 2])

  const { starts } = await (await fetch(`${control}/starts`)).json()
  check(starts.map(start => [start.taskId, start.by]), [[sales, 'call'], [failing, 'call']])
  console.log(shown.map(([node, text]) => `[${node}] ${text}`).join('\n'))
}

const leave = async () => {
  await connected()
  await press('Reload Sales')
  await until('it started', () => of('on the way').length > 0)
  check(of('done'), [])
}

const comeBack = async () => {
  await until('the answer that waited', () => state[idOf('done')] !== undefined)
  checkMatch(state[idOf('done')], /^Reload Sales: finished in \d+\.\d s$/)
  const { starts } = await (await fetch(`${control}/starts`)).json()
  check(starts.length, 3)
}

const socket = await listen()
await { buttons, leave, 'come-back': comeBack }[part]()
socket.close()
console.log(`${checks} checks`)
process.exit(0)
