//! The access log: one line an exchange, written off the path of the request.
//!
//! A worker formats into a buffer of its own and hands it over when it is full or at its tick. The
//! buffers stand in a table by worker rather than in thread-locals, so that closing reaches them
//! all; their locks are never contended. Absent on purpose: sampling and rotation (a rename and
//! `reopen` do that).

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::observe::access_format::Format;
use crate::observe::access_format::write_line;
use crate::observe::counter::Counter;
use crate::observe::log_writer::Batch;
use crate::observe::log_writer::Closed;
use crate::observe::log_writer::LogWriter;
use crate::observe::record::End;
use crate::observe::record::ExchangeRecord;
use crate::observe::shard;

/// Which exchanges are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All.
    All,
    /// Those that failed, and those answered with 5xx.
    Errors,
    /// None.
    Off,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// What the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// Which exchanges.
    pub access: Access,
    /// In what form.
    pub format: Format,
    /// Where to.
    pub destination: Destination,
}

/// The log itself, shared by all workers.
#[derive(Debug)]
pub struct AccessLog {
    settings: AccessSettings,
    lanes: Box<[Mutex<Batch>]>,
    writer: LogWriter,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the system has no thread left.
    pub fn open(
        settings: AccessSettings,
        workers: usize,
        dropped: Counter,
    ) -> io::Result<Arc<Self>> {
        let writer = LogWriter::start(open(&settings.destination)?, dropped)?;
        let lanes = std::iter::repeat_with(Mutex::default)
            .take(workers.max(1))
            .collect();
        Ok(Arc::new(Self {
            settings,
            lanes,
            writer,
        }))
    }

    /// Whether nothing is logged, so that nothing need be noted.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.settings.access == Access::Off
    }

    /// Logs an exchange, if its kind is logged.
    pub fn record(&self, record: &ExchangeRecord) {
        if !self.wants(record) {
            return;
        }
        let mut batch = self.lane(shard::current() % self.lanes.len());
        write_line(&mut batch.octets, record, self.settings.format);
        batch.lines += 1;
        if batch.octets.len() >= BATCH_BYTES {
            self.writer.hand_over(&mut batch);
        }
    }

    /// Hands over what the calling worker has; for its tick, so that lines do not grow old.
    pub fn flush(&self) {
        self.writer
            .hand_over(&mut self.lane(shard::current() % self.lanes.len()));
    }

    /// Opens the destination anew, after the file was renamed. Lines logged before go to the old
    /// file. On an error the old one stays in use.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.settings.destination)?;
        self.flush_all();
        self.writer.switch_to(file);
        Ok(())
    }

    /// Writes everything out, at most for `bound`. Lines that come later are counted as dropped.
    pub fn close(&self, bound: Duration) -> Closed {
        self.flush_all();
        self.writer.close(bound)
    }

    fn wants(&self, record: &ExchangeRecord) -> bool {
        match self.settings.access {
            Access::All => true,
            Access::Errors => {
                matches!(record.end, End::Failed(_)) || record.status.is_none_or(|code| code >= 500)
            }
            Access::Off => false,
        }
    }

    fn flush_all(&self) {
        (0..self.lanes.len()).for_each(|lane| self.writer.hand_over(&mut self.lane(lane)));
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, Batch> {
        self.lanes[lane]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Standard output and error are duplicated, so that writing is one plain write(2) for all three.
fn open(destination: &Destination) -> io::Result<File> {
    match destination {
        Destination::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Destination::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        Destination::File(path) => OpenOptions::new().append(true).create(true).open(path),
    }
}

/// A batch is handed over when it has grown to this: some eighty lines, and one write(2).
const BATCH_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ProxyError;
    use crate::observe::cells::Cells;
    use std::fs;

    /// A directory of this test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("holdfast-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn log(scratch: &Scratch, access: Access) -> (Arc<AccessLog>, PathBuf) {
        let path = scratch.0.join("access.log");
        let destination = Destination::File(path.clone());
        let settings = AccessSettings {
            access,
            format: Format::Json,
            destination,
        };
        let dropped = Counter::new(Cells::new(1).run(1));
        (AccessLog::open(settings, 2, dropped).unwrap(), path)
    }

    fn lines(path: &PathBuf) -> usize {
        fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn every_line_of_every_worker_is_in_the_file_after_closing() {
        let scratch = Scratch::new("all");
        let (log, path) = log(&scratch, Access::All);
        let threads: Vec<_> = (0..2)
            .map(|worker| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    shard::set(worker);
                    (0..500).for_each(|_| log.record(&ExchangeRecord::default()));
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(log.close(Duration::from_secs(5)), Closed::Written);
        assert_eq!(lines(&path), 1000);
    }

    #[test]
    fn a_log_of_errors_leaves_out_what_went_well() {
        let scratch = Scratch::new("errors");
        let (log, path) = log(&scratch, Access::Errors);
        let mut record = ExchangeRecord {
            status: Some(404),
            ..ExchangeRecord::default()
        };
        log.record(&record);
        record.status = Some(503);
        log.record(&record);
        record.status = Some(200);
        record.end = End::Failed(ProxyError::Truncated);
        log.record(&record);
        log.close(Duration::from_secs(5));
        assert_eq!(lines(&path), 2);
    }

    #[test]
    fn a_log_that_is_off_writes_nothing() {
        let scratch = Scratch::new("off");
        let (log, path) = log(&scratch, Access::Off);
        log.record(&ExchangeRecord::default());
        log.close(Duration::from_secs(5));
        assert_eq!(lines(&path), 0);
    }

    #[test]
    fn after_reopening_lines_go_to_the_new_file_and_none_is_lost() {
        let scratch = Scratch::new("reopen");
        let (log, path) = log(&scratch, Access::All);
        let renamed = scratch.0.join("access.log.1");
        log.record(&ExchangeRecord::default());
        fs::rename(&path, &renamed).unwrap();
        log.reopen().unwrap();
        log.record(&ExchangeRecord::default());
        log.record(&ExchangeRecord::default());
        log.close(Duration::from_secs(5));
        assert_eq!((lines(&renamed), lines(&path)), (1, 2));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_start() {
        let destination = Destination::File(PathBuf::from("/nonexistent/access.log"));
        let settings = AccessSettings {
            access: Access::All,
            format: Format::Json,
            destination,
        };
        assert!(AccessLog::open(settings, 1, Counter::new(Cells::new(1).run(1))).is_err());
    }
}
