//! Who holds a port: for the message that says a port is taken.
//!
//! Linux tells through `/proc` (`proc(5)`: `net/tcp`, `net/udp` name the socket's inode, `<pid>/fd` who has it open); sockets of other
//! users are seen, their processes only by root. Elsewhere nothing is known: asking would need a child process or unsafe code, and this
//! program uses neither.

/// Who listens on a TCP port, e.g. `process 1234 (mosquitto)`; `None` if nobody does or the system does not tell.
pub fn of_tcp(port: u16) -> Option<String> {
    system::holder(&["tcp", "tcp6"], port)
}

/// Who has a UDP port open, e.g. `process 1234 (node)`; `None` if nobody has or the system does not tell.
pub fn of_udp(port: u16) -> Option<String> {
    system::holder(&["udp", "udp6"], port)
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn holder(_tables: &[&str], _port: u16) -> Option<String> {
        None
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs, path::Path};

    /// `st` of a listening TCP socket (`TCP_LISTEN`) and of a bound, unconnected UDP socket (`TCP_CLOSE`).
    const OPEN: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];

    pub(super) fn holder(tables: &[&str], port: u16) -> Option<String> {
        let inode = tables.iter().find_map(|table| {
            let text = fs::read_to_string(Path::new("/proc/net").join(table)).ok()?;
            let (_, state) = OPEN.iter().find(|(prefix, _)| table.starts_with(prefix))?;
            inode_of(&text, port, state)
        })?;
        Some(process_of(&inode).unwrap_or_else(|| "a process this user may not look into".to_owned()))
    }

    /// The inode in a table of sockets. Columns: slot, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
    pub(super) fn inode_of(table: &str, port: u16, state: &str) -> Option<String> {
        let wanted = format!(":{port:04X}");
        table.lines().skip(1).find_map(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let local = columns.next()?;
            let found = columns.nth(1)?;
            let inode = columns.nth(5)?;
            (local.ends_with(&wanted) && found == state && inode != "0").then(|| inode.to_owned())
        })
    }

    fn process_of(inode: &str) -> Option<String> {
        let wanted = format!("socket:[{inode}]");
        for process in fs::read_dir("/proc").ok()?.flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            if has_open(&process.path(), &wanted) {
                let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("process {pid} ({})", command.trim_end()));
            }
        }
        None
    }

    fn has_open(process: &Path, wanted: &str) -> bool {
        let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_the_ports_it_opened() {
        let me = format!("process {} (", std::process::id());
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show for the second address.
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let holder = of_tcp(listener.local_addr().unwrap().port()).unwrap();
            assert!(holder.starts_with(&me), "{holder}");
        }
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.starts_with(&me), "{holder}");
    }

    #[test]
    fn a_closed_port_has_no_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(of_tcp(port), None);
    }

    #[test]
    fn connections_and_time_wait_are_not_taken_for_the_listener() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:075B 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
            1: 0100007F:075B 0100007F:D433 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n\
            2: 00000000:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        assert_eq!(system::inode_of(table, 1883, "0A").as_deref(), Some("222"));
        assert_eq!(system::inode_of(table, 1884, "0A"), None);
    }
}
