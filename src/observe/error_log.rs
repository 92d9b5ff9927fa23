//! The log of the process itself: starting, stopping, and what goes wrong outside of exchanges.
//!
//! Written at once and to standard error, since it must survive what comes next. Each kind of
//! event has a rate limit of its own, so that an error that repeats a thousand times a
//! second neither fills a disk nor hides another.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use crate::observe::line::Line;
use crate::observe::line::Style;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something may soon not work.
    Warn,
    /// Something an operator did or will want to know.
    Info,
    /// Something a developer wants to know.
    Debug,
}

/// Where process lines go.
pub struct ErrorLog {
    least: Severity,
    style: Style,
    state: Mutex<State>,
}

struct State {
    sink: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    /// By event. The words are written in code, so the map is bounded.
    events: BTreeMap<&'static str, Recent>,
}

struct Recent {
    window_began: SystemTime,
    lines: u32,
    suppressed: u64,
}

impl ErrorLog {
    /// A log to standard error of all that matters at least as much as `least`.
    #[must_use]
    pub fn to_stderr(least: Severity, style: Style) -> Arc<Self> {
        Self::to(Box::new(io::stderr()), least, style)
    }

    /// A log to any writer.
    #[must_use]
    pub fn to(sink: Box<dyn Write + Send>, least: Severity, style: Style) -> Arc<Self> {
        let state = State {
            sink,
            buffer: Vec::new(),
            events: BTreeMap::new(),
        };
        Arc::new(Self {
            least,
            style,
            state: Mutex::new(state),
        })
    }

    /// Writes a line, unless this event had [`LINES_A_WINDOW`] of them lately. `facts` are escaped.
    pub fn log(
        &self,
        now: SystemTime,
        severity: Severity,
        event: &'static str,
        message: &str,
        facts: &[(&'static str, &dyn Display)],
    ) {
        if severity > self.least {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            sink,
            buffer,
            events,
        } = &mut *state;
        let Some(suppressed) = admit(events, event, now) else {
            return;
        };
        buffer.clear();
        let mut line = Line::begin(buffer, self.style);
        line.time("time", now);
        line.word("level", severity.label());
        line.word("event", event);
        line.text("message", message.as_bytes());
        for (key, fact) in facts {
            line.text(key, fact.to_string().as_bytes());
        }
        if suppressed > 0 {
            line.number("suppressed", suppressed);
        }
        line.end();
        // Nobody is left to tell when standard error itself fails.
        sink.write_all(buffer).and_then(|()| sink.flush()).ok();
    }
}

impl Severity {
    /// The word in logs and settings.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Whether the event may be written now; if so, how many such lines were left out since the last.
fn admit(
    events: &mut BTreeMap<&'static str, Recent>,
    key: &'static str,
    now: SystemTime,
) -> Option<u64> {
    let recent = events.entry(key).or_insert(Recent {
        window_began: now,
        lines: 0,
        suppressed: 0,
    });
    // A clock that was set back begins a new window too.
    if now
        .duration_since(recent.window_began)
        .map_or(true, |age| age >= WINDOW)
    {
        recent.window_began = now;
        recent.lines = 0;
    }
    if recent.lines >= LINES_A_WINDOW {
        recent.suppressed += 1;
        return None;
    }
    recent.lines += 1;
    Some(std::mem::take(&mut recent.suppressed))
}

/// Most lines of one event in a window; the next line after it tells how many were left out.
pub const LINES_A_WINDOW: u32 = 10;

/// How long such a window is: at most one line a second and event, in the long run.
const WINDOW: Duration = Duration::from_secs(10);

impl std::fmt::Debug for ErrorLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErrorLog")
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_line_reads_back_with_its_facts() {
        let out = Shared::default();
        let log = ErrorLog::to(Box::new(out.clone()), Severity::Info, Style::Json);
        log.log(
            UNIX_EPOCH,
            Severity::Warn,
            "accept",
            "cannot\naccept",
            &[("error", &"a \"b\"")],
        );
        let value: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(value["message"], "cannot\naccept");
        assert_eq!(
            (&value["error"], &value["level"]),
            (&"a \"b\"".into(), &"warn".into())
        );
    }

    #[test]
    fn what_matters_less_than_was_asked_for_is_not_written() {
        let out = Shared::default();
        let log = ErrorLog::to(Box::new(out.clone()), Severity::Warn, Style::Logfmt);
        log.log(UNIX_EPOCH, Severity::Info, "start", "listening", &[]);
        assert_eq!(out.text(), "");
    }

    #[test]
    fn an_event_that_repeats_itself_is_cut_off_and_another_is_not() {
        let out = Shared::default();
        let log = ErrorLog::to(Box::new(out.clone()), Severity::Info, Style::Logfmt);
        for _ in 0..=LINES_A_WINDOW {
            log.log(UNIX_EPOCH, Severity::Error, "accept", "emfile", &[]);
        }
        log.log(UNIX_EPOCH, Severity::Error, "dns", "no answer", &[]);
        let lines = |event: &str| out.text().matches(&format!("event={event} ")).count();
        assert_eq!(
            (lines("accept"), lines("dns")),
            (LINES_A_WINDOW as usize, 1)
        );
    }

    #[test]
    fn the_first_line_after_a_pause_tells_how_many_were_left_out() {
        let out = Shared::default();
        let log = ErrorLog::to(Box::new(out.clone()), Severity::Info, Style::Logfmt);
        for _ in 0..LINES_A_WINDOW + 5 {
            log.log(UNIX_EPOCH, Severity::Error, "accept", "emfile", &[]);
        }
        log.log(
            UNIX_EPOCH + WINDOW,
            Severity::Error,
            "accept",
            "emfile",
            &[],
        );
        assert!(out.text().ends_with("suppressed=5\n"));
    }
}
