// qrs-interact against the simulated site: `node qrs_interact.cjs PORT CERTIFICATES`, with its node_modules in NODE_MODULES.
'use strict'
const assert = require('node:assert')
const path = require('node:path')
const modules = process.env.NODE_MODULES
const Client = require(path.join(modules, 'qrs-interact'))

const [port, certificates] = process.argv.slice(2)
const sample = '5a1e5000-0000-4000-8000-000000000001'
const disabled = '5a1e5000-0000-4000-8000-000000000006'
let checks = 0
const check = (...args) => { assert.deepStrictEqual(...args); checks += 1 }
const wrong = async promise => {
  const answer = await promise.then(() => 'no error', error => error.message)
  return answer
}

async function main () {
  console.log(`version ${require(path.join(modules, 'qrs-interact/package.json')).version}`)
  const client = new Client({
    hostname: '127.0.0.1',
    portNumber: Number(port),
    localCertPath: certificates,
    repoAccount: 'UserDirectory=INTERNAL; UserId=sa_api'
  })
  const about = (await client.Get('about')).body
  check(about.schemaPath, 'About')
  const tagged = (await client.Get("task/full?filter=tags.name eq 'mqtt'")).body
  check(tagged.length, 4)
  const cockpit = (await client.Get("reloadtask?filter=name eq 'Reload Director\\'s cockpit'")).body
  check(cockpit.map(task => task.name), ["Reload Director's cockpit"])
  const started = await client.Post(`task/${sample}/start/synchronous`, '')
  check(started.statusCode, 201)
  const session = started.body.value
  const sessions = (await client.Get(`executionsession/full?filter=reloadTask.id eq ${sample}`)).body
  check(sessions.map(each => each.id), [session])
  let last
  do { last = await wrong(client.Get(`executionsession/${session}`)) } while (last === 'no error')
  check(last, 'Received error code: 404::The object does not exist')
  const results = (await client.Get(`executionresult/full?filter=ExecutionId eq ${session}`)).body
  check(results.map(result => [result.status, result.taskID]), [[7, sample]])
  const doubled = await wrong(client.Get("task?filter=name eq 'Director''s'"))
  check(doubled, "Received error code: 400::Cannot parse the expression: name eq 'Director''s'")
  const idle = await client.Post(`task/${disabled}/start/synchronous`, '')
  check(idle.body.value, '00000000-0000-0000-0000-000000000000')
  console.log(`${checks} checks`)
}

main().catch(error => { console.error(error); process.exit(1) })
