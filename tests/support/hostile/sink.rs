//! The measure: a program of its own that accepts and reads, and does nothing else. An attack on it costs what the attack itself costs this
//! machine.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tokio::{io::AsyncReadExt as _, net::TcpListener};

/// Name of the test that is the program, and the variable that makes it one.
const TEST: &str = "the_sink";
const VARIABLE: &str = "HOSTILE_SINK";

/// The running program; ends with its standard input.
pub struct Sink {
    child: Child,
    pub address: SocketAddr,
}

impl Sink {
    pub fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args([TEST, "--exact", "--nocapture", "--ignored"]).env(VARIABLE, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.split_once("sink on ")?.1.parse().ok());
        Self { child, address: address.expect("the sink says where it is") }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the test does where it is started as the program.
pub async fn serve() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("sink on {}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let accept = async {
        loop {
            if let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 << 10];
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                });
            }
        }
    };
    tokio::select! {
        _ = end => {}
        () = accept => {}
    }
}
