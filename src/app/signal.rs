//! The ways an operating system says "stop", as one future, and the one in which it says "read your configuration again".
//!
//! On Unix SIGHUP means two things: somebody sends it to have the configuration read again, or the terminal has gone in which the program runs. The
//! second is a stop: a program that was started by hand must not stay behind unseen (unless it was started to stay, by `nohup`).
//! Invariant: the handlers are installed when [`signal`] is called, not when it is first awaited, so nothing sent in between is lost.

use std::future::Future;

use tokio::sync::mpsc;

/// Resolves with the name of the first stop signal: Ctrl-C and SIGTERM on Unix; Ctrl-C, Ctrl-Break, closing of the console and
/// shutdown on Windows (not logoff: a service outlives the user who logs off). Must be called inside a Tokio runtime. Where a handler cannot be installed (logged), the others still work.
pub fn signal() -> impl Future<Output = &'static str> + Send {
    let (sender, mut receiver) = mpsc::channel(1);
    install(&sender);
    async move {
        // Held so that the channel stays open should no handler have been installed: then this waits for ever.
        let _keep_open = sender;
        receiver.recv().await.unwrap_or("closed")
    }
}

#[cfg(unix)]
fn install(sender: &mpsc::Sender<&'static str>) {
    use tokio::signal::unix::{SignalKind, signal};
    // The terminal is looked at first: a handler hides what the signal did before.
    if terminal::is_there()
        && let Ok(mut stream) = signal(SignalKind::hangup())
    {
        let gone = async move {
            while stream.recv().await.is_some() {
                if !terminal::is_there() {
                    return true;
                }
            }
            false
        };
        forward(sender, "closing of the terminal", gone);
    }
    for (name, kind) in [("SIGINT (Ctrl-C)", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())] {
        match signal(kind) {
            Ok(mut stream) => forward(sender, name, async move { stream.recv().await.is_some() }),
            Err(error) => refused(name, &error),
        }
    }
}

/// The terminal in which the program was started, and with which it ends.
#[cfg(unix)]
mod terminal {
    /// Whether there is one.
    pub(super) fn is_there() -> bool {
        !stays() && std::fs::File::open("/dev/tty").is_ok()
    }

    /// Whether SIGHUP was to be ignored when the program was started: the lowest bit of what `proc_pid_status(5)` calls `SigIgn`. It is asked for once,
    /// before a handler is installed, which hides it.
    fn stays() -> bool {
        static STAYS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *STAYS.get_or_init(|| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
        })
    }
}

/// Requests to read the configuration again: SIGHUP on Unix; nothing of the kind elsewhere. Must be made inside a Tokio runtime.
pub(super) struct Hangups {
    #[cfg(unix)]
    stream: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    pub(super) fn new() -> Self {
        let stream = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        Self { stream: stream.inspect_err(|error| refused("SIGHUP", error)).ok() }
    }

    #[cfg(not(unix))]
    pub(super) fn new() -> Self {
        Self {}
    }

    /// The next one. Several that came meanwhile are one.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        if let Some(stream) = &mut self.stream
            && stream.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }

    /// There is none.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(windows)]
fn install(sender: &mpsc::Sender<&'static str>) {
    use tokio::signal::windows;
    macro_rules! handle {
        ($name:literal, $install:path) => {
            match $install() {
                Ok(mut stream) => forward(sender, $name, async move { stream.recv().await.is_some() }),
                Err(error) => refused($name, &error),
            }
        };
    }
    handle!("Ctrl-C", windows::ctrl_c);
    handle!("Ctrl-Break", windows::ctrl_break);
    handle!("closing of the console", windows::ctrl_close);
    handle!("shutdown", windows::ctrl_shutdown);
}

/// One task per signal: it ends with the first signal or with the runtime.
fn forward(
    sender: &mpsc::Sender<&'static str>,
    name: &'static str,
    arrived: impl Future<Output = bool> + Send + 'static,
) {
    let sender = sender.clone();
    tokio::spawn(async move {
        if arrived.await {
            // Full: another signal came first and says the same.
            let _ = sender.try_send(name);
        }
    });
}

fn refused(name: &str, error: &std::io::Error) {
    tracing::error!(
        code = "signal_unavailable",
        %error,
        "{name} cannot be handled; stop or reload the program another way"
    );
}
