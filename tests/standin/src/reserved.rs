use std::net::Ipv4Addr;

use anyhow::Context;
use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that refuses connections, until a server that sets `SO_REUSEADDR`, as all servers do, listens on it.
/// Nobody else who asks the system for any free port is given it; a port that was merely found free may be.
#[derive(Debug)]
pub struct Reserved {
    /// The number.
    pub port: u16,
    _socket: TcpSocket,
}

impl Reserved {
    /// Fails where the machine has no free port or no descriptor left.
    pub fn new() -> anyhow::Result<Self> {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok::<_, std::io::Error>(Self { port: socket.local_addr()?.port(), _socket: socket })
        };
        reserve().context("no free port on 127.0.0.1")
    }
}
