//! Sockets to listen on. `localhost` is two addresses, 127.0.0.1 and ::1, and both must have the same port.
//!
//! Invariants: with port 0 every address of a door gets the port the system chose for the first, and when that port is taken on another
//! address, all of them are tried again with a new one; a machine without IPv6 is no error where another address is left.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps waiting for us.
const BACKLOG: i32 = 1_024;
/// Tries to find a port that is free on every address when port 0 is asked for.
const TRIES: usize = 16;
/// The system's number for "address family not supported", which `std` gives no kind.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SUCH_FAMILY: i32 = 97;
#[cfg(windows)]
const NO_SUCH_FAMILY: i32 = 10_047;
/// macOS and the BSDs.
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
const NO_SUCH_FAMILY: i32 = 47;

/// An address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address that was asked for, with the port that was tried.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

/// Whether an IPv6 address means IPv6 alone. Only `::` can mean more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V6 {
    /// IPv6 alone.
    Only,
    /// `::` takes IPv4, too.
    Dual,
}

/// Opens TCP listeners, not blocking, on all addresses of a door.
///
/// # Errors
/// Names the address that is taken or does not exist.
pub fn tcp(addresses: &[SocketAddr], v6: V6) -> Result<Vec<TcpListener>, BindError> {
    each(addresses, |address| {
        let listener = open(address, v6)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    })
}

/// Opens one socket for each address of a door by `open`, which gives the socket and where it is bound.
///
/// # Errors
/// Names the address that is taken or does not exist.
pub fn each<S>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> io::Result<(S, SocketAddr)>,
) -> Result<Vec<S>, BindError> {
    let mut tried = 1;
    loop {
        match all(addresses, &mut open) {
            Err((_, error)) if error.is_taken() && error.chosen && tried < TRIES => tried += 1,
            Err((address, Failed { source, .. })) => return Err(BindError { address, source }),
            Ok(sockets) => return Ok(sockets),
        }
    }
}

struct Failed {
    source: io::Error,
    /// The port was the system's choice for another address; a new choice may help.
    chosen: bool,
}

impl Failed {
    fn is_taken(&self) -> bool {
        // Windows reserves ranges of ports, per family, and refuses them as not allowed.
        matches!(self.source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
    }
}

fn all<S>(
    addresses: &[SocketAddr],
    open: &mut impl FnMut(SocketAddr) -> io::Result<(S, SocketAddr)>,
) -> Result<Vec<S>, (SocketAddr, Failed)> {
    let (mut sockets, mut chosen) = (Vec::with_capacity(addresses.len()), None);
    for address in addresses {
        let mut address = *address;
        let takes_choice = chosen.filter(|_| address.port() == 0);
        if let Some(port) = takes_choice {
            address.set_port(port);
        }
        match open(address) {
            Ok((socket, bound)) => {
                chosen = Some(bound.port());
                sockets.push(socket);
            }
            Err(error) if address.is_ipv6() && addresses.len() > 1 && is_absent(&error) => {
                tracing::info!(%address, "not listening there: this machine has no such address");
            }
            Err(source) => return Err((address, Failed { source, chosen: takes_choice.is_some() })),
        }
    }
    match (addresses.last(), sockets.is_empty()) {
        (Some(address), true) => {
            Err((*address, Failed { source: io::ErrorKind::AddrNotAvailable.into(), chosen: false }))
        }
        _ => Ok(sockets),
    }
}

/// Whether the machine lacks the address, or its whole family, rather than having it taken.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

fn open(address: SocketAddr, v6: V6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6 == V6::Only || !address.ip().is_unspecified())?;
    }
    // Restart without waiting for old connections to fade. On Windows the option means "share the port", which nobody wants.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn localhost(port: u16) -> [SocketAddr; 2] {
        [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))]
    }

    /// A system whose ports are numbered from 100 on, some of them taken on ::1.
    fn system(taken_on_v6: &'static [u16]) -> impl FnMut(SocketAddr) -> io::Result<(SocketAddr, SocketAddr)> {
        let mut next = 100;
        move |mut address| {
            if address.port() == 0 {
                address.set_port(next);
                next += 1;
            } else if address.is_ipv6() && taken_on_v6.contains(&address.port()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok((address, address))
        }
    }

    #[test]
    fn a_port_taken_on_the_other_loopback_is_given_back() {
        assert_eq!(each(&localhost(0), system(&[])).unwrap(), localhost(100));
        assert_eq!(each(&localhost(0), system(&[100, 101, 102])).unwrap(), localhost(103));
        // A port somebody asked for is not exchanged for another.
        let error = each(&localhost(100), system(&[100])).unwrap_err();
        assert_eq!((error.address, error.source.kind()), (localhost(100)[1], io::ErrorKind::AddrInUse));
        let all: &[u16] = &[100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116];
        assert_eq!(each(&localhost(0), system(all)).unwrap_err().address.port(), 115, "after sixteen tries");
    }

    #[test]
    fn a_machine_without_ipv6() {
        let absent = [
            io::Error::from(io::ErrorKind::AddrNotAvailable),
            io::Error::from(io::ErrorKind::Unsupported),
            io::Error::from_raw_os_error(NO_SUCH_FAMILY),
        ];
        for error in absent {
            let mut error = Some(error);
            let mut v4_only = |address: SocketAddr| match address {
                SocketAddr::V4(_) => Ok((address, address)),
                SocketAddr::V6(_) => Err(error.take().unwrap()),
            };
            assert_eq!(each(&localhost(7), &mut v4_only).unwrap(), localhost(7)[..1]);
        }
        let mut nothing = |_: SocketAddr| Err::<((), SocketAddr), _>(io::ErrorKind::AddrNotAvailable.into());
        assert!(each(&localhost(7)[1..], &mut nothing).is_err(), "the only address must be there");
        assert!(!is_absent(&io::ErrorKind::AddrInUse.into()));
    }

    #[test]
    fn real_sockets() {
        let open = tcp(&[SocketAddr::from(([127, 0, 0, 1], 0))], V6::Only).unwrap();
        let address = open[0].local_addr().unwrap();
        let error = tcp(&[address], V6::Only).unwrap_err();
        assert_eq!((error.address, error.source.kind()), (address, io::ErrorKind::AddrInUse));
    }
}
