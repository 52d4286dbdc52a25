"""One row of the table of clients: paho-mqtt. Each check asserts; the number of checks is printed.

Usage: paho_row.py VERSION(3|5) TRANSPORT(tcp|tls|ws|wss) PORT CA
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 30
VERSION = mqtt.MQTTv5 if sys.argv[1] == "5" else mqtt.MQTTv311
TRANSPORT, PORT, CA = sys.argv[2], int(sys.argv[3]), sys.argv[4]
ROOT = f"paho/{sys.argv[1]}/{TRANSPORT}"
checks = 0


def check(condition, what):
    global checks
    assert condition, what
    checks += 1


class Client:
    def __init__(self, name, clean=True, will=None):
        self.connack, self.suback, self.messages = queue.Queue(), queue.Queue(), queue.Queue()
        arguments = {} if VERSION == mqtt.MQTTv5 else {"clean_session": clean}
        web = TRANSPORT in ("ws", "wss")
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{ROOT}/{name}",
            protocol=VERSION,
            transport="websockets" if web else "tcp",
            **arguments,
        )
        if web:
            self.mqtt.ws_set_options(path="/mqtt")
        if TRANSPORT in ("tls", "wss"):
            self.mqtt.tls_set(ca_certs=CA)
        self.mqtt.on_connect = lambda _c, _u, flags, code, _p: self.connack.put((flags.session_present, code))
        self.mqtt.on_subscribe = lambda _c, _u, _mid, codes, _p: self.suback.put(codes)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.mqtt.will_set(f"{ROOT}/will", will, 1)
        options = {}
        if VERSION == mqtt.MQTTv5:
            options = {"clean_start": clean, "properties": Properties(PacketTypes.CONNECT)}
            if not clean:
                options["properties"].SessionExpiryInterval = 3600
        self.mqtt.connect("localhost", PORT, 60, **options)
        self.mqtt.loop_start()
        self.present, code = self.connack.get(timeout=PATIENCE)
        check(code == 0, f"{name} is let in: {code}")

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        code = self.suback.get(timeout=PATIENCE)[0].value
        check(code == qos, f"{topic} at QoS {qos}: {code}")

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        self.mqtt.publish(topic, payload, qos, retain, properties).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def vanish(self):
        thread = threading.Thread(target=self.mqtt.loop_stop)
        sock = self.mqtt.socket()
        # A WebSocket or TLS wrapper says goodbye by itself when closed; the socket below it does not.
        sock = getattr(sock, "_socket", sock)
        sock.shutdown(2)
        sock.close()
        thread.start()
        thread.join(PATIENCE)


def qualities():
    subscriber, publisher = Client("sub"), Client("pub")
    for qos in range(3):
        topic = f"{ROOT}/qos/{qos}/å"
        subscriber.subscribe(topic, qos)
        for number in range(10):
            publisher.publish(topic, str(number), qos)
        for number in range(10):
            got = subscriber.next()
            check((got.payload, got.qos) == (str(number).encode(), qos), f"QoS {qos}: {number}")
    big = b"x" * 100_000
    publisher.publish(f"{ROOT}/qos/1/å", big)
    check(subscriber.next().payload == big, "100,000 bytes")
    subscriber.leave()
    publisher.leave()


def retained():
    topic = f"{ROOT}/retained"
    publisher = Client("retainer")
    publisher.publish(topic, "kept", 1, True)
    late = Client("late")
    late.subscribe(topic, 1)
    got = late.next()
    check((got.payload, got.retain) == (b"kept", True), "kept for the late")
    publisher.publish(topic, b"", 1, True)
    check(late.next().payload == b"", "the removal is told")
    publisher.leave()
    late.leave()


def wills():
    witness = Client("witness")
    witness.subscribe(f"{ROOT}/will", 1)
    Client("polite", will="polite").leave()
    Client("mortal", will="gone").vanish()
    check(witness.next().payload == b"gone", "the will of who vanished, and of nobody else")
    witness.leave()


def sessions():
    topic = f"{ROOT}/kept"
    first = Client("keeps", clean=False)
    check(not first.present, "a new session")
    first.subscribe(topic, 2)
    first.leave()
    publisher = Client("meanwhile")
    for qos in (1, 2):
        publisher.publish(topic, f"qos {qos}", qos)
    again = Client("keeps", clean=False)
    check(again.present, "the session is there")
    check([again.next().payload for _ in range(2)] == [b"qos 1", b"qos 2"], "what came meanwhile")
    again.leave()
    Client("keeps").leave()
    publisher.leave()


def shared():
    members = [Client(f"member-{number}") for number in range(2)]
    for member in members:
        member.subscribe(f"$share/group/{ROOT}/shared", 1)
    publisher = Client("sharer")
    for number in range(20):
        publisher.publish(f"{ROOT}/shared", str(number))
    # The last two tell each member that nothing else is on its way: turns are taken.
    got = [member.next().payload for _ in range(10) for member in members]
    check(sorted(map(int, got)) == list(range(20)), "each message at one member, ten each")
    for client in (*members, publisher):
        client.leave()


def properties():
    subscriber, publisher = Client("hears"), Client("speaks")
    subscriber.subscribe(f"{ROOT}/properties", 1)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("a", "2"), ("å", "日本")]
    sent.MessageExpiryInterval = 1000
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/plain", "answers", b"\x00\xff"
    publisher.publish(f"{ROOT}/properties", "x", 1, False, sent)
    got = subscriber.next().properties
    check(got.UserProperty == sent.UserProperty, "user properties in order")
    check(0 < got.MessageExpiryInterval <= 1000, "what is left of the expiry")
    check((got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answers", b"\x00\xff"), "the rest")
    subscriber.leave()
    publisher.leave()


for part in (qualities, retained, wills, sessions, shared):
    part()
if VERSION == mqtt.MQTTv5:
    properties()
print(f"{checks} checks")
