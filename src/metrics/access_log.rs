//! One line per request, written by a thread of its own.
//!
//! ```text
//! 2026-01-02T03:04:05.678Z 127.0.0.1:5000 "GET /x?y HTTP/1.1" 200 123B 1.2ms app=shop rule="mount /api"
//! ```
//!
//! The thread that serves a request only appends to a buffer in memory: a terminal or a pipe that is slow to
//! read must not slow the server down. The buffer is bounded; lines beyond it are dropped and counted. The
//! writer wakes for the first line and then waits a moment for more, so that under load one system call
//! carries hundreds of lines and below it a line appears within [`BATCH_DELAY`].

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode, Version};

use super::Metrics;

/// What one line says.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The client behind trusted proxies; `None` on a unix socket.
    pub client: Option<SocketAddr>,
    pub method: &'a Method,
    /// Path and query as they came.
    pub target: &'a str,
    pub version: Version,
    pub status: StatusCode,
    /// Bytes of the response body.
    pub bytes: u64,
    pub duration: Duration,
    /// `None` where no application has seen the request.
    pub app: Option<&'a str>,
    /// Name of the rule that chose the application.
    pub rule: Option<&'a str>,
    /// The response did not complete.
    pub aborted: bool,
}

/// The log of one server. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(sink: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            shared: Arc::clone(&shared),
            sink,
            metrics: Arc::clone(&metrics),
        };
        std::thread::Builder::new()
            .name("twinspan-log".into())
            .spawn(move || writer.run())?;
        Ok(Self { shared, metrics })
    }

    /// Appends a line; never waits for whoever reads the log.
    pub fn log(&self, entry: &Entry<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut state = self.shared.lock();
        if state.buffer.len() >= BUFFER_LIMIT {
            drop(state);
            self.metrics.log_line_dropped();
            return;
        }
        let before = state.buffer.len();
        let State { buffer, clock, .. } = &mut *state;
        write_line(buffer, clock, now, entry);
        state.lines += 1;
        let wake = before == 0 || (before < BATCH_BYTES && state.buffer.len() >= BATCH_BYTES);
        drop(state);
        if wake {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.filled.notify_one();
        // Not a join: a terminal that is stopped would keep the process from ending.
        let _ = self
            .shared
            .finished
            .wait_timeout_while(state, FLUSH_LIMIT, |state| !state.finished);
    }
}

/// Bytes that may wait for the writer (1 MiB: some 8 000 lines).
const BUFFER_LIMIT: usize = 1024 * 1024;
/// The writer does not wait for more than this.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the writer waits for more lines after the first.
const BATCH_DELAY: Duration = Duration::from_millis(10);
/// How long the end of the server waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The buffer has its first line, or a batch, or no more will come.
    filled: Condvar,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
    clock: Clock,
    closed: bool,
    finished: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves at worst half a line behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    sink: Box<dyn Write + Send>,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        while let Some(lines) = self.next_batch(&mut batch) {
            let written = self.sink.write_all(&batch).and_then(|()| self.sink.flush());
            if written.is_err() {
                // Nobody reads any more, or the disk is full: the next batch may fare better.
                for _ in 0..lines {
                    self.metrics.log_line_dropped();
                }
            }
            batch.clear();
            batch.shrink_to(BUFFER_LIMIT / 4);
        }
        self.shared.lock().finished = true;
        self.shared.finished.notify_all();
    }

    /// Swaps the filled buffer for the empty `batch`; returns how many lines it holds, `None` at the end.
    fn next_batch(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let filled = &self.shared.filled;
        let state = filled
            .wait_while(self.shared.lock(), |state| {
                state.buffer.is_empty() && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = filled
            .wait_timeout_while(state, BATCH_DELAY, |state| {
                state.buffer.len() < BATCH_BYTES && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.buffer.is_empty() {
            return None;
        }
        std::mem::swap(&mut state.buffer, batch);
        Some(std::mem::take(&mut state.lines))
    }
}

/// Remembers the text of the second that it was last asked for.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// `2026-01-02T03:04:05` (UTC)
    fn text(&mut self, second: u64) -> &str {
        if self.second != second || self.text.is_empty() {
            self.text = timestamp(second);
            self.second = second;
        }
        &self.text
    }
}

/// Seconds since 1970 for people: `2026-01-02T03:04:05` (UTC)
pub(crate) fn timestamp(second: u64) -> String {
    let (days, rest) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The date that is `days` after 1970-01-01. The year is taken to begin in March, so that the leap day is its last.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn write_line(line: &mut Vec<u8>, clock: &mut Clock, now: Duration, entry: &Entry<'_>) {
    let mut digits = itoa::Buffer::new();
    line.extend_from_slice(clock.text(now.as_secs()).as_bytes());
    line.push(b'.');
    write_padded(line, now.subsec_millis());
    line.extend_from_slice(b"Z ");
    write_client(line, entry.client);
    line.extend_from_slice(b" \"");
    write_escaped(line, entry.method.as_str());
    line.push(b' ');
    write_escaped(line, entry.target);
    line.extend_from_slice(match entry.version {
        Version::HTTP_10 => b" HTTP/1.0\" ".as_slice(),
        Version::HTTP_2 => b" HTTP/2\" ",
        Version::HTTP_3 => b" HTTP/3\" ",
        _ => b" HTTP/1.1\" ",
    });
    line.extend_from_slice(entry.status.as_str().as_bytes());
    line.push(b' ');
    line.extend_from_slice(digits.format(entry.bytes).as_bytes());
    line.extend_from_slice(b"B ");
    let tenths = entry.duration.as_micros().saturating_add(50) / 100;
    line.extend_from_slice(digits.format(tenths / 10).as_bytes());
    line.push(b'.');
    line.extend_from_slice(digits.format(tenths % 10).as_bytes());
    line.extend_from_slice(b"ms");
    if let Some(app) = entry.app {
        line.extend_from_slice(b" app=");
        write_escaped(line, app);
    }
    if let Some(rule) = entry.rule {
        line.extend_from_slice(b" rule=\"");
        write_escaped(line, rule);
        line.push(b'"');
    }
    if entry.aborted {
        line.extend_from_slice(b" aborted");
    }
    line.push(b'\n');
}

/// Three digits.
fn write_padded(line: &mut Vec<u8>, millis: u32) {
    let mut digits = itoa::Buffer::new();
    let text = digits.format(millis);
    line.extend(std::iter::repeat_n(
        b'0',
        3_usize.saturating_sub(text.len()),
    ));
    line.extend_from_slice(text.as_bytes());
}

fn write_client(line: &mut Vec<u8>, client: Option<SocketAddr>) {
    let mut digits = itoa::Buffer::new();
    match client {
        None => line.extend_from_slice(b"unix"),
        Some(SocketAddr::V4(address)) => {
            for (index, octet) in address.ip().octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                line.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        Some(SocketAddr::V6(address)) => {
            // Writing to a Vec cannot fail.
            let _ = write!(line, "[{}]", address.ip());
        }
    }
    // A proxy that names a client seldom names its port.
    if let Some(port) = client.map(|client| client.port()).filter(|&port| port != 0) {
        line.push(b':');
        line.extend_from_slice(digits.format(port).as_bytes());
    }
}

/// What could end the field or the line, or drive a terminal, is written as `\x1b`.
fn write_escaped(line: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        if plain(byte) {
            line.push(byte);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ENTRY: Entry<'static> = Entry {
        client: None,
        method: &Method::GET,
        target: "/x?y=1",
        version: Version::HTTP_11,
        status: StatusCode::OK,
        bytes: 123,
        duration: Duration::from_micros(1_234),
        app: Some("shop"),
        rule: Some("mount /api"),
        aborted: false,
    };

    fn line(entry: &Entry<'_>) -> String {
        let mut text = Vec::new();
        let now = Duration::from_millis(1_767_323_045_006);
        write_line(&mut text, &mut Clock::default(), now, entry);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_says_when_who_what_and_how_it_went() {
        let client = Some("127.0.0.1:5000".parse().unwrap());
        assert_eq!(
            line(&Entry { client, ..ENTRY }),
            "2026-01-02T03:04:05.006Z 127.0.0.1:5000 \"GET /x?y=1 HTTP/1.1\" 200 123B 1.2ms app=shop rule=\"mount /api\"\n"
        );
        assert_eq!(
            line(&Entry {
                client: Some("[2001:db8::1]:0".parse().unwrap()),
                version: Version::HTTP_2,
                status: StatusCode::NOT_FOUND,
                app: None,
                rule: None,
                aborted: true,
                ..ENTRY
            }),
            "2026-01-02T03:04:05.006Z [2001:db8::1] \"GET /x?y=1 HTTP/2\" 404 123B 1.2ms aborted\n"
        );
    }

    #[test]
    fn nothing_that_a_client_sends_ends_the_line_or_the_field() {
        for (target, written) in [
            ("/a\"b", "/a\\x22b"),
            ("/a\\b", "/a\\x5cb"),
            ("/a\nb\r", "/a\\x0ab\\x0d"),
            ("/\u{1b}[31m\u{7f}", "/\\x1b[31m\\x7f"),
            ("/\u{e4}", "/\\xc3\\xa4"),
        ] {
            let line = line(&Entry { target, ..ENTRY });
            assert!(line.contains(&format!("\"GET {written} HTTP")), "{line}");
        }
    }

    #[test]
    fn dates_are_right_across_leap_years_and_centuries() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(Clock::default().text(second), text);
        }
    }

    #[test]
    fn a_clock_that_moves_is_followed_both_ways() {
        let mut clock = Clock::default();
        assert_eq!(clock.text(60), "1970-01-01T00:01:00");
        assert_eq!(clock.text(61), "1970-01-01T00:01:01");
        assert_eq!(clock.text(59), "1970-01-01T00:00:59");
    }

    /// Passes on what is written, and waits for a permit before each write when it has a gate.
    struct Pipe {
        written: mpsc::Sender<Vec<u8>>,
        gate: Option<mpsc::Receiver<()>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(text: &[u8]) -> u64 {
        memchr::memchr_iter(b'\n', text).count() as u64
    }

    fn dropped(metrics: &Metrics) -> u64 {
        metrics.log_lines_dropped.get()
    }

    #[test]
    fn a_line_is_written_without_waiting_for_others_and_the_last_ones_at_the_end() {
        let (written, output) = mpsc::channel();
        let metrics = Metrics::new(&[]);
        let pipe = Pipe {
            written,
            gate: None,
        };
        let log = AccessLog::start(Box::new(pipe), Arc::clone(&metrics)).unwrap();
        log.log(&ENTRY);
        let first = output.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(lines(&first), 1);
        for _ in 0..1000 {
            log.log(&ENTRY);
        }
        drop(log);
        let rest: Vec<u8> = output.iter().flatten().collect();
        assert_eq!(lines(&rest), 1000);
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn lines_beyond_the_buffer_are_dropped_and_counted_while_nobody_reads() {
        let (written, output) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let metrics = Metrics::new(&[]);
        let pipe = Pipe {
            written,
            gate: Some(gate),
        };
        let log = AccessLog::start(Box::new(pipe), Arc::clone(&metrics)).unwrap();
        let target = "x".repeat(10_000);
        let entry = Entry {
            target: &target,
            ..ENTRY
        };
        let logged = 1000;
        for _ in 0..logged {
            log.log(&entry);
        }
        let lost = dropped(&metrics);
        assert!(lost >= 700, "only {lost} of {logged} lines were dropped");
        drop(open);
        drop(log);
        let kept: Vec<u8> = output.iter().flatten().collect();
        assert_eq!(lines(&kept) + lost, logged);
    }

    #[test]
    fn a_sink_that_fails_costs_its_lines_and_nothing_else() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let metrics = Metrics::new(&[]);
        let log = AccessLog::start(Box::new(Full), Arc::clone(&metrics)).unwrap();
        log.log(&ENTRY);
        drop(log);
        assert_eq!(dropped(&metrics), 1);
    }
}
