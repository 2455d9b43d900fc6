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

/// A part of a file that is sent whole or not at all.
#[derive(Debug)]
pub struct Section {
    file: DiskFile,
    left: u64,
    /// The file has as much.
    is_sure: bool,
}

impl Section {
    /// `count` bytes of a file, or those that it has, whichever is less.
    pub fn new(file: DiskFile, count: Option<u64>) -> Self {
        let length = file.length();
        Self {
            left: length.unwrap_or(u64::MAX).min(count.unwrap_or(u64::MAX)),
            is_sure: length.is_some(),
            file,
        }
    }

    /// How many bytes are left, where that is sure.
    pub fn length(&self) -> Option<u64> {
        (self.is_sure || self.left == 0).then_some(self.left)
    }

    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The next piece; empty when there is none.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file has become shorter, so that the part will never be whole.
    pub fn read(&mut self) -> io::Result<Bytes> {
        let piece = self.file.read(self.left)?;
        if piece.is_empty() && self.left > 0 {
            if self.is_sure {
                let problem = "the file became shorter while it was sent";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
            }
            self.left = 0;
        }
        self.left -= piece.len() as u64;
        Ok(piece)
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
        let status = || DiskFile::open(Path::new("/proc/self/status")).unwrap();
        assert_eq!(status().length(), None);
        assert!(!status().read(u64::MAX).unwrap().is_empty());
        let mut section = Section::new(status(), None);
        assert_eq!(section.length(), None);
        assert!(!section.read().unwrap().is_empty());
        assert_eq!(section.read().unwrap(), "");
        assert!(section.is_over());
    }

    #[test]
    fn a_section_has_what_was_asked_for_or_what_there_is() {
        let name = Name::new("section");
        std::fs::write(&name.0, "0123456789").unwrap();
        for (from, count, expected) in [
            (0, None, "0123456789"),
            (4, None, "456789"),
            (4, Some(3), "456"),
            (4, Some(99), "456789"),
            (4, Some(0), ""),
            (99, None, ""),
            (99, Some(1), ""),
        ] {
            let file = DiskFile::at(File::open(&name.0).unwrap(), from).unwrap();
            let mut section = Section::new(file, count);
            assert_eq!(section.length(), Some(expected.len() as u64));
            assert_eq!(section.read().unwrap(), expected, "{from} {count:?}");
            assert!(section.is_over());
            assert_eq!(section.read().unwrap(), "");
        }
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error_and_no_end() {
        let name = Name::new("shorter");
        let mut file = File::create(&name.0).unwrap();
        file.write_all(&vec![1; PIECE + 2]).unwrap();
        let mut section = Section::new(DiskFile::open(&name.0).unwrap(), None);
        assert_eq!(section.read().unwrap().len(), PIECE);
        file.set_len(PIECE as u64 + 1).unwrap();
        assert_eq!(section.read().unwrap().len(), 1);
        let error = section.read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
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
