"""qrs-api-client against the simulated site: `python qrs_api_client_row.py PORT CERTIFICATES`."""
import importlib.metadata
import logging
import sys

from qrs_api_client.auth import AuthManager
from qrs_api_client.client import QRSClient

SAMPLE = "5a1e5000-0000-4000-8000-000000000001"
FAILING = "5a1e5000-0000-4000-8000-000000000003"
DISABLED = "5a1e5000-0000-4000-8000-000000000006"

port, certificates = sys.argv[1:3]
checks = 0


def check(found, expected):
    global checks
    assert found == expected, f"{found!r} instead of {expected!r}"
    checks += 1


class Told(logging.Handler):
    """The client tells of errors by its log alone."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


told = Told()
logging.getLogger("qrs_api_client.client").addHandler(told)
print("version", importlib.metadata.version("qrs-api-client"))
client = QRSClient(
    server_name="127.0.0.1",
    server_port=int(port),
    auth_method="certificate",
    auth_manager=AuthManager(
        cert_path=f"{certificates}/client.pem",
        key_path=f"{certificates}/client_key.pem",
        root_cert_path=f"{certificates}/root.pem",
    ),
)
check(client.get("/qrs/about")["schemaPath"], "About")
check(client.get_enum("ExecutionResult.Status")[7], "7: FinishedSuccess")
check(len(client.get("/qrs/task/full", params={"filter": "tags.name eq 'mqtt'"})), 4)
cockpit = client.get("/qrs/reloadtask", params={"filter": "name eq 'Reload Director\\'s cockpit'"})
check([task["name"] for task in cockpit], ["Reload Director's cockpit"])
# Starts, polls the session until it is 404, reads the execution result.
check(client.app_reload(SAMPLE, poll_interval=0.1)["success"], True)
check(client.app_reload(FAILING, poll_interval=0.1)["success"], False)
session = client.post(f"/qrs/task/{SAMPLE}/start/synchronous")["value"]
check(client.get(f"/qrs/executionsession/{session}")["reloadTask"]["id"], SAMPLE)
check(client.app_reload(DISABLED), None)
client.get("/qrs/task", params={"filter": "name eq 'Director''s'"})
check("400" in told.texts[-1], True)
print(f"{checks} checks")
