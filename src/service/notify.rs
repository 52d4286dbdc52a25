//! systemd's notification socket: single datagrams of `NAME=value` lines to the address in `NOTIFY_SOCKET` (sd_notify(3)).
//!
//! Invariants: sending never waits (a full socket loses a line, and the next sign of life comes soon); a socket that does not work is told once in
//! the log and changes nothing else.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use super::attend::{Manager, Pace};

/// Variables systemd sets.
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The way to systemd.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    to: SocketAddr,
    watchdog: Option<Duration>,
    /// Whether it was said that the socket does not work.
    complained: bool,
}

impl Notify {
    /// The way the environment names; `None`: systemd did not start this program, or does not want to be told.
    pub fn from_environment() -> Option<Self> {
        let address = env::var_os(SOCKET).filter(|address| !address.is_empty())?;
        let watchdog = watchdog(env::var_os(WATCHDOG), env::var_os(WATCHDOG_PID), std::process::id());
        Self::new(&address, watchdog)
            .inspect_err(|error| {
                tracing::warn!(
                    code = "systemd_not_told",
                    %error,
                    "{SOCKET} cannot be used; systemd is not told how the program is; start it by the shipped unit"
                )
            })
            .ok()
    }

    /// The way to an address: a path, or `@` and an abstract name. `watchdog`: after how long a silence it restarts the program.
    ///
    /// # Errors
    /// If it is neither, or no socket can be made.
    pub fn new(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to, watchdog, complained: false })
    }

    fn send(&mut self, text: &str) {
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.to)
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(
                code = "systemd_not_told",
                %error,
                "systemd cannot be told how the program is; if it ends the program for it, start it by the shipped unit"
            );
        }
    }
}

impl Manager for Notify {
    fn ready(&mut self) {
        self.send("READY=1");
    }

    fn alive(&mut self) {
        self.send("WATCHDOG=1");
    }

    fn status(&mut self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn stopping(&mut self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    fn pace(&self) -> Pace {
        // Half of the time it is given, as sd_watchdog_enabled(3) asks for.
        Pace { signs: self.watchdog.map(|watchdog| watchdog / 2), patience: None, start: None }
    }
}

/// `WATCHDOG_USEC`, unless it is meant for another process.
fn watchdog(microseconds: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let mine = pid.is_none_or(|pid| number(pid) == Some(u64::from(own)));
    let microseconds = microseconds.and_then(number).filter(|number| mine && *number >= 2)?;
    Some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stand-in was told, one datagram each.
    fn received(socket: &UnixDatagram, count: usize) -> Vec<String> {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut buffer = [0; 1024];
        let datagram = |_| {
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        (0..count).map(datagram).collect()
    }

    fn say_all(mut notify: Notify) {
        notify.status("not ready");
        notify.ready();
        notify.alive();
        notify.stopping();
    }

    const ALL: [&str; 4] = ["STATUS=not ready", "READY=1", "WATCHDOG=1", "STOPPING=1\nSTATUS=stopping"];

    #[test]
    fn a_path_and_an_abstract_name_are_reached() {
        let name = format!("sense-butler-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        say_all(Notify::new(path.as_os_str(), None).unwrap());
        assert_eq!(received(&by_path, 4), ALL);
        std::fs::remove_file(&path).unwrap();

        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        say_all(Notify::new(OsStr::new(&format!("@{name}")), None).unwrap());
        assert_eq!(received(&by_name, 4), ALL);
    }

    #[test]
    fn other_addresses_are_refused_and_nobody_there_harms_nobody() {
        for wrong in ["relative", "vsock:2:1234", ""] {
            assert_eq!(Notify::new(OsStr::new(wrong), None).unwrap_err().kind(), io::ErrorKind::Unsupported, "{wrong}");
        }
        let mut notify = Notify::new(OsStr::new("/nowhere/at/all"), None).unwrap();
        notify.ready();
        assert!(notify.complained);
        notify.alive();
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_they_must() {
        let cases = [
            (Some("30000000"), None, Some(30_000_000)),
            (Some("30000000"), Some("7"), Some(30_000_000)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("1"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
        ];
        for (microseconds, pid, expected) in cases {
            let found = watchdog(microseconds.map(Into::into), pid.map(Into::into), 7);
            assert_eq!(found, expected.map(Duration::from_micros), "{microseconds:?}, {pid:?}");
        }
        let notify = Notify::new(OsStr::new("/run/x"), Some(Duration::from_secs(30))).unwrap();
        assert_eq!(notify.pace().signs, Some(Duration::from_secs(15)));
    }
}
