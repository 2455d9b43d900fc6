//! The state directory: what a restart must not lose of what was changed live.
//!
//! One server uses it at a time, which a lock keeps up. Nothing in it is for other users of the machine: it
//! names routes, and the token in it changes where requests go. A version is written beside the last one and
//! takes its name when it is on the disk, so that there is always a whole one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::live::{Overlay, Record};
use crate::config::ConfigError;

/// What was changed live.
const OVERLAY: &str = "overlay.json";
/// A JSON line for each change.
const AUDIT: &str = "audit.jsonl";
/// Whoever can read it may change rules.
pub const TOKEN: &str = "admin-token";
const LOCK: &str = "lock";

/// A token that somebody else has made must be as hard to guess as 16 random bytes.
const TOKEN_MIN: usize = 32;

/// The directory, while this server has it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The version that has the name of the one that counts.
    held: u64,
    /// Its lock ends with it.
    _lock: File,
}

/// What is found at the start.
#[derive(Debug)]
pub struct Found {
    pub directory: StateDir,
    pub overlay: Overlay,
    pub token: String,
}

impl StateDir {
    /// Takes the directory, which is made where it is not there.
    ///
    /// # Errors
    /// [`ConfigError`] where another server has it, it cannot be used, or what it holds cannot be read.
    pub fn open(path: &Path) -> Result<Found, ConfigError> {
        let unusable = |error: io::Error| {
            let problem = format!("`{}` cannot be used: {error}", path.display());
            let user = "name a directory that the user of the server may write to";
            ConfigError::new(problem).option("`--state-dir`").hint(user)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        // The working directory may change before the end.
        let path = std::path::absolute(path).map_err(unusable)?;
        let lock = private()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let problem = format!("another server uses `{}`", path.display());
            return Err(ConfigError::new(problem)
                .option("`--state-dir`")
                .hint("give each server a directory of its own"));
        }
        let overlay = read_overlay(&path.join(OVERLAY))?;
        let token = token(&path)?;
        let directory = Self {
            path,
            held: overlay.version,
            _lock: lock,
        };
        Ok(Found {
            directory,
            overlay,
            token,
        })
    }

    /// Keeps a version, and who made it. What is not `wanted` any more when the disk has taken the version is not
    /// written down as made.
    ///
    /// # Errors
    /// Where the disk does not take them, or they are not wanted any more. The next server may find the version
    /// all the same: [`StateDir::restore`] sees to it that it does not.
    pub fn keep(
        &mut self,
        overlay: &Overlay,
        record: &Record,
        wanted: impl Fn() -> bool,
    ) -> io::Result<()> {
        if wanted() {
            self.write(overlay)?;
            if wanted() {
                return self.append(record);
            }
        }
        Err(io::Error::other("it took too long"))
    }

    /// Lets the next server find this version, which counts, and none that was refused.
    ///
    /// # Errors
    /// Where the disk does not take it; then one that was refused is there.
    pub fn restore(&mut self, overlay: &Overlay) -> io::Result<()> {
        if self.held == overlay.version {
            return Ok(());
        }
        self.write(overlay)
    }

    fn write(&mut self, overlay: &Overlay) -> io::Result<()> {
        let (path, new) = (self.path.join(OVERLAY), self.path.join("overlay.json.new"));
        let mut text = serde_json::to_vec_pretty(overlay)?;
        text.push(b'\n');
        write_synced(
            private().create(true).truncate(true).write(true),
            &new,
            &text,
        )?;
        fs::rename(&new, &path)?;
        self.held = overlay.version;
        // The name, too, has to be on the disk.
        File::open(&self.path)?.sync_all()
    }

    fn append(&self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let mut file = private()
            .create(true)
            .read(true)
            .append(true)
            .open(self.path.join(AUDIT))?;
        if file.seek(SeekFrom::End(0))? > 0 {
            // What a full disk has cut off must not swallow the next line.
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        file.write_all(&line)?;
        file.sync_all()
    }
}

/// Options for files that concern nobody else.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn write_synced(options: &OpenOptions, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// What was changed live, as a directory has it that another process may be using.
///
/// # Errors
/// [`ConfigError`] where it cannot be read.
pub fn overlay(directory: &Path) -> Result<Overlay, ConfigError> {
    read_overlay(&directory.join(OVERLAY))
}

fn read_overlay(path: &Path) -> Result<Overlay, ConfigError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overlay::default()),
        Err(error) => {
            let problem = format!("`{}` cannot be read: {error}", path.display());
            return Err(ConfigError::new(problem).option("`--state-dir`"));
        }
    };
    serde_json::from_slice(&text).map_err(|error| {
        let problem = format!(
            "`{}` does not hold what was changed live: {error}",
            path.display()
        );
        ConfigError::new(problem).option("`--state-dir`").hint(
            "mend the file, or move it away: then the shares of the configuration count; \
             what was changed when stands in audit.jsonl beside it",
        )
    })
}

/// The token that changes need; made where there is none.
fn token(directory: &Path) -> Result<String, ConfigError> {
    let path = directory.join(TOKEN);
    let failed = |error: io::Error| {
        let problem = format!("`{}` cannot be used: {error}", path.display());
        ConfigError::new(problem).option("`--state-dir`")
    };
    match read_token(&path) {
        Ok(Some(token)) => Ok(token),
        Ok(None) => {
            let problem = format!("`{}` is no token", path.display());
            Err(ConfigError::new(problem)
                .option("`--state-dir`")
                .hint(format!(
                    "delete it, and the server makes another; one of your own needs {TOKEN_MIN} letters and digits"
                )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = random_token().map_err(failed)?;
            let new = private().create_new(true).write(true).open(&path);
            let written = new.and_then(|mut file| {
                file.write_all(format!("{token}\n").as_bytes())?;
                file.sync_all()
            });
            written.map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The token in a file; `None` where it is none.
///
/// # Errors
/// Where the file cannot be read.
pub fn read_token(path: &Path) -> io::Result<Option<String>> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!("other users can read `{path}`, and with it change rules: chmod 600 {path}");
    }
    let text = fs::read_to_string(path)?;
    let token = text.trim();
    let is_token = token.len() >= TOKEN_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(is_token.then(|| token.to_owned()))
}

/// 32 random bytes, in hexadecimal digits.
fn random_token() -> io::Result<String> {
    let (mut high, mut low) = ([0; 16], [0; 16]);
    let mut random = File::open("/dev/urandom")?;
    random.read_exact(&mut high)?;
    random.read_exact(&mut low)?;
    let (high, low) = (u128::from_ne_bytes(high), u128::from_ne_bytes(low));
    Ok(format!("{high:032x}{low:032x}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::live::{Author, RuleOverlay};
    use super::*;

    /// A directory that is not there yet, and is removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("twinspan-kept-{}-{count}", std::process::id());
            Self(std::env::temp_dir().join(name).join("below"))
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(&self.0).unwrap();
            fs::write(self.0.join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn mode(&self, name: &str) -> u32 {
            let metadata = fs::metadata(self.0.join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn overlay(version: u64) -> Overlay {
        let gone = ("gone".to_owned(), RuleOverlay::default());
        Overlay {
            version,
            rules: [gone].into(),
        }
    }

    fn keep(found: &mut Found, version: u64) -> io::Result<()> {
        let directory = &mut found.directory;
        directory.keep(&overlay(version), &record(version), || true)
    }

    fn record(version: u64) -> Record {
        Record {
            at: 100,
            version,
            author: Author::Operator { uid: Some(1000) },
            rule: "items".into(),
            was: None,
            is: None,
            reason: None,
        }
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_server() {
        let scratch = Scratch::new();
        let mut found = StateDir::open(&scratch.0).unwrap();
        assert_eq!(found.overlay, Overlay::default());
        keep(&mut found, 1).unwrap();
        keep(&mut found, 2).unwrap();
        let token = found.token.clone();
        drop(found);
        let found = StateDir::open(&scratch.0).unwrap();
        assert_eq!(found.overlay, overlay(2), "also what no rule has any more");
        assert_eq!(found.token, token);
        let audit = scratch.read(AUDIT);
        assert_eq!(
            audit.lines().next(),
            Some(
                r#"{"at":100,"version":1,"who":"operator","uid":1000,"rule":"items","was":null,"is":null}"#
            )
        );
        assert_eq!(audit.lines().count(), 2);
    }

    #[test]
    fn a_version_that_was_refused_is_not_what_the_next_server_finds() {
        let scratch = Scratch::new();
        let mut found = StateDir::open(&scratch.0).unwrap();
        keep(&mut found, 1).unwrap();
        // Written before somebody gave up waiting, and never written.
        let mut answers = [true, false].into_iter();
        let answers = std::cell::RefCell::new(&mut answers);
        let directory = &mut found.directory;
        let wanted = || answers.borrow_mut().next().unwrap();
        directory.keep(&overlay(2), &record(2), wanted).unwrap_err();
        assert!(scratch.read(OVERLAY).contains("\"version\": 2"));
        directory.restore(&overlay(1)).unwrap();
        assert!(scratch.read(OVERLAY).contains("\"version\": 1"));
        directory
            .keep(&overlay(3), &record(3), || false)
            .unwrap_err();
        assert!(scratch.read(OVERLAY).contains("\"version\": 1"));
        assert_eq!(scratch.read(AUDIT).lines().count(), 1, "it was not made");
        // The audit log is what cannot be written: what counts is put back.
        fs::remove_file(scratch.0.join(AUDIT)).unwrap();
        fs::create_dir(scratch.0.join(AUDIT)).unwrap();
        keep(&mut found, 4).unwrap_err();
        found.directory.restore(&overlay(1)).unwrap();
        drop(found);
        assert_eq!(StateDir::open(&scratch.0).unwrap().overlay, overlay(1));
    }

    #[test]
    fn nothing_is_written_down_that_does_not_count() {
        let scratch = Scratch::new();
        let mut found = StateDir::open(&scratch.0).unwrap();
        fs::create_dir(scratch.0.join(OVERLAY)).unwrap();
        keep(&mut found, 1).unwrap_err();
        assert!(!scratch.0.join(AUDIT).exists());
        // What counts is there still, which the disk need not take again.
        found.directory.restore(&Overlay::default()).unwrap();
    }

    #[test]
    fn nothing_of_it_is_for_other_users() {
        let scratch = Scratch::new();
        let mut found = StateDir::open(&scratch.0).unwrap();
        keep(&mut found, 1).unwrap();
        for (name, mode) in [
            (".", 0o700),
            (TOKEN, 0o600),
            (OVERLAY, 0o600),
            (AUDIT, 0o600),
            (LOCK, 0o600),
        ] {
            assert_eq!(scratch.mode(name), mode, "{name}");
        }
        assert_eq!(found.token.len(), 64);
        assert_ne!(found.token, random_token().unwrap());
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next() {
        let scratch = Scratch::new();
        scratch.write(AUDIT, "{\"at\":1");
        let mut found = StateDir::open(&scratch.0).unwrap();
        keep(&mut found, 1).unwrap();
        let audit = scratch.read(AUDIT);
        let lines: Vec<_> = audit.lines().collect();
        assert_eq!((lines[0], lines.len()), ("{\"at\":1", 2));
    }

    #[test]
    fn two_servers_do_not_use_one_directory() {
        let scratch = Scratch::new();
        let _first = StateDir::open(&scratch.0).unwrap();
        let error = StateDir::open(&scratch.0).unwrap_err().to_string();
        assert!(error.contains("another server uses"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_the_way_out() {
        for (name, text, hint) in [
            (OVERLAY, "{\"version\":", "mend the file, or move it away"),
            (
                OVERLAY,
                "{\"version\":1,\"rules\":{\"a\":{\"canary\":200}}}",
                "mend the file",
            ),
            (TOKEN, "", "delete it, and the server makes another"),
            (TOKEN, "secret", "delete it, and the server makes another"),
        ] {
            let scratch = Scratch::new();
            scratch.write(name, text);
            let error = StateDir::open(&scratch.0).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(hint), "{error}");
        }
        let error = StateDir::open(Path::new("/dev/null/below")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`/dev/null/below` cannot be used"),
            "{error}"
        );
    }

    #[test]
    fn a_token_of_ones_own_is_kept() {
        let scratch = Scratch::new();
        let token = "correct-horse-battery-staple-0123456789";
        scratch.write(TOKEN, &format!("{token}\n"));
        assert_eq!(StateDir::open(&scratch.0).unwrap().token, token);
    }
}
