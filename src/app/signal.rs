//! The ways an operating system says "stop", as one future.
//!
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
    for (name, kind) in [("SIGINT (Ctrl-C)", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())] {
        match signal(kind) {
            Ok(mut stream) => forward(sender, name, async move { stream.recv().await.is_some() }),
            Err(error) => refused(name, &error),
        }
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
    tracing::error!(%error, "{name} cannot be handled; stop the program another way");
}
