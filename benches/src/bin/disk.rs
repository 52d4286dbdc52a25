//! What the disk gives: 4 KiB appended to a file, then fdatasync, again and again.
//!
//!     disk DIRECTORY SECONDS
//!
//! The file is made in the directory and removed at the end.

use std::{
    fs::{File, remove_file},
    io::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use sense_butler_benches::{Arguments, Fallible, percentiles, run};

fn main() -> ExitCode {
    run(async {
        let arguments = Arguments::new();
        let (directory, seconds): (_, f64) = (arguments.text(0, "directory")?, arguments.number(1, "seconds")?);
        let path = Path::new(directory).join(format!("fdatasync-{}", std::process::id()));
        let measured = measure(&path, Duration::from_secs_f64(seconds));
        remove_file(&path)?;
        measured
    })
}

fn measure(path: &Path, length: Duration) -> Fallible<String> {
    let (mut file, block) = (File::create(path)?, [b'x'; 4096]);
    let (began, mut micros) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        micros.push(begin.elapsed().as_micros() as u64);
    }
    let rate = micros.len() as f64 / began.elapsed().as_secs_f64();
    Ok(format!("per_s={rate:.0} {}", percentiles(&mut micros)))
}
