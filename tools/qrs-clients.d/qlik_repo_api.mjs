// qlik-repo-api against the simulated site: `node qlik_repo_api.mjs PORT CERTIFICATES`, with its node_modules in NODE_MODULES.
import assert from 'node:assert'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const modules = process.env.NODE_MODULES
const { QlikRepoApi } = await import(pathToFileURL(path.join(modules, 'qlik-repo-api/dist/index.js')))
const [port, certificates] = process.argv.slice(2)
const read = name => readFileSync(path.join(certificates, name))
const sample = '5a1e5000-0000-4000-8000-000000000001'
const disabled = '5a1e5000-0000-4000-8000-000000000006'
let checks = 0
const check = (...args) => { assert.deepStrictEqual(...args); checks += 1 }
const wrong = promise => promise.then(() => undefined, error => error)

console.log(`version ${JSON.parse(readFileSync(path.join(modules, 'qlik-repo-api/package.json'))).version}`)
const client = new QlikRepoApi.client({
  host: '127.0.0.1',
  port: Number(port),
  httpsAgent: new https.Agent({ ca: read('root.pem'), cert: read('client.pem'), key: read('client_key.pem') }),
  authentication: { user_dir: 'INTERNAL', user_name: 'sa_api' }
})
const about = await client.about.get()
check(about.schemaPath, 'About')
const tagged = await client.reloadTasks.getFilter({ filter: "tags.name eq 'plant'" })
check(tagged.length, 2)
const cockpit = await client.reloadTasks.getFilter({ filter: "name eq 'Reload Director\\'s cockpit'" })
check(cockpit.map(task => task.details.name), ["Reload Director's cockpit"])
const task = await client.reloadTasks.get({ id: sample })
const session = (await task.startSynchronous()).data.value
const sessions = await client.executionSessions.getFilter({ filter: `reloadTask.id eq ${sample}` })
check(sessions.map(each => each.details.id), [session])
// Follows the result the session names until it is no longer running.
const ended = await task.waitExecution({ executionId: session })
check([ended.status, ended.executionID], [7, session])
const gone = await wrong(client.executionSessions.get({ id: session }))
check(gone?.message, 'Request failed with status code 404')
const results = await client.executionResults.getFilter({ filter: `ExecutionId eq ${session}` })
check(results.map(result => result.details.status), [7])
const doubled = await wrong(client.reloadTasks.getFilter({ filter: "name eq 'Director''s'" }))
check(doubled?.message, 'Request failed with status code 400')
const idle = await client.reloadTasks.get({ id: disabled })
check((await idle.startSynchronous()).data.value, '00000000-0000-0000-0000-000000000000')
console.log(`${checks} checks`)
