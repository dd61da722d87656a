//! TCP sockets: ports that reactors share, and options.

use std::io;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Limits;

/// Takes a port, of an IPv6 address for IPv4 too unless `ipv6_only` is true: with one listening socket for each of `count` reactors, among which the kernel shares out connections, or
/// with a single one if `shares_port` is false. Gives the address with it, for port 0 lets the system choose.
///
/// # Errors
/// As of `socket(2)`, `setsockopt(2)`, `bind(2)` and `listen(2)`; `EADDRINUSE` also where another program shares its
/// port, for it would silently get a part of the connections.
pub fn listen(
    address: SocketAddr,
    count: usize,
    shares_port: bool,
    ipv6_only: bool,
    limits: &Limits,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let shares_port = cfg!(target_os = "linux") && shares_port && count > 1;
    // A socket that does not share cannot be bound while another listens, and keeps the port that the system chose
    // from being chosen again. It never listens, so those below can be bound beside it.
    let reserved = bind(address, false, ipv6_only)?;
    let address = reserved.local_addr()?.as_socket().unwrap_or(address);
    let reserved = if shares_port { Some(reserved) } else { None };
    let count = if shares_port { count } else { 1 };
    let sockets = (0..count).map(|_| listen_at(address, shares_port, ipv6_only, limits));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    drop(reserved);
    Ok((address, sockets))
}

/// Prepares a socket that another program made to listen, and accepts from it.
///
/// # Errors
/// As of `setsockopt(2)`.
pub fn adopt(listener: std::net::TcpListener, limits: &Limits) -> io::Result<TcpListener> {
    configure(&SockRef::from(&listener), limits)?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

fn listen_at(
    address: SocketAddr,
    shares_port: bool,
    ipv6_only: bool,
    limits: &Limits,
) -> io::Result<TcpListener> {
    let socket = bind(address, shares_port, ipv6_only)?;
    configure(&SockRef::from(&socket), limits)?;
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(limits.backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bind(address: SocketAddr, shares_port: bool, ipv6_only: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(shares_port)?;
    #[cfg(not(target_os = "linux"))]
    let _ = shares_port;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Prepares an accepted socket. On Linux it has inherited everything from the listener, without a system call.
///
/// # Errors
/// As of `setsockopt(2)`.
pub fn prepare(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    configure(&SockRef::from(stream), limits)
}

fn configure(socket: &SockRef<'_>, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if limits.send_buffer_bytes > 0 {
        socket.set_send_buffer_size(limits.send_buffer_bytes)?;
    }
    if limits.receive_buffer_bytes > 0 {
        socket.set_recv_buffer_size(limits.receive_buffer_bytes)?;
    }
    #[cfg(target_os = "linux")]
    {
        if limits.tcp_user_timeout_ms > 0 {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(limits.tcp_user_timeout_ms)))?;
        }
        if limits.not_sent_low_water_mark_bytes > 0 {
            let bytes = u32::try_from(limits.not_sent_low_water_mark_bytes).unwrap_or(u32::MAX);
            socket.set_tcp_notsent_lowat(bytes)?;
        }
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpStream as StdStream;

    use super::*;

    #[test]
    fn an_accepted_socket_inherits_the_options() {
        let limits = Limits::default();
        let any = "127.0.0.1:0".parse().expect("an address");
        let (address, mut listeners) = listen(any, 1, true, false, &limits).expect("a listener");
        let listener = listeners.pop().expect("one");
        let _peer = StdStream::connect(address).expect("a connection");
        // The handshake of a blocking connect is complete, so the connection is there to be accepted.
        let (stream, _) = listener.accept().expect("accepted");
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("readable"));
        // Linux doubles what it is given.
        assert_eq!(
            socket.send_buffer_size().expect("readable"),
            2 * limits.send_buffer_bytes
        );
        let timeout = socket.tcp_user_timeout().expect("readable").expect("set");
        assert_eq!(timeout.as_millis() as u64, limits.tcp_user_timeout_ms);
        let low_water = socket.tcp_notsent_lowat().expect("readable");
        assert_eq!(low_water as usize, limits.not_sent_low_water_mark_bytes);
    }
}
