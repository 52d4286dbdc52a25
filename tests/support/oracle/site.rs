//! The program under test, with a data directory that outlives its processes: `sense-butler` (or whatever `BUTLER_PROGRAM` names) and, as a
//! measure of the oracle itself, mosquitto.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpStream;

use super::{
    liar::{Liar, Lie},
    violation::Violation,
};
use crate::app::{App, Dir, FREE_PORTS, PATIENCE};

/// A program that can be killed and started again on the same data.
pub trait Site {
    /// Starts it; answers once it takes connections.
    async fn start(&mut self) -> SocketAddr;
    /// Its REST door, while it runs.
    fn rest(&self) -> Option<SocketAddr>;
    /// `kill -9`.
    async fn kill(&mut self);
    /// Stops it in order.
    async fn stop(&mut self);
    /// Starts it and kills it this much later, ready or not.
    async fn start_and_kill(&mut self, after: Duration);
    /// What is wrong with what it left on the disk.
    fn wrong_on_disk(&self) -> Vec<Violation>;
}

/// `sense-butler run`, in a directory of its own with its defaults, but that REST may say `qos`.
pub struct Butler {
    dir: Dir,
    app: Option<App>,
    rest: Option<SocketAddr>,
    lie: Lie,
    liar: Option<Liar>,
}

impl Butler {
    pub fn new() -> Self {
        Self::lying(Lie::None)
    }

    /// With a liar between it and its clients.
    pub fn lying(lie: Lie) -> Self {
        let dir = Dir::new();
        dir.write("butler.yaml", "Butler:\n  mqttConfig:\n    restQosRetain: true\n");
        Self { dir, app: None, rest: None, lie, liar: None }
    }

    /// The directory stays; for whoever wants to look at what a failure left.
    pub fn keep(self) -> PathBuf {
        let path = self.dir.0.clone();
        std::mem::forget(self.dir);
        path
    }

    fn arguments() -> Vec<&'static str> {
        [&["run", "-c", "butler.yaml"], &FREE_PORTS[..]].concat()
    }
}

impl Site for Butler {
    async fn start(&mut self) -> SocketAddr {
        let mut app = App::start(&self.dir, &Self::arguments());
        app.wait_until_ready().await;
        let address = SocketAddr::from(([127, 0, 0, 1], app.mqtt().await));
        self.rest = Some(SocketAddr::from(([127, 0, 0, 1], app.rest().await)));
        self.app = Some(app);
        if self.lie == Lie::None {
            return address;
        }
        let liar = Liar::start(address, self.lie).await;
        let between = liar.address;
        self.liar = Some(liar);
        between
    }

    fn rest(&self) -> Option<SocketAddr> {
        self.rest
    }

    async fn kill(&mut self) {
        // Dropped is killed, and waited for.
        self.app = None;
    }

    async fn stop(&mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }

    async fn start_and_kill(&mut self, after: Duration) {
        let app = App::start(&self.dir, &Self::arguments());
        // The moment itself is what is tried.
        tokio::time::sleep(after).await;
        drop(app);
    }

    fn wrong_on_disk(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        // Another system's program under an emulator has no modes of this one.
        let foreign = std::env::var_os("BUTLER_PROGRAM").is_some();
        walk(&self.dir.0, &mut |path, name| {
            if !path.starts_with(self.dir.0.join("data")) {
                return;
            }
            if name.contains(".bad-") {
                let what = format!("the store was set aside: {}", path.display());
                wrong.push(Violation::Store { what });
            }
            let _ = foreign;
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt as _;
                let mode = std::fs::symlink_metadata(&path).map_or(0, |data| data.mode());
                if mode & 0o077 != 0 && !foreign {
                    let what = format!("others may read {} (mode {:o})", path.display(), mode & 0o777);
                    wrong.push(Violation::Store { what });
                }
            }
        });
        wrong
    }
}

fn walk(directory: &std::path::Path, each: &mut impl FnMut(PathBuf, String)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), each);
        }
        each(entry.path(), entry.file_name().to_string_lossy().into_owned());
    }
}

/// mosquitto with persistence: it keeps what it has when it is stopped in order, and says nothing about `kill -9`.
pub struct Mosquitto {
    dir: Dir,
    program: &'static str,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    /// `None`, said aloud, where there is no mosquitto.
    pub fn new(test: &str) -> Option<Self> {
        let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto", "mosquitto"];
        let found = places.into_iter().find(|path| Command::new(path).arg("-h").output().is_ok());
        if !crate::app::has_program(found.unwrap_or("mosquitto"), "-h", test) {
            return None;
        }
        let dir = Dir::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = dir.0.to_str().unwrap();
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {place}/\n\
             max_queued_messages 0\nmax_inflight_messages 100\nautosave_interval 3600\n"
        );
        dir.write("mosquitto.conf", &settings);
        readable(&dir);
        Some(Self { dir, program: found?, port, process: None })
    }

    fn spawn(&mut self) {
        let mut command = Command::new(self.program);
        command.arg("-c").arg(self.dir.0.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }
}

/// mosquitto started by root becomes a user of its own.
fn readable(dir: &Dir) {
    #[cfg(unix)]
    {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};
        std::fs::set_permissions(&dir.0, Permissions::from_mode(0o777)).unwrap();
    }
    let _ = dir;
}

impl Site for Mosquitto {
    async fn start(&mut self) -> SocketAddr {
        self.spawn();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("mosquitto takes connections");
        address
    }

    fn rest(&self) -> Option<SocketAddr> {
        None
    }

    async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            crate::app::signal(process.id(), "TERM");
            tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
        }
    }

    async fn start_and_kill(&mut self, after: Duration) {
        self.spawn();
        tokio::time::sleep(after).await;
        self.kill().await;
    }

    fn wrong_on_disk(&self) -> Vec<Violation> {
        Vec::new()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
