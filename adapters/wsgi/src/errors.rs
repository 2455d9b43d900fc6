//! `wsgi.errors` (PEP 3333, "Input and Error Streams"): a text stream whose lines go to the server's log.
//!
//! There is one for each application, because applications keep it: a logging handler made in one
//! request is used in all that follow, and by threads of the application's own. So each thread has its
//! own unfinished line. Whoever can make an application log something must not be able to make it look
//! like another line of the log, or speak to the terminal that shows it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tracing::error;

/// Bytes of a line of the log; what is longer goes on in the next.
const LINE: usize = 8 * 1024;
/// Threads whose lines may be unfinished: of those that ended before their line, nobody hears again.
const UNFINISHED: usize = 64;

/// The error stream of one application.
#[pyclass(frozen)]
pub(crate) struct ErrorStream {
    app: Arc<str>,
    lines: Mutex<Lines>,
    /// A line may be unfinished.
    unfinished: AtomicBool,
}

impl ErrorStream {
    pub(crate) fn new(app: Arc<str>) -> Self {
        Self {
            app,
            lines: Mutex::default(),
            unfinished: AtomicBool::new(false),
        }
    }

    /// Logs what this thread has not finished: its request is over.
    pub(crate) fn end(&self, py: Python<'_>) {
        if self.unfinished.load(Ordering::Relaxed) {
            self.change(py, |lines| lines.flush(std::thread::current().id()));
        }
    }

    /// Changes the lines, and logs those that this makes complete.
    fn change(&self, py: Python<'_>, change: impl FnOnce(&mut Lines) -> Vec<String>) {
        let complete = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let complete = change(&mut lines);
            let unfinished = !lines.unfinished.is_empty();
            self.unfinished.store(unfinished, Ordering::Relaxed);
            complete
        };
        if !complete.is_empty() {
            // Whoever reads the log may be slow.
            py.detach(|| {
                for line in complete {
                    error!(app = %self.app, "{}", printable(&line));
                }
            });
        }
    }
}

#[pymethods]
impl ErrorStream {
    /// Adds text; each line is logged when it is complete. Gives the number of characters.
    fn write(&self, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let thread = std::thread::current().id();
        let written = if let Ok(written) = text.to_cow() {
            written
        } else {
            // A lone surrogate; Python's own stderr writes it so.
            let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
            let bytes = bytes.cast::<PyBytes>()?.as_bytes();
            String::from_utf8_lossy(bytes).into_owned().into()
        };
        self.change(text.py(), |lines| lines.write(thread, &written));
        text.len()
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(line?.cast::<PyString>()?)?;
        }
        Ok(())
    }

    /// Logs the line that this thread has begun.
    fn flush(&self, py: Python<'_>) {
        self.end(py);
    }

    fn isatty(&self) -> bool {
        false
    }

    fn writable(&self) -> bool {
        true
    }

    #[getter]
    fn encoding(&self) -> &'static str {
        "utf-8"
    }
}

/// Text of several threads on its way to become lines.
#[derive(Default)]
struct Lines {
    unfinished: HashMap<ThreadId, String>,
}

impl Lines {
    /// Adds text; gives the lines that are complete.
    fn write(&mut self, thread: ThreadId, text: &str) -> Vec<String> {
        let mut complete = Vec::new();
        let mut line = self.unfinished.remove(&thread).unwrap_or_default();
        for piece in text.split_inclusive('\n') {
            let mut piece = piece;
            while line.len() + piece.len() > LINE {
                let mut end = LINE - line.len();
                while !piece.is_char_boundary(end) {
                    end -= 1;
                }
                let (head, rest) = piece.split_at(end);
                line.push_str(head);
                complete.push(std::mem::take(&mut line));
                piece = rest;
            }
            line.push_str(piece);
            if line.ends_with('\n') {
                complete.push(std::mem::take(&mut line));
            }
        }
        if !line.is_empty() {
            if self.unfinished.len() >= UNFINISHED {
                complete.extend(self.unfinished.drain().map(|(_, line)| line));
            }
            self.unfinished.insert(thread, line);
        }
        complete.retain(|line| !line.trim().is_empty());
        complete
    }

    /// What a thread has not finished.
    fn flush(&mut self, thread: ThreadId) -> Vec<String> {
        let line = self.unfinished.remove(&thread);
        line.filter(|line| !line.trim().is_empty())
            .into_iter()
            .collect()
    }
}

/// The line without its end, and with everything that does not print as an escape.
fn printable(line: &str) -> Cow<'_, str> {
    let line = line.trim_end_matches(['\n', '\r']);
    if !line.contains(is_special) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for character in line.chars() {
        let code = u32::from(character);
        // Writing to a `String` does not fail.
        let _ = match character {
            _ if !is_special(character) => escaped.write_char(character),
            '\r' => escaped.write_str("\\r"),
            '\0'..='\u{ff}' => write!(escaped, "\\x{code:02x}"),
            _ => write!(escaped, "\\u{code:04x}"),
        };
    }
    Cow::Owned(escaped)
}

/// What moves the cursor, ends a line, or turns the direction of what follows.
fn is_special(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> [ThreadId; 2] {
        let here = std::thread::current().id();
        [here, std::thread::spawn(|| {}).thread().id()]
    }

    #[test]
    fn a_line_is_complete_at_its_end_however_it_was_written() {
        let [thread, _] = threads();
        let mut lines = Lines::default();
        assert_eq!(lines.write(thread, "one "), [""; 0]);
        assert_eq!(
            lines.write(thread, "line\ntwo\n\n \nthr"),
            ["one line\n", "two\n"]
        );
        assert_eq!(lines.write(thread, ""), [""; 0]);
        assert_eq!(lines.flush(thread), ["thr"]);
        assert_eq!(lines.flush(thread), [""; 0]);
        assert!(lines.unfinished.is_empty());
    }

    #[test]
    fn threads_do_not_write_into_each_others_lines() {
        let [first, second] = threads();
        let mut lines = Lines::default();
        lines.write(first, "first ");
        lines.write(second, "second ");
        assert_eq!(lines.write(first, "line\n"), ["first line\n"]);
        assert_eq!(lines.flush(first), [""; 0]);
        assert_eq!(lines.flush(second), ["second "]);
    }

    #[test]
    fn a_line_without_end_is_logged_in_parts() {
        let [thread, _] = threads();
        let mut lines = Lines::default();
        let text = "é".repeat(LINE);
        let parts = lines.write(thread, &text);
        assert!(parts.iter().all(|part| part.len() <= LINE));
        assert_eq!(parts.concat() + &lines.flush(thread).concat(), text);
    }

    #[test]
    fn threads_that_ended_within_a_line_do_not_add_up() {
        let mut lines = Lines::default();
        let mut logged = 0;
        for _ in 0..UNFINISHED * 3 {
            let [_, other] = threads();
            logged += lines.write(other, "unfinished").len();
            assert!(lines.unfinished.len() <= UNFINISHED);
        }
        assert_eq!(logged + lines.unfinished.len(), UNFINISHED * 3);
    }

    #[test]
    fn what_does_not_print_is_escaped() {
        for (line, expected) in [
            (
                "plain, ümläut \u{1f600}\tand tab\r\n",
                "plain, ümläut \u{1f600}\tand tab",
            ),
            ("\u{1b}[31mred", "\\x1b[31mred"),
            ("a\rb", "a\\rb"),
            ("a\u{0}\u{7f}\u{9b}b", "a\\x00\\x7f\\x9bb"),
            ("a\u{2028}b\u{202e}c\u{2066}", "a\\u2028b\\u202ec\\u2066"),
        ] {
            assert_eq!(printable(line), expected);
        }
    }
}
