//! Unix sockets, whose names outlive their listeners.
//!
//! The kernel removes a socket file neither when its listener closes nor when the process is killed,
//! and a bind to an existing name fails. So whoever bound removes the file at its end, and a file that
//! was left behind is recognised by asking it: nobody answers a connect.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::BindError;

/// Binds `path`, after removing what a killed process left there.
pub(super) fn bind(path: &Path, backlog: i32) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |error: io::Error| BindError::Failed {
        what: format!("unix socket {}", path.display()),
        error,
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    clear(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::UnixInUse(path.into()),
        _ => failed(error),
    })?;
    let file = SocketFile::of(path).map_err(failed)?;
    socket.listen(backlog).map_err(failed)?;
    Ok((socket.into(), file))
}

/// Removes a socket file that nobody listens on; anything else at `path` is an error.
fn clear(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let failed = |error: io::Error| BindError::Failed {
        what: format!("unix socket {}", path.display()),
        error,
    };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket(path.into()));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A listener whose queue is full would hold a blocking connect.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // Connected, queue full, or owned by somebody who lets nobody in: it is not ours to remove.
        _ => Err(BindError::UnixInUse(path.into())),
    }
}

/// The name of a socket; dropping it removes the file, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            // The working directory may change before the end.
            path: std::path::absolute(path)?,
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // At worst a stale file stays, which the next bind removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::Listener;
    use super::*;
    use crate::config::Bind;

    /// A directory of its own for each test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "twinspan-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_socket_file_disappears_with_its_listener() {
        let scratch = Scratch::new();
        let path = scratch.path("server.sock");
        let listener = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_a_killed_server_left_is_replaced() {
        let scratch = Scratch::new();
        let path = scratch.path("server.sock");
        drop(UnixListener::bind(&path).unwrap()); // std leaves the file, as a kill does
        assert!(path.exists());
        let _listener = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_that_somebody_listens_on_is_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.path("server.sock");
        let _other = UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap_err();
        assert!(matches!(error, BindError::UnixInUse(_)), "{error:?}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let scratch = Scratch::new();
        let path = scratch.path("notes.txt");
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successor_at_the_same_path_keeps_its_file() {
        let scratch = Scratch::new();
        let path = scratch.path("server.sock");
        let first = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap();
        let second_path = scratch.path("second.sock");
        let _second = UnixListener::bind(&second_path).unwrap();
        fs::rename(&second_path, &path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn an_inherited_socket_leaves_the_file_to_its_owner() {
        let scratch = Scratch::new();
        let path = scratch.path("server.sock");
        let owner = Listener::bind(&Bind::Unix(path.clone()), 16).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&owner).try_clone_to_owned();
        drop(Listener::from_fd(fd.unwrap()).unwrap());
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_for_people() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let error = Listener::bind(&Bind::Unix(path), 16).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot listen on unix socket /tmp/xxx")
        );
    }
}
