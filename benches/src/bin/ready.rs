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
        let began = Instant::now();
        if arguments.text(0, "wait or start")? == "wait" {
            return until_ready(address, began).await;
        }
        let program = arguments.text(2, "program")?;
        let child =
            Command::new(program).args(std::env::args().skip(4)).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let _ended = Ended(child.map_err(|error| format!("{program}: {error}"))?);
        until_ready(address, began).await
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
