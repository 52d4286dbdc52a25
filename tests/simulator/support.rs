//! A simulated site, a client of it, and a receiver of its datagrams.

use std::{path::PathBuf, time::Duration};

use reqwest::{Certificate, Client, Identity, Method, Response};
use sense_butler::sense::simulator::{PkiFiles, Simulator, SimulatorError, SimulatorSettings, Targets};
use serde_json::Value;
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub const SAMPLE: &str = "5a1e5000-0000-4000-8000-000000000001";
pub const FAILING: &str = "5a1e5000-0000-4000-8000-000000000003";
pub const DISABLED: &str = "5a1e5000-0000-4000-8000-000000000006";
pub const SLOW: &str = "5a1e5000-0000-4000-8000-000000000007";
pub const DISTRIBUTE: &str = "5a1e5000-0000-4000-8000-000000000009";
pub const NOBODY: &str = "00000000-0000-4000-8000-0000000000ff";
pub const ZERO: &str = "00000000-0000-0000-0000-000000000000";
pub const KEY: &str = "0123456789abcdef";

/// A simulated site, a client of it, and a receiver of its datagrams.
pub struct Site {
    pub client: Client,
    pub files: PkiFiles,
    pub qrs: String,
    pub control: String,
    pub tasks: UdpSocket,
    pub sessions: UdpSocket,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SimulatorError>>,
}

pub fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sense-butler-simulator-{name}-{}", std::process::id()))
}

pub fn client(files: &PkiFiles, with_certificate: bool) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |path| std::fs::read(path).unwrap();
    let mut builder = Client::builder()
        .tls_certs_only([Certificate::from_pem(&read(&files.root)).unwrap()])
        .timeout(Duration::from_secs(10));
    if with_certificate {
        let pem = [read(&files.client), read(&files.client_key)].concat();
        builder = builder.identity(Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

impl Site {
    /// A site that does nothing by itself and whose clock runs ten times as fast, unless `change` says otherwise.
    pub async fn start(name: &str, change: impl FnOnce(&mut SimulatorSettings)) -> Self {
        let tasks = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sessions = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let targets =
            Targets { tasks: vec![tasks.local_addr().unwrap()], sessions: vec![sessions.local_addr().unwrap()] };
        let mut settings = SimulatorSettings {
            qrs: vec!["127.0.0.1:0".parse().unwrap()],
            control: Some("127.0.0.1:0".parse().unwrap()),
            targets,
            seed: Some(1),
            speed: 10.0,
            rate: 0.0,
            ..SimulatorSettings::new(directory(name))
        };
        change(&mut settings);
        let simulator = Simulator::bind(settings).await.unwrap();
        assert_eq!(simulator.sample_task().to_string(), SAMPLE);
        let files = simulator.pki().unwrap().clone();
        let addresses = simulator.addresses().clone();
        let stop = CancellationToken::new();
        Self {
            client: client(&files, true),
            files,
            qrs: format!("https://{}/qrs", addresses.qrs[0]),
            control: format!("http://{}/control", addresses.control.unwrap()),
            tasks,
            sessions,
            running: tokio::spawn(simulator.run(stop.clone())),
            stop,
        }
    }

    pub async fn call(&self, method: Method, path: &str) -> Response {
        let join = if path.contains('?') { '&' } else { '?' };
        let request = self.client.request(method, format!("{}{path}{join}xrfkey={KEY}", self.qrs));
        let request = request.header("X-Qlik-Xrfkey", KEY);
        request.header("X-Qlik-User", "UserDirectory=LAB; UserId=goran").send().await.unwrap()
    }

    /// As another user, with a body.
    pub async fn call_as(
        &self,
        user: &str,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let join = if path.contains('?') { '&' } else { '?' };
        let request = self.client.request(method, format!("{}{path}{join}xrfkey={KEY}", self.qrs));
        let request = request.header("X-Qlik-Xrfkey", KEY).header("Content-Type", "application/json").body(body);
        let request = request.header("X-Qlik-User", format!("UserDirectory=LAB; UserId={user}"));
        read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        read(self.call(Method::GET, path).await).await
    }

    pub async fn post(&self, path: &str) -> (u16, String) {
        read(self.call(Method::POST, path).await).await
    }

    pub async fn list(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn filtered(&self, path: &str, filter: &str) -> Vec<Value> {
        self.list(&format!("{path}?filter={}", encode(filter))).await
    }

    pub async fn control(&self, path: &str) -> Value {
        let (status, body) = read(self.client.get(format!("{}{path}", self.control)).send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn order(&self, path: &str, body: Value) -> (u16, String) {
        let request = self.client.post(format!("{}{path}", self.control)).body(body.to_string());
        read(request.send().await.unwrap()).await
    }

    /// Starts synchronously; the answer is the session.
    pub async fn start_task(&self, task: &str) -> String {
        let (status, body) = self.post(&format!("/task/{task}/start/synchronous")).await;
        assert_eq!(status, 201, "{body}");
        let value: Value = serde_json::from_str(&body).unwrap();
        value["value"].as_str().unwrap().to_owned()
    }

    /// Polls the session as a client does, until it is gone.
    pub async fn until_done(&self, session: &str) {
        let polling = async {
            // Asked as a client asks: there is nothing to wait for but the answer.
            while self.get(&format!("/executionsession/{session}")).await.0 == 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), polling).await.expect("the execution ends");
    }

    pub async fn finish(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.running).await.expect("stops in time").unwrap().unwrap();
        std::fs::remove_dir_all(&self.files.directory).unwrap();
    }
}

pub async fn read(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Everything that is not plainly harmless as `%xx`.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub async fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_535];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.expect("a datagram comes").unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

pub fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["name"].as_str().unwrap()).collect()
}
