//! The two files as they are written, with a word on every line that could be otherwise.
//!
//! Invariant: whatever was answered is quoted, so that no answer can become a key.

use time::OffsetDateTime;

use super::answers::{Answers, Qlik, Reach};

/// Text in single quotes of YAML.
fn yaml(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Text as a basic string of TOML.
fn toml(text: &str) -> String {
    ::toml::Value::String(text.to_owned()).to_string()
}

/// `butler.yaml`
pub(super) fn butler(answers: &Answers) -> String {
    let today = OffsetDateTime::now_utc().date();
    let ports = answers.ports;
    let (host, sources) = match &answers.reach {
        Reach::ThisMachine => ("localhost", "    #enableSourceValidation: true\n    #allowedSources: []\n".to_owned()),
        Reach::Others(entries) => {
            let list: String = entries.iter().map(|entry| format!("      - {}\n", yaml(entry))).collect();
            let own = "      - '127.0.0.1'\n      - '::1'\n";
            ("0.0.0.0", format!("    enableSourceValidation: true\n    allowedSources:\n{own}{list}"))
        }
    };
    format!(
        "# Configuration of sense-butler, written by `sense-butler init` on {today}.
#
# Whatever is not here has its default; docs/configuration.md and config/butler.yaml name every key. After a change:
#     sense-butler check -c <this file>      says what would happen, and opens nothing
#     sense-butler doctor -c <this file>     looks whether all is well

Butler:
  compatibility: head
  logLevel: info

  mqttConfig:
    # The built-in broker; its doors and users are in broker.toml beside this file.
    broker: embedded
    brokerPort: {mqtt}
    # A message here starts a task: its payload is the task id, or JSON.
    taskStartTopic: qliksense/start_task
    # Events of tasks that succeeded and of distribute tasks; failures and aborts are always published.
    taskSuccessSend: true
    taskDistributeSend: true

  # Events of Qlik Sense, from the log appenders on its nodes (docs/log-appenders.md).
  udpServerConfig:
    # localhost hears this machine only, 0.0.0.0 the network.
    serverHost: {host}
    portTaskFailure: {udp}
    portSessionConnectionEvents: {sessions}
    # Who may send: addresses or names of the Sense nodes.
{sources}
  # For load scripts. Other machines need `serverHost: 0.0.0.0`, `allowedSources` and `tls` (docs/security.md).
  restServerConfig:
    serverHost: localhost
    serverPort: {rest}
{qlik}",
        mqtt = ports.mqtt,
        udp = ports.udp,
        sessions = ports.udp_sessions,
        rest = ports.rest,
        qlik = qlik(answers.qlik.as_ref()),
    )
}

fn qlik(qlik: Option<&Qlik>) -> String {
    let Some(Qlik { at, certificates, user: (directory, id) }) = qlik else {
        return "
  # The Qlik Sense Repository Service, through which tasks are started. Without it, events still become messages.
  configQRS:
    #host: sense.example.com
    port: 4242
"
        .to_owned();
    };
    let file = |name: &str| yaml(&certificates.join(name).display().to_string());
    format!(
        "
  # The Qlik Sense Repository Service, through which tasks are started.
  configQRS:
    host: {}
    port: {}
    # As whom; a user of its own with few rights is better (docs/security.md).
    headers:
      static:
        - name: X-Qlik-User
          value: {}
    # If the server's certificate carries another name than `host` (often the short one), `sense-butler doctor` names the line to add.
    #verifyName: sense

  # What Qlik Sense exported (QMC, Certificates). The key opens the whole site: only this program's account may read it.
  cert:
    clientCert: {}
    clientCertKey: {}
    clientCertCA: {}
",
        yaml(&at.host),
        at.port,
        yaml(&format!("UserDirectory={directory}; UserId={id}")),
        file("client.pem"),
        file("client_key.pem"),
        file("root.pem"),
    )
}

/// `broker.toml`
pub(super) fn broker(answers: &Answers, password_hash: &str) -> String {
    let ports = answers.ports;
    let plant = match answers.reach {
        Reach::ThisMachine => "# A door for other machines needs users, and should have TLS:
#[[listeners]]
#name = \"plant\"
#address = \"0.0.0.0:8883\"
#tls = { cert = \"certs/server.pem\", key = \"certs/server_key.pem\" }
"
        .to_owned(),
        Reach::Others(_) => format!(
            "# For other machines, with TLS. Clients trust certs/ca.pem; put certificates of your own authority in its place at any time.
[[listeners]]
name = \"plant\"
address = \"0.0.0.0:{}\"
tls = {{ cert = \"certs/server.pem\", key = \"certs/server_key.pem\" }}
",
            ports.mqtts
        ),
    };
    format!(
        "# The built-in MQTT broker of sense-butler, written by `sense-butler init`. Every key: broker.toml of the distribution, docs/security.md.
# Users and access rules are taken from a changed file within seconds; the rest needs a restart.

# For programs on this machine.
[[listeners]]
name = \"local\"
address = \"localhost:{mqtt}\"
# Users only. This lets programs on this machine in without a user name:
#allow_anonymous = true

{plant}
# Who may come in. Another one: `sense-butler hash-password`.
[[users]]
name = {user}
password_hash = {hash}
# publish: send messages; subscribe: receive them; start: start tasks; console: log in to the web console of the REST server, /console.
rights = [\"publish\", \"subscribe\", \"start\", \"console\"]
",
        mqtt = ports.mqtt,
        user = toml(&answers.mqtt_user),
        hash = toml(password_hash),
    )
}
