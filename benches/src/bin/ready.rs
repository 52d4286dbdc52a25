//! How soon the program is ready: answers 200 to `/readyz`.
//!
//!     ready wait REST-ADDRESS                      for a program that was started already
//!     ready start REST-ADDRESS PROGRAM ARGUMENT…   starts it, stops it again

use std::{
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use sense_butler_benches::{Arguments, Fallible, http, run};

/// Longest time to wait.
const LONGEST: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    run(async {
        let arguments = Arguments::new();
        let address = arguments.text(1, "address of the REST door")?;
        if arguments.text(0, "wait or start")? == "wait" {
            return until_ready(address, Instant::now()).await;
        }
        if http::get(address, "/readyz").await.is_ok() {
            return Err(format!("{address}: something answers there before the program is started").into());
        }
        let (program, began) = (arguments.text(2, "program")?, Instant::now());
        let child =
            Command::new(program).args(std::env::args().skip(4)).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = Ended(child.map_err(|error| format!("{program}: {error}"))?);
        let line = until_ready(address, began).await?;
        match child.0.try_wait()? {
            None => Ok(line),
            Some(status) => Err(format!("{program} ended: {status}").into()),
        }
    })
}

async fn until_ready(address: &str, began: Instant) -> Fallible<String> {
    loop {
        match http::get(address, "/readyz").await {
            Ok(_) => return Ok(format!("ready_ms={:.1}", began.elapsed().as_secs_f64() * 1000.0)),
            Err(error) if began.elapsed() > LONGEST => return Err(format!("not ready: {error}").into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// A process that does not outlive the measurement.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
