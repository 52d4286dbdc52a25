// Drives the web console in Chromium and looks at what it shows: `node drive.mjs CONSOLE BROKER_PORT`, with playwright-core in NODE_MODULES,
// the browser in CHROMIUM, an empty directory in PROFILE, the program in PROGRAM and its process in BUTLER_PID; pictures go to PICTURES.
import assert from 'node:assert'
import { spawn, spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'

const [address, brokerPort] = process.argv.slice(2)
const require = createRequire(path.join(process.env.NODE_MODULES, 'playwright-core/package.json'))
const { chromium } = require('playwright-core')

const views = ['overview', 'live', 'clients', 'retained', 'tasks', 'publish']

let checks = 0
const check = (value, what) => { assert.ok(value, what); checks += 1 }
const checkSame = (...args) => { assert.deepStrictEqual(...args); checks += 1 }

const connection = ['--host', '127.0.0.1', '--port', brokerPort]
const publish = (topic, message, ...more) => {
  const told = spawnSync(process.env.PROGRAM, ['pub', ...connection, '-t', topic, '-m', message, ...more], { encoding: 'utf8' })
  assert.strictEqual(told.status, 0, told.stderr)
}

const browser = await chromium.launchPersistentContext(process.env.PROFILE, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  chromiumSandbox: false,
  viewport: { width: 1280, height: 800 },
  colorScheme: 'light',
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})
const page = browser.pages()[0] ?? await browser.newPage()
page.setDefaultTimeout(15_000)

// Whatever the browser complains about (a violated policy, an error in a script) and whatever it asks of others is a failure.
const complaints = []
let mayFail = true
page.on('console', line => { if (line.type() === 'error' && !mayFail) complaints.push(line.text()) })
page.on('pageerror', error => complaints.push(String(error)))
page.on('dialog', dialog => { complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss() })
page.on('request', request => { if (!request.url().startsWith(address)) complaints.push(`asked ${request.url()}`) })

const shot = async name => {
  if (process.env.PICTURES) await page.screenshot({ path: path.join(process.env.PICTURES, `console-${name}.png`) })
}
const go = async view => {
  await page.goto(`${address}/console#${view}`)
  await page.locator(`section[data-view=${view}]`).waitFor()
}
const notice = text => page.locator('.notice', { hasText: text }).first().waitFor()

// Every control has a name that a screen reader can say.
const nameless = async () => {
  const session = await browser.newCDPSession(page)
  const { nodes } = await session.send('Accessibility.getFullAXTree')
  await session.detach()
  const controls = ['button', 'link', 'textbox', 'searchbox', 'combobox', 'checkbox', 'listbox', 'option', 'spinbutton', 'image', 'navigation', 'list']
  const named = ['list', 'image']
  return nodes
    .filter(node => !node.ignored && controls.includes(node.role?.value) && !named.includes(node.role.value))
    .filter(node => !node.name?.value?.trim())
    .map(node => node.role.value)
}

// Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3), as far as plain colours tell.
const faint = () => page.evaluate(() => {
  const parse = color => (color.match(/[\d.]+/g) ?? []).map(Number)
  const light = ([r, g, b]) => {
    const linear = value => { const part = value / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4 }
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
  }
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor)
      if (color.length === 3 || color[3] > 0) return color
    }
    return [255, 255, 255]
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement
    if (!node.data.trim() || !element.checkVisibility() || element.closest(':disabled, option, noscript, script, .skip')) continue
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))]
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
    if (contrast < 4.5) found.push(`${element.tagName}.${element.className}: ${node.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`)
  }
  return found
})

const wide = () => page.evaluate(() => {
  const width = document.documentElement.clientWidth
  const out = [...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect()
    const scrolls = element.closest('nav, .messages, .tree, pre')
    return box.width > 0 && !scrolls && box.right > width + 1
  })
  return [document.documentElement.scrollWidth > width ? ['the page'] : [], out.map(element => `${element.tagName}.${element.className}`)].flat()
})

// Log-in
await page.goto(`${address}/console`)
const form = page.locator('form.log-in')
await form.waitFor()
await shot('log-in')
checkSame(await page.locator(':focus').getAttribute('name'), 'user')
await page.keyboard.type('admin')
await page.keyboard.press('Tab')
await page.keyboard.type('guess')
await page.keyboard.press('Enter')
await form.locator('.why', { hasText: 'wrong' }).waitFor()
checkSame(await form.locator('input[name=password]').inputValue(), '')
await page.keyboard.type('admin-password')
await page.keyboard.press('Enter')
await page.locator('section[data-view=overview]').waitFor()
// So far the browser complained that nobody was logged in.
mayFail = false
const cookie = (await browser.cookies())[0]
checkSame([cookie.httpOnly, cookie.sameSite], [true, 'Strict'])
checkSame(await page.evaluate(() => [document.cookie, Object.keys(localStorage).length, Object.keys(sessionStorage).length]), ['', 0, 0])

// Overview
await page.locator('#state', { hasText: 'All is well' }).waitFor()
check(await page.locator('.figures').innerText().then(text => text.includes('MQTT clients')), 'figures')
await page.getByRole('button', { name: 'Send test event' }).click()
await page.locator('[data-part=test-outcome]', { hasText: 'Arrived' }).waitFor()
check(await page.locator('.parts', { hasText: 'sense-butler-test' }).count() > 0 || await page.locator('.parts', { hasText: 'sense-butler-test' }).first().waitFor().then(() => true), 'the node of the test event')

// By keyboard alone: the skip button, the brand, the navigation.
await page.goto(`${address}/console#overview`)
await page.reload()
await page.locator('#state', { hasText: 'All is well' }).waitFor()
await page.keyboard.press('Tab')
checkSame(await page.locator(':focus').getAttribute('id'), 'skip')
const visited = []
for (let step = 0; step < 20 && !visited.includes('tasks'); step += 1) {
  await page.keyboard.press('Tab')
  visited.push(await page.locator(':focus').getAttribute('data-view'))
}
check(views.slice(0, 5).every(view => visited.includes(view)), `the navigation by keyboard: ${visited}`)
await page.keyboard.press('Enter')
await page.locator('section[data-view=tasks]').waitFor()
checkSame(await page.locator('#nav a[aria-current=page]').innerText(), 'Tasks')

// Live
await go('live')
await page.locator('.stream-state .good').waitFor()
const rows = page.locator('.message')
const hostile = '<img src=x onerror=alert(1)>'
const begun = Date.now()
publish('plant/line1', hostile)
await rows.filter({ hasText: 'plant/line1' }).first().waitFor()
const took = Date.now() - begun
check(took < 1_000, `a message is seen after ${took} ms`)
await rows.filter({ hasText: 'plant/line1' }).first().click()
const detail = page.locator('[data-part=detail]')
checkSame(await detail.locator('pre').innerText(), hostile)
check((await detail.innerText()).includes('QoS'), 'facts of the message')
await page.getByLabel('Topic filter').fill('plant/#')
await page.keyboard.press('Enter')
await page.locator('.stream-state', { hasText: 'listening to plant/#' }).waitFor()
await page.getByRole('button', { name: 'Clear' }).click()
publish('plant/line1', hostile)
publish('plant/json', '{"a":[1,2]}')
await rows.filter({ hasText: 'plant/json' }).first().waitFor()
await page.locator('.messages').focus()
await page.keyboard.press('Home')
checkSame(await detail.locator('h2').innerText(), 'plant/json')
checkSame(await detail.locator('pre').innerText(), '{\n  "a": [\n    1,\n    2\n  ]\n}')
await page.keyboard.press('ArrowDown')
checkSame(await detail.locator('h2').innerText(), 'plant/line1')

await page.getByLabel('Topic filter').fill('plant/+/state')
await page.keyboard.press('Enter')
await page.locator('.stream-state', { hasText: 'listening to plant/+/state' }).waitFor()
await page.getByRole('button', { name: 'Clear' }).click()
publish('plant/line1', 'not this one')
publish('plant/line2/state', 'this one')
await rows.filter({ hasText: 'this one' }).first().waitFor()
checkSame(await rows.locator('.topic').allTextContents(), ['plant/line2/state'])

await page.getByRole('button', { name: 'Pause' }).click()
publish('plant/line3/state', 'while paused')
await page.locator('[data-part=count]', { hasText: 'paused, 1 new' }).waitFor()
checkSame(await rows.count(), 1)
await page.getByRole('button', { name: 'Go on' }).click()
checkSame(await rows.locator('.topic').allTextContents(), ['plant/line3/state', 'plant/line2/state'])

mayFail = true
await page.getByLabel('Topic filter').fill('a#')
await page.keyboard.press('Enter')
await page.locator('.stream-state .bad', { hasText: 'filter' }).waitFor()
mayFail = false
check(true, 'a wrong filter is explained')

// Tasks
await go('tasks')
const tasks = page.locator('[data-part=tasks] .card')
await tasks.first().waitFor()
await page.getByLabel('Find task').fill('sales')
await page.waitForFunction(() => [...document.querySelectorAll('[data-part=tasks] .card b')].every(name => /sales/i.test(name.textContent)))
check(await tasks.count() > 0, 'the search finds tasks')
await page.getByRole('button', { name: 'Start Reload Sales', exact: true }).click()
await notice('Reload Sales: started')
const run = page.locator('[data-part=executions] li', { hasText: 'Reload Sales' }).first()
await run.waitFor()
await page.locator('[data-part=executions] li[data-status=started]', { hasText: 'Reload Sales' }).waitFor()
check((await run.innerText()).includes('by admin (rest)'), 'who started it')
await page.getByLabel('Find task').fill('slow')
await page.getByRole('button', { name: /^Start .*slow/ }).first().click()
const slow = page.locator('[data-part=executions] li', { hasText: 'slow' }).first()
await slow.getByRole('button', { name: /^Stop/ }).click()
await notice('was asked to stop it')
await page.locator('[data-part=executions] li[data-status=aborted]', { hasText: 'slow' }).waitFor({ timeout: 30_000 })
await page.locator('[data-part=executions] li[data-status=finished]', { hasText: 'Reload Sales' }).waitFor({ timeout: 30_000 })
check(true, 'executions as they run')
await page.getByLabel('Find task').fill('')
await page.waitForFunction(() => document.querySelectorAll('[data-part=tasks] .card').length > 5)

// Clients: one calls itself what a careless page would run.
const listen = name => spawn(process.env.PROGRAM, ['sub', ...connection, '-t', 'plant/#', '-t', 'qliksense/+', '--client-id', name], { stdio: 'ignore' })
const subscribers = [listen(hostile), listen('press 7/å')]
await go('clients')
const card = page.locator('.card', { hasText: 'press 7/å' })
await card.waitFor()
await page.locator('.card', { hasText: hostile }).waitFor()
await card.locator('summary').click()
await card.locator('.filters', { hasText: 'qliksense/+' }).waitFor()
check((await card.innerText()).includes('plant/#'), 'subscriptions of a client')

await page.getByLabel('Find').fill('PRESS')
checkSame(await page.locator('.card').count(), 1)
await page.getByRole('button', { name: 'Disconnect press 7/å' }).focus()
await page.keyboard.press('Enter')
const dialog = page.locator('dialog')
await dialog.waitFor()
await page.keyboard.press('Escape')
await dialog.waitFor({ state: 'detached' })
checkSame(await card.count(), 1)
const ended = new Promise(resolve => subscribers[1].once('exit', resolve))
await page.getByRole('button', { name: 'Disconnect press 7/å' }).click()
await dialog.getByRole('button', { name: 'Disconnect' }).click()
await notice('press 7/å was disconnected')
await ended
await card.waitFor({ state: 'detached' })
check(true, 'the client is gone')

// Retained
for (const [topic, message] of [['plant/line1/state', 'running'], ['plant/line1/speed', '7'], ['plant/line2/state', hostile], [`${hostile}/x`, 'y']]) {
  publish(topic, message, '--retain')
}
await go('retained')
const tree = page.locator('.tree')
await tree.getByRole('button', { name: 'Show plant/line1/state' }).click()
checkSame(await detail.locator('pre').innerText(), 'running')
check((await tree.innerText()).includes(hostile), 'a level is text whatever it is called')

await detail.getByRole('button', { name: 'Remove plant/line1/state' }).click()
await dialog.getByRole('button', { name: 'Remove' }).click()
await notice('plant/line1/state was removed')
await tree.getByRole('button', { name: 'Show plant/line1/state' }).waitFor({ state: 'detached' })
await page.getByLabel('Topic filter').fill('plant/line2/#')
await page.keyboard.press('Enter')
await page.getByText('1 retained message', { exact: true }).waitFor()
check(true, 'the filter of the tree')

// Publish
await go('publish')
await page.getByRole('textbox', { name: /^Topic/ }).fill('plant/by-hand')
await page.getByRole('textbox', { name: 'Message' }).fill('hello')
await page.getByRole('checkbox').check()
await page.getByRole('button', { name: 'Publish' }).click()
await notice('Published on plant/by-hand')
mayFail = true
await page.getByRole('textbox', { name: /^Topic/ }).fill('qliksense/task_failure')
await page.getByRole('button', { name: 'Publish' }).click()
await notice('own topics')
mayFail = false
await go('retained')
await tree.getByRole('button', { name: 'Show plant/by-hand' }).waitFor()
check(true, 'what was published as retained is kept')

await page.locator('.notice.bad button').click()
await page.locator('.notice').first().waitFor({ state: 'detached' })

// Looks: every view, wide and narrow, light and dark.
publish('plant/line1/state', 'running', '--retain')
for (const colorScheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme })
  for (const width of [1280, 400]) {
    await page.setViewportSize({ width, height: 800 })
    for (const view of views) {
      await go(view)
      if (view === 'live') {
        await page.locator('.stream-state .good').waitFor()
        await page.evaluate(() => fetch('/console/test-event', { method: 'POST', headers: { 'x-sense-butler-console': '1' }, body: '{"kind":"succeeded"}' }))
        for (const [topic, message] of [['plant/line1', '{"speed":7,"unit":"m/s"}'], ['plant/line2/state', 'running'], ['plant/line3/temperature', '21.5'], ['plant/line3/state', 'waiting for material'], ['q/with/a/very/long/topic/that/goes/on/and/on/for/a/while', 'x'.repeat(300)]]) publish(topic, message)
        await rows.filter({ hasText: 'very/long' }).first().waitFor()
        await rows.filter({ hasText: 'speed' }).first().click()
      }
      if (view === 'tasks') await tasks.first().waitFor()
      if (view === 'clients') await page.locator('.card').first().waitFor()
      if (view === 'overview') await page.locator('.figures dd').first().waitFor()
      if (view === 'retained') await tree.locator('button').first().waitFor()
      checkSame(await faint(), [])
      checkSame(await wide(), [])
      if (width === 400) await shot(`${view}-400-${colorScheme}`)
      if (width === 1280) await shot(`${view}-${colorScheme}`)
    }
  }
}
await page.emulateMedia({ colorScheme: 'light' })
await page.setViewportSize({ width: 1280, height: 800 })
const unnamed = []
for (const view of views) {
  await go(view)
  await page.locator('section[data-view] *').first().waitFor()
  unnamed.push(...await nameless())
}
checkSame(unnamed, [])
checkSame(await page.locator('img:not([src="/console/icon.svg"])').count(), 0)

// Log out, and in as somebody who may only look.
await page.getByRole('button', { name: 'Log out' }).click()
await form.waitFor()
await page.getByLabel('User').fill('watcher')
await page.getByLabel('Password').fill('watcher-password')
await page.keyboard.press('Enter')
await page.locator('#nav').waitFor()
checkSame(await page.locator('#nav a').evaluateAll(links => links.map(link => link.dataset.view)), views.slice(0, 5))
await go('overview')
checkSame(await page.getByRole('button', { name: 'Send test event' }).isDisabled(), true)
await go('tasks')
await tasks.first().waitFor()
checkSame(await tasks.getByRole('button', { disabled: false }).count(), 0)

// The program stops: the page says so, and does not stand there as if all were well.
mayFail = true
process.kill(Number(process.env.BUTLER_PID))
await page.locator('#state', { hasText: 'No answer' }).waitFor()

check(true, 'a program that is gone is told')

subscribers.forEach(subscriber => subscriber.kill())
await browser.close()
checkSame(complaints, [])
console.log(`${checks} checks`)
