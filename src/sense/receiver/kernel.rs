//! Datagrams the kernel dropped because a socket's receive buffer was full, as Linux counts them in `/proc/net/udp` and `udp6` (last column,
//! `drops`; proc_net_udp in the kernel's documentation). Elsewhere nothing is known, and nothing is claimed.

use super::socket::{Bound, Port};

/// The sockets to look for, by inode.
#[derive(Debug, Clone, Default)]
pub(super) struct KernelDrops {
    inodes: Vec<(Port, u64)>,
}

impl KernelDrops {
    /// Of these sockets.
    pub(super) fn of(sockets: &[Bound]) -> Self {
        Self { inodes: sockets.iter().filter_map(|bound| Some((bound.listening.port, inode(bound)?))).collect() }
    }

    /// Whether anything can be known.
    pub(super) fn is_known(&self) -> bool {
        !self.inodes.is_empty()
    }

    /// Dropped on a port since it was opened; 0 once it is closed.
    pub(super) fn of_port(&self, port: Port) -> u64 {
        let tables = tables();
        let wanted = self.inodes.iter().filter(|(of, _)| *of == port);
        wanted.map(|(_, inode)| tables.iter().find_map(|table| drops(table, *inode)).unwrap_or(0)).sum()
    }

    /// Dropped on all ports.
    pub(super) fn total(&self) -> u64 {
        if self.is_known() { self.of_port(Port::Task) + self.of_port(Port::Session) } else { 0 }
    }
}

#[cfg(target_os = "linux")]
fn inode(bound: &Bound) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", bound.socket.as_raw_fd())).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn inode(_: &Bound) -> Option<u64> {
    None
}

fn tables() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    ["/proc/net/udp", "/proc/net/udp6"].iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// Columns: 9 is the inode, 12 the drops.
fn drops(table: &str, inode: u64) -> Option<u64> {
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found: u64 = columns.nth(9)?.parse().ok()?;
        if found == inode { columns.nth(2)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1234: 0100007F:270E 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 42\n\
            1235: 0100007F:270D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
        assert_eq!(drops(table, 4711), Some(42));
        assert_eq!(drops(table, 4712), Some(0));
        assert_eq!(drops(table, 1), None);
    }
}
