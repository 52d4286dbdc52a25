#!/usr/bin/env python3
"""Starts a task of Qlik Sense and waits until its reload has ended.

    python3 start_and_wait.py 5a1e5000-0000-4000-8000-000000000001 [host [port]]

Exit code 0: finished; 1: it failed, was aborted or did not start; 2: no last word in time. Needs paho-mqtt 2 (`pip install paho-mqtt`).
"""

import json
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

START_TOPIC = "qliksense/start_task"
PATIENCE = 3600  # seconds

task = sys.argv[1]
host = sys.argv[2] if len(sys.argv) > 2 else "localhost"
port = int(sys.argv[3]) if len(sys.argv) > 3 else 1883
answers = f"answers/{uuid.uuid4()}"
# The same transaction is never started twice, however often this is sent.
request = {"taskId": task, "wait": "finished", "transaction": str(uuid.uuid4())}
ended = queue.Queue()


def connected(client, _data, _flags, reason, _properties):
    if reason.is_failure:
        print(f"the broker lets nobody in: {reason}", file=sys.stderr)
        return ended.put("refused")
    client.subscribe(answers, qos=1)


def subscribed(client, *_):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = answers
    client.publish(START_TOPIC, json.dumps(request), qos=1, properties=properties)


def heard(client, _data, message):
    answer = json.loads(message.payload)
    error = answer["error"] or {}
    print(answer["status"], answer["taskName"] or task, error.get("message", ""), flush=True)
    # `accepted` and `started` are words on the way; what follows is the last one.
    if answer["status"] not in ("accepted", "started"):
        for line in answer.get("execution", {}).get("logTail", []):
            print(line)
        ended.put(answer["status"])


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, heard
client.connect(host, port)
client.loop_start()
try:
    sys.exit(0 if ended.get(timeout=PATIENCE) == "finished" else 1)
except queue.Empty:
    print("no last word in time", file=sys.stderr)
    sys.exit(2)
