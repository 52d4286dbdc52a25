"""What a Python program with paho-mqtt does with a broker, in MQTT 3.1.1 and 5: each check asserts, the number of checks is printed.

Usage: clients.py PORT USERS_PORT NAME PASSWORD   (PORT lets anybody in, USERS_PORT only NAME with PASSWORD)
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 60
PORT, USERS_PORT, NAME, PASSWORD = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
checks = 0


def check(condition, what):
    global checks
    assert condition, what
    checks += 1


class Client:
    """A connected client whose callbacks end in queues."""

    def __init__(self, version, name, port=PORT, clean=True, keepalive=60, user=None, will=None):
        self.version = version
        self.connack, self.suback, self.acked, self.messages = (queue.Queue() for _ in range(4))
        arguments = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **arguments)
        self.mqtt.on_connect = lambda _c, _u, flags, code, _p: self.connack.put((flags.session_present, code))
        self.mqtt.on_subscribe = lambda _c, _u, _mid, codes, _p: self.suback.put(codes)
        self.mqtt.on_publish = lambda _c, _u, mid, _code, _p: self.acked.put(mid)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        if user:
            self.mqtt.username_pw_set(*user)
        if will:
            self.mqtt.will_set(*will)
        options = {}
        if version == mqtt.MQTTv5:
            options["clean_start"] = clean
            options["properties"] = Properties(PacketTypes.CONNECT)
            if not clean:
                options["properties"].SessionExpiryInterval = 3600
        self.mqtt.connect("127.0.0.1", port, keepalive, **options)
        self.mqtt.loop_start()
        self.present, self.code = self.connack.get(timeout=PATIENCE)

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        return self.suback.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        self.mqtt.publish(topic, payload, qos, retain, properties).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def vanish(self):
        """Without DISCONNECT: the broker has to notice by itself."""
        thread = threading.Thread(target=self.mqtt.loop_stop)
        self.mqtt.socket().close()
        thread.start()
        thread.join(PATIENCE)


def quality_of_service(version, tag):
    subscriber = Client(version, f"paho/{tag}/sub/å")
    check(subscriber.code == 0, "a client id with slashes and a letter beyond ASCII")
    check(subscriber.subscribe(f"paho/{tag}/å/ö/日本", 2)[0].value == 2, "QoS 2 granted")
    publisher = Client(version, f"paho-{tag}-pub")
    for number in range(60):
        publisher.publish(f"paho/{tag}/å/ö/日本", str(number), number % 3)
    # paho hands a QoS 2 message over at its PUBREL, so the order holds within each quality of service.
    arrived = {0: [], 1: [], 2: []}
    for _ in range(60):
        message = subscriber.next()
        check(message.topic == f"paho/{tag}/å/ö/日本", message.topic)
        arrived[message.qos].append(int(message.payload))
    for qos in range(3):
        check(arrived[qos] == list(range(qos, 60, 3)), f"QoS {qos}: {arrived[qos]}")
    subscriber.leave()
    publisher.leave()


def retained(version, tag):
    topic = f"paho/{tag}/retained"
    publisher = Client(version, f"paho-{tag}-retainer")
    publisher.publish(topic, "kept", 1, True)
    subscriber = Client(version, f"paho-{tag}-late")
    subscriber.subscribe(topic, 1)
    message = subscriber.next()
    check((message.payload, message.retain) == (b"kept", True), "a retained message comes to the late")
    publisher.publish(topic, "live", 1, False)
    message = subscriber.next()
    check((message.payload, message.retain) == (b"live", False), "a live one is not marked as retained")
    publisher.publish(topic, b"", 1, True)
    check(subscriber.next().payload == b"", "the removal is a message, too")
    later = Client(version, f"paho-{tag}-later")
    later.subscribe(topic, 1)
    publisher.publish(topic, "mark", 1, False)
    check(later.next().payload == b"mark", "nothing is kept after the removal")
    for client in (publisher, subscriber, later):
        client.leave()


def will(version, tag):
    topic = f"paho/{tag}/will"
    witness = Client(version, f"paho-{tag}-witness")
    witness.subscribe(topic, 1)
    polite = Client(version, f"paho-{tag}-polite", will=(topic, "polite", 1, False))
    polite.leave()
    mortal = Client(version, f"paho-{tag}-mortal", will=(topic, "gone", 1, False))
    mortal.vanish()
    check(witness.next().payload == b"gone", "the will of who vanished, and not of who said goodbye")
    witness.leave()


def persistent(version, tag):
    topic, name = f"paho/{tag}/kept", f"paho-{tag}-keeps"
    first = Client(version, name, clean=False)
    check(not first.present, "a new session")
    first.subscribe(topic, 2)
    first.leave()
    publisher = Client(version, f"paho-{tag}-meanwhile")
    for qos in (1, 2):
        publisher.publish(topic, f"qos {qos}", qos)
    second = Client(version, name, clean=False)
    check(second.present, "the session was kept")
    check([second.next().payload for _ in range(2)] == [b"qos 1", b"qos 2"], "what came meanwhile, in order")
    second.leave()
    fresh = Client(version, name, clean=True)
    check(not fresh.present, "a clean start forgets it")
    fresh.leave()
    publisher.leave()


def keep_alive_zero(version, tag):
    client = Client(version, f"paho-{tag}-for-ever", keepalive=0)
    check(client.code == 0, "keep-alive 0 is taken")
    client.subscribe(f"paho/{tag}/for-ever", 1)
    client.publish(f"paho/{tag}/for-ever", "x")
    check(client.next().payload == b"x", "and works")
    client.leave()


def passwords(version, tag):
    right = Client(version, f"paho-{tag}-right", USERS_PORT, user=(NAME, PASSWORD))
    check(right.code == 0, "the right password")
    right.leave()
    for user, word in (((NAME, "wrong"), "Bad user name or password"), (None, "Not authorized")):
        refused = Client(version, f"paho-{tag}-refused", USERS_PORT, user=user)
        check(refused.code.is_failure and str(refused.code) == word, f"{user}: {refused.code}")
        refused.mqtt.loop_stop()


def properties_end_to_end():
    subscriber = Client(mqtt.MQTTv5, "paho-5-properties")
    subscriber.subscribe("paho/5/properties", 1)
    publisher = Client(mqtt.MQTTv5, "paho-5-sender")
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("a", "2"), ("å", "日本")]
    sent.MessageExpiryInterval = 1000
    sent.ContentType = "text/plain"
    sent.ResponseTopic = "paho/answers"
    sent.CorrelationData = b"\x00\xff"
    publisher.publish("paho/5/properties", "x", 1, False, sent)
    got = subscriber.next().properties
    check(got.UserProperty == sent.UserProperty, "user properties in order, one name twice")
    check(0 < got.MessageExpiryInterval <= 1000, "what is left of the expiry")
    check((got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "paho/answers", b"\x00\xff"), "the rest")
    subscriber.leave()
    publisher.leave()


for version, tag in ((mqtt.MQTTv311, "3"), (mqtt.MQTTv5, "5")):
    for part in (quality_of_service, retained, will, persistent, keep_alive_zero, passwords):
        part(version, tag)
properties_end_to_end()
print(f"{checks} checks")
