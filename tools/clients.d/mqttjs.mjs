// One row of the table of clients: mqtt.js. Each check asserts; the number of checks is printed.
//
// Usage: node mqttjs.mjs VERSION(3|5) TRANSPORT(tcp|tls|ws|wss) PORT CA
// The package is looked up where NODE_MODULES says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const mqtt = createRequire(process.env.NODE_MODULES + "/")("mqtt");
const [version, transport, port, ca] = process.argv.slice(2);
const five = version === "5";
const root = `mqttjs/${version}/${transport}`;
const patience = 30_000;
let checks = 0;

const check = (actual, expected, what) => {
  assert.deepEqual(actual, expected, what);
  checks += 1;
};

const within = (promise, what) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`${what}: nothing in time`)), patience).unref())]);

class Client {
  static async open(name, { clean = true, will } = {}) {
    const self = new Client();
    self.waiting = [];
    self.messages = [];
    const scheme = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" }[transport];
    const path = transport.startsWith("w") ? "/mqtt" : "";
    const options = {
      clientId: `${root}/${name}`,
      protocolVersion: five ? 5 : 4,
      clean,
      reconnectPeriod: 0,
      ca: transport === "tls" || transport === "wss" ? readFileSync(ca) : undefined,
      will: will && { topic: `${root}/will`, payload: will, qos: 1 },
      properties: five && !clean ? { sessionExpiryInterval: 3600 } : undefined,
    };
    self.mqtt = mqtt.connect(`${scheme}://localhost:${port}${path}`, options);
    self.mqtt.on("message", (topic, payload, packet) => {
      const message = { topic, payload: payload.toString(), packet };
      const next = self.waiting.shift();
      if (next) next(message);
      else self.messages.push(message);
    });
    const connack = await within(
      new Promise((yes, no) => {
        self.mqtt.once("connect", yes);
        self.mqtt.once("error", no);
      }),
      name,
    );
    self.mqtt.on("error", () => {});
    check(connack.reasonCode ?? connack.returnCode, 0, `${name} is let in`);
    self.present = connack.sessionPresent;
    return self;
  }

  async subscribe(topic, qos) {
    const granted = await within(this.mqtt.subscribeAsync(topic, { qos }), topic);
    check(granted[0].qos, qos, topic);
  }

  publish(topic, payload, qos = 1, retain = false, properties = undefined) {
    return within(this.mqtt.publishAsync(topic, payload, { qos, retain, properties }), topic);
  }

  next() {
    const message = this.messages.shift();
    return message ? Promise.resolve(message) : within(new Promise((yes) => this.waiting.push(yes)), "a message");
  }

  leave() {
    return this.mqtt.endAsync();
  }

  vanish() {
    // Without a DISCONNECT, a close frame or a TLS alert.
    const stream = this.mqtt.stream;
    (stream.socket?._socket ?? stream._socket ?? stream).destroy();
  }
}

async function qualities() {
  const [subscriber, publisher] = [await Client.open("sub"), await Client.open("pub")];
  for (const qos of [0, 1, 2]) {
    const topic = `${root}/qos/${qos}/å`;
    await subscriber.subscribe(topic, qos);
    for (let number = 0; number < 10; number++) await publisher.publish(topic, String(number), qos);
    for (let number = 0; number < 10; number++) {
      const got = await subscriber.next();
      check([got.payload, got.packet.qos], [String(number), qos], `QoS ${qos}`);
    }
  }
  const big = "x".repeat(100_000);
  await publisher.publish(`${root}/qos/1/å`, big);
  check((await subscriber.next()).payload, big, "100,000 bytes");
  await subscriber.leave();
  await publisher.leave();
}

async function retained() {
  const topic = `${root}/retained`;
  const publisher = await Client.open("retainer");
  await publisher.publish(topic, "kept", 1, true);
  const late = await Client.open("late");
  await late.subscribe(topic, 1);
  const got = await late.next();
  check([got.payload, got.packet.retain], ["kept", true], "kept for the late");
  await publisher.publish(topic, "", 1, true);
  check((await late.next()).payload, "", "the removal is told");
  await publisher.leave();
  await late.leave();
}

async function wills() {
  const witness = await Client.open("witness");
  await witness.subscribe(`${root}/will`, 1);
  await (await Client.open("polite", { will: "polite" })).leave();
  (await Client.open("mortal", { will: "gone" })).vanish();
  check((await witness.next()).payload, "gone", "the will of who vanished, and of nobody else");
  await witness.leave();
}

async function sessions() {
  const topic = `${root}/kept`;
  const first = await Client.open("keeps", { clean: false });
  check(first.present, false, "a new session");
  await first.subscribe(topic, 2);
  await first.leave();
  const publisher = await Client.open("meanwhile");
  for (const qos of [1, 2]) await publisher.publish(topic, `qos ${qos}`, qos);
  const again = await Client.open("keeps", { clean: false });
  check(again.present, true, "the session is there");
  check([(await again.next()).payload, (await again.next()).payload], ["qos 1", "qos 2"], "what came meanwhile");
  await again.leave();
  await (await Client.open("keeps")).leave();
  await publisher.leave();
}

async function shared() {
  const members = [await Client.open("member-0"), await Client.open("member-1")];
  for (const member of members) await member.subscribe(`$share/group/${root}/shared`, 1);
  const publisher = await Client.open("sharer");
  for (let number = 0; number < 20; number++) await publisher.publish(`${root}/shared`, String(number));
  const got = [];
  for (let number = 0; number < 10; number++) for (const member of members) got.push(Number((await member.next()).payload));
  check(got.sort((a, b) => a - b), [...Array(20).keys()], "each message at one member, ten each");
  for (const client of [...members, publisher]) await client.leave();
}

async function properties() {
  const [subscriber, publisher] = [await Client.open("hears"), await Client.open("speaks")];
  await subscriber.subscribe(`${root}/properties`, 1);
  const sent = {
    userProperties: { a: ["1", "2"], å: "日本" },
    messageExpiryInterval: 1000,
    contentType: "text/plain",
    responseTopic: "answers",
    correlationData: Buffer.from([0, 255]),
  };
  await publisher.publish(`${root}/properties`, "x", 1, false, sent);
  const got = (await subscriber.next()).packet.properties;
  check({ ...got.userProperties }, sent.userProperties, "user properties");
  check(got.messageExpiryInterval > 0 && got.messageExpiryInterval <= 1000, true, "what is left of the expiry");
  check([got.contentType, got.responseTopic, [...got.correlationData]], ["text/plain", "answers", [0, 255]], "the rest");
  await subscriber.leave();
  await publisher.leave();
}

for (const part of [qualities, retained, wills, sessions, shared]) await part();
if (five) await properties();
console.log(`${checks} checks`);
process.exit(0);
