//! Publishers at the REST door: 201 promises what PUBACK promises. What was not answered is promised to nobody, and never sent again.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    chance::Chance,
    ledger::{Kind, payload},
    link::World,
    violation::Violation,
};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct RestPublisher {
    pub name: String,
    pub topics: Vec<String>,
    pub chance: Chance,
    pub world: World,
}

impl RestPublisher {
    pub async fn run(mut self) {
        while let Some(address) = self.next_call().await {
            self.publish(address).await;
            let pause = self.chance.millis(15);
            tokio::time::sleep(pause).await;
        }
    }

    /// Where to call, once there is load; `None` at the end.
    async fn next_call(&mut self) -> Option<SocketAddr> {
        let called = self.world.phase.wait_for(|phase| phase.end || (phase.load && phase.rest.is_some()));
        let phase = *called.await.ok()?;
        if phase.end { None } else { phase.rest }
    }

    async fn publish(&mut self, address: SocketAddr) {
        let topic = self.chance.pick(&self.topics).clone();
        let ledger = self.world.ledger.clone();
        ledger.busy(&self.name, true);
        let number = ledger.sending(&self.name, &topic, 1, Kind::Plain);
        let message = String::from_utf8(payload(number, self.chance.below(50) as usize)).unwrap();
        let body = format!("{{\"topic\":\"{topic}\",\"message\":\"{message}\",\"qos\":1}}");
        match timeout(PATIENCE, call(address, &body)).await {
            Ok(Ok(201)) => ledger.acknowledged(number),
            Ok(Ok(status)) => {
                ledger.violation(Violation::Refused { client: self.name.clone(), what: format!("status {status}") });
            }
            // Killed meanwhile.
            Ok(Err(_)) => {}
            Err(_) => {
                let what = format!("{} waits for an answer that does not come", self.name);
                ledger.violation(Violation::NoAnswer { what });
            }
        }
        ledger.busy(&self.name, false);
    }
}

/// One request on a connection of its own; its status.
async fn call(address: SocketAddr, body: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status =
        answer.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
