//! Files on disk that become bodies: in pieces, and without holding up a thread that others wait for.
//!
//! hyper owns the socket, so that the kernel cannot send a file by itself: a piece is read, sent, and
//! forgotten. A map of the file would save the copy and end the process when somebody truncates it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread, retry_on_intr};

/// Bytes of a file that are read at a time: what is in flight of a response, so that one piece is read while
/// the one before is sent.
pub const PIECE: usize = 64 * 1024;

/// A regular file, read from a position on. The position is its own: that of the descriptor stays.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    position: u64,
}

impl DiskFile {
    /// Opens a file at its beginning.
    ///
    /// # Errors
    /// What the system says; `EISDIR` for a directory, [`io::ErrorKind::InvalidInput`] for whatever else is
    /// no regular file. That is found out before it is opened: to open a device can do something, and to
    /// open a FIFO can wait for ever.
    pub fn open(path: &Path) -> io::Result<Self> {
        check(&std::fs::metadata(path)?)?;
        // Should a FIFO have taken the name by now, this does not wait either.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        Self::at(file, 0)
    }

    /// An open file from `position` on.
    ///
    /// # Errors
    /// As [`DiskFile::open`].
    pub fn at(file: File, position: u64) -> io::Result<Self> {
        check(&file.metadata()?)?;
        Ok(Self { file, position })
    }

    /// How many bytes are left, where that is sure: files of /proc and /sys have sizes that tell nothing, and no blocks.
    pub fn length(&self) -> Option<u64> {
        let metadata = self.file.metadata().ok()?;
        (metadata.blocks() > 0).then(|| metadata.len().saturating_sub(self.position))
    }

    /// The next piece, at most `limit` bytes; empty at the end.
    pub fn read(&mut self, limit: u64) -> io::Result<Bytes> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(PIECE);
        let mut piece = Vec::with_capacity(limit);
        while piece.len() < limit {
            let position = self.position + piece.len() as u64;
            if retry_on_intr(|| pread(&self.file, spare_capacity(&mut piece), position))? == 0 {
                break;
            }
        }
        piece.truncate(limit);
        self.position += piece.len() as u64;
        Ok(piece.into())
    }
}

fn check(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    let what = if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let problem = format!("not a regular file but {what}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// Does something that waits for a disk on a thread that may.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    /// A name that no other test uses, and that is free again at the end.
    struct Name(PathBuf);

    impl Name {
        fn new(what: &str) -> Self {
            let name = format!("twinspan-{}-{what}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_file_is_read_from_its_position_to_its_limit() {
        let name = Name::new("pieces");
        let content: Vec<u8> = (0..PIECE * 2).map(|index| index.to_le_bytes()[1]).collect();
        File::create(&name.0).unwrap().write_all(&content).unwrap();
        let mut file = DiskFile::at(File::open(&name.0).unwrap(), 10).unwrap();
        assert_eq!(file.length(), Some(content.len() as u64 - 10));
        assert_eq!(file.read(20).unwrap(), content[10..30]);
        assert_eq!(file.read(u64::MAX).unwrap(), content[30..PIECE + 30]);
        assert_eq!(file.read(u64::MAX).unwrap(), content[PIECE + 30..]);
        assert_eq!(file.length(), Some(0));
        assert_eq!(file.read(u64::MAX).unwrap(), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_does_not_know_its_size_has_no_length() {
        let mut file = DiskFile::open(Path::new("/proc/self/status")).unwrap();
        assert_eq!(file.length(), None);
        assert!(!file.read(u64::MAX).unwrap().is_empty());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let fifo = Name::new("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo.0).status();
        assert!(made.unwrap().success());
        let missing = Name::new("missing");
        for (path, kind) in [
            (&*fifo.0, io::ErrorKind::InvalidInput),
            (Path::new("/dev/null"), io::ErrorKind::InvalidInput),
            (Path::new("/"), io::ErrorKind::IsADirectory),
            (&*missing.0, io::ErrorKind::NotFound),
        ] {
            assert_eq!(DiskFile::open(path).unwrap_err().kind(), kind, "{path:?}");
        }
    }
}
