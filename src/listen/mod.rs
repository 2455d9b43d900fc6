//! Listening sockets: bound once by the supervisor, accepted from by every worker.
//!
//! The workers share one socket per address instead of opening one each with `SO_REUSEPORT`: a worker
//! that leaves takes the connections of its own queue with it, a shared queue loses none. Binding
//! needs no runtime, so that an address in use ends the program before a worker exists;
//! [`Listener::into_acceptor`] makes the socket part of the runtime that serves it.

mod socket;
mod unix;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Type};

use crate::app::{ConnInfo, LocalAddr, Scheme};
use crate::config::Bind;

pub use socket::Socket;

/// A bound, listening, non-blocking socket that no runtime knows yet.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    local: LocalAddr,
    /// Present where this process made the socket file; removes it when the listener is dropped.
    file: Option<unix::SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds and listens with room for `backlog` connections that nobody has accepted yet.
    ///
    /// An IPv6 address takes IPv6 connections only: `0.0.0.0` and `[::]` are two binds and can both be
    /// had. A socket file that no process listens on any more is replaced.
    pub fn bind(bind: &Bind, backlog: u32) -> Result<Self, BindError> {
        // The kernel caps the queue itself (`net.core.somaxconn`).
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match bind {
            Bind::Tcp(address) => bind_tcp(*address, backlog),
            Bind::Unix(path) => {
                let (listener, file) = unix::bind(path, backlog)?;
                Ok(Self {
                    kind: Kind::Unix(listener),
                    local: LocalAddr::Unix(path.to_string_lossy().into()),
                    file: Some(file),
                })
            }
        }
    }

    /// Takes over a listening socket that another process has bound.
    ///
    /// # Errors
    /// `InvalidInput` for anything but an internet or unix stream socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if let Some(tcp) = address.as_socket() {
            Ok(Self {
                kind: Kind::Tcp(socket.into()),
                local: LocalAddr::Tcp(tcp),
                file: None,
            })
        } else if address.is_unix() {
            let path = address.as_pathname().unwrap_or_else(|| "".as_ref());
            Ok(Self {
                local: LocalAddr::Unix(path.to_string_lossy().into()),
                kind: Kind::Unix(socket.into()),
                file: None,
            })
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the inherited descriptor is neither an internet nor a unix socket",
            ))
        }
    }

    /// Where it listens; port 0 has become the port that the kernel chose.
    pub fn local(&self) -> &LocalAddr {
        &self.local
    }

    /// Makes the socket part of the current tokio runtime.
    pub fn into_acceptor(self) -> io::Result<Acceptor> {
        let socket = match self.kind {
            Kind::Tcp(listener) => Registered::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(listener) => Registered::Unix(tokio::net::UnixListener::from_std(listener)?),
        };
        Ok(Acceptor {
            socket,
            local: self.local,
            complained: Mutex::new(None),
            _file: self.file,
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> Result<Listener, BindError> {
    let bind = || -> io::Result<Listener> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        // Connections of the last run that linger in TIME_WAIT must not keep the next from starting.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(backlog)?;
        let listener = TcpListener::from(socket);
        Ok(Listener {
            local: LocalAddr::Tcp(listener.local_addr()?),
            kind: Kind::Tcp(listener),
            file: None,
        })
    };
    bind().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        io::ErrorKind::PermissionDenied => BindError::Forbidden(address),
        _ => BindError::Failed {
            what: address.to_string(),
            error,
        },
    })
}

/// Yields connections; belongs to one runtime.
#[derive(Debug)]
pub struct Acceptor {
    socket: Registered,
    local: LocalAddr,
    /// When a failure to accept was last logged.
    complained: Mutex<Option<Instant>>,
    /// Held for its end, which removes the file.
    _file: Option<unix::SocketFile>,
}

#[derive(Debug)]
enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// How long accepting rests when the process or the machine has run out of something.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// A lack of descriptors shows in every accept: one line tells it.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

impl Acceptor {
    pub fn local(&self) -> &LocalAddr {
        &self.local
    }

    /// Waits for the next connection, through every failure. Nothing is lost when the future is dropped.
    ///
    /// There is no error to return: what concerns one connection is followed by the next connection,
    /// and a lack of descriptors passes when others close theirs.
    pub async fn accept(&self) -> (Socket, ConnInfo) {
        loop {
            match self.try_accept().await {
                Ok(Some(connection)) => return connection,
                Ok(None) => {}
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    self.complain(&error);
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// `None` for a connection that the client has reset meanwhile, which macOS tells of the first
    /// option that is set on it.
    async fn try_accept(&self) -> io::Result<Option<(Socket, ConnInfo)>> {
        match &self.socket {
            Registered::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A response is written whole or streamed on purpose; waiting for an ACK helps neither.
                if stream.set_nodelay(true).is_err() {
                    return Ok(None);
                }
                let local = match &self.local {
                    LocalAddr::Tcp(address) if !address.ip().is_unspecified() => *address,
                    _ => match stream.local_addr() {
                        Ok(address) => address,
                        Err(_) => return Ok(None),
                    },
                };
                let info = ConnInfo {
                    peer: Some(peer),
                    peer_uid: None,
                    local: LocalAddr::Tcp(local),
                    scheme: Scheme::Http,
                };
                Ok(Some((Socket::Tcp(stream), info)))
            }
            Registered::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let info = ConnInfo {
                    peer: None,
                    peer_uid: stream.peer_cred().ok().map(|peer| peer.uid()),
                    local: self.local.clone(),
                    scheme: Scheme::Http,
                };
                Ok(Some((Socket::Unix(stream), info)))
            }
        }
    }

    fn complain(&self, error: &io::Error) {
        let mut last = self
            .complained
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            tracing::error!(
                %error,
                "cannot accept connections; if descriptors have run out, raise `ulimit -n`"
            );
        }
    }
}

/// Tells the failure of one connection from a failure to accept (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::NotConnected
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::Interrupted
    )
}

/// Why nothing listens at an address. The way out is [`BindError::hint`].
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("address {0} is in use")]
    InUse(SocketAddr),
    #[error("address {0} does not belong to this machine")]
    NotOurs(SocketAddr),
    #[error("this user may not listen on {0}")]
    Forbidden(SocketAddr),
    #[error("unix socket {} is in use", .0.display())]
    UnixInUse(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen on {what}: {error}")]
    Failed {
        what: String,
        #[source]
        error: io::Error,
    },
}

impl BindError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse(address) => {
                let port = address.port();
                Some(format!(
                    "stop the process that listens there (`lsof -nP -iTCP:{port} -sTCP:LISTEN` names it) or choose another port"
                ))
            }
            Self::NotOurs(_) => Some(
                "listen on 127.0.0.1 for this machine only, on 0.0.0.0 or [::] for every network"
                    .into(),
            ),
            Self::Forbidden(_) => {
                Some("ports below 1024 belong to root: choose a higher one, or grant CAP_NET_BIND_SERVICE".into())
            }
            Self::UnixInUse(_) => {
                Some("stop the process that listens there or choose another path".into())
            }
            Self::NotASocket(_) => Some("remove it or choose another path".into()),
            Self::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn any_port(ip: &str) -> Bind {
        Bind::Tcp(SocketAddr::new(ip.parse().unwrap(), 0))
    }

    fn tcp_address(local: &LocalAddr) -> SocketAddr {
        match local {
            LocalAddr::Tcp(address) => *address,
            LocalAddr::Unix(path) => panic!("{path} is no internet address"),
        }
    }

    #[test]
    fn port_zero_becomes_the_port_that_the_kernel_chose() {
        let listener = Listener::bind(&any_port("127.0.0.1"), 16).unwrap();
        assert_ne!(tcp_address(listener.local()).port(), 0);
    }

    #[test]
    fn an_address_in_use_is_named_with_a_way_out() {
        let first = Listener::bind(&any_port("127.0.0.1"), 16).unwrap();
        let address = tcp_address(first.local());
        let error = Listener::bind(&Bind::Tcp(address), 16).unwrap_err();
        assert_eq!(error.to_string(), format!("address {address} is in use"));
        let hint = error.hint().unwrap();
        assert!(hint.contains(&address.port().to_string()), "{hint}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = Listener::bind(&any_port("192.0.2.1"), 16).unwrap_err();
        assert!(matches!(error, BindError::NotOurs(_)), "{error:?}");
    }

    #[test]
    fn the_wildcards_of_both_families_share_a_port() {
        let Ok(six) = Listener::bind(&any_port("::"), 16) else {
            return; // this machine has no IPv6
        };
        let port = tcp_address(six.local()).port();
        let four = Bind::Tcp((Ipv4Addr::UNSPECIFIED, port).into());
        Listener::bind(&four, 16).unwrap();
    }

    #[tokio::test]
    async fn a_connection_knows_both_of_its_ends() {
        let listener = Listener::bind(&any_port("0.0.0.0"), 16).unwrap();
        let port = tcp_address(listener.local()).port();
        let acceptor = listener.into_acceptor().unwrap();
        let client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (socket, info) = acceptor.accept().await;
        assert_eq!(info.peer, Some(client.local_addr().unwrap()));
        assert_eq!(
            info.local,
            LocalAddr::Tcp((Ipv4Addr::LOCALHOST, port).into())
        );
        let Socket::Tcp(stream) = socket else {
            panic!("accepted from the wrong family")
        };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn an_inherited_listener_accepts_what_the_first_one_bound() {
        let bound = Listener::bind(&any_port("127.0.0.1"), 16).unwrap();
        let fd = bound.as_fd().try_clone_to_owned().unwrap();
        let inherited = Listener::from_fd(fd).unwrap();
        assert_eq!(inherited.local(), bound.local());
        let address = tcp_address(bound.local());
        drop(bound);
        let acceptor = inherited.into_acceptor().unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        acceptor.accept().await;
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_not_inherited() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Listener::from_fd(file.into()).is_err());
    }

    #[tokio::test]
    async fn an_aborted_connection_is_reset_and_does_not_look_complete() {
        let listener = Listener::bind(&any_port("127.0.0.1"), 16).unwrap();
        let address = tcp_address(listener.local());
        let acceptor = listener.into_acceptor().unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = acceptor.accept().await;
        socket.write_all(b"half of it").await.unwrap();
        let mut received = [0; 10];
        client.read_exact(&mut received).await.unwrap();
        socket.abort();
        drop(socket);
        let error = client.read(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
