//! The thread that writes log lines out, and the bounded queue that leads to it.
//!
//! Handing over never waits: if the queue is full, because a disk or the reader of a pipe does not
//! keep pace, the batch is given up and its lines are counted. Buffers go round, so the steady state
//! allocates nothing.

use std::fs::File;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use crate::observe::counter::Counter;

/// Some whole lines.
#[derive(Debug, Default)]
pub struct Batch {
    /// The lines, each with its line break.
    pub octets: Vec<u8>,
    /// How many.
    pub lines: u64,
}

/// The near end of the queue.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    dropped: Counter,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    work: Vec<Work>,
    queued_bytes: usize,
    spare: Vec<Vec<u8>>,
    phase: QueuePhase,
}

#[derive(Debug)]
enum Work {
    Write(Batch),
    SwitchTo(File),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum QueuePhase {
    #[default]
    Open,
    Closed,
    Finished,
}

impl LogWriter {
    /// Starts the thread. Lines that are given up are counted in `dropped`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(file: File, dropped: Counter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            finished: Condvar::new(),
        });
        let far = Arc::clone(&shared);
        let name = "access-log".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn(move || far.write_all(file, dropped))?;
        Ok(Self { shared, dropped })
    }

    /// Hands over what is in `batch` and leaves an empty one in its place. Never waits.
    pub fn hand_over(&self, batch: &mut Batch) {
        if batch.lines == 0 {
            return;
        }
        let mut queue = self.shared.lock();
        let fits = queue.queued_bytes + batch.octets.len() <= QUEUED_BYTES_MAX;
        if queue.phase != QueuePhase::Open || !fits {
            self.dropped.add(batch.lines);
            batch.octets.clear();
            batch.lines = 0;
            return;
        }
        let fresh = Batch {
            octets: queue
                .spare
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(BUFFER_OCTETS)),
            lines: 0,
        };
        let batch = std::mem::replace(batch, fresh);
        queue.queued_bytes += batch.octets.len();
        queue.work.push(Work::Write(batch));
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Everything handed over from now on goes to `file`.
    pub fn switch_to(&self, file: File) {
        self.shared.lock().work.push(Work::SwitchTo(file));
        self.shared.work.notify_one();
    }

    /// Takes no more, and waits until all is written, at most for `bound`.
    pub fn close(&self, bound: Duration) -> Closed {
        let mut queue = self.shared.lock();
        if queue.phase == QueuePhase::Open {
            queue.phase = QueuePhase::Closed;
        }
        self.shared.work.notify_one();
        let busy = |queue: &mut Queue| queue.phase != QueuePhase::Finished;
        let waited = self.shared.finished.wait_timeout_while(queue, bound, busy);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match queue.phase {
            QueuePhase::Finished => Closed::Written,
            QueuePhase::Open | QueuePhase::Closed => Closed::GivenUp,
        }
    }
}

/// What closing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Every line handed over was written.
    Written,
    /// The destination does not take it; the lines left are lost.
    GivenUp,
}

impl Drop for LogWriter {
    /// The thread ends when it has written what is queued; nobody waits for it.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if queue.phase == QueuePhase::Open {
            queue.phase = QueuePhase::Closed;
        }
        drop(queue);
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's whole life. Writing happens without the lock.
    fn write_all(&self, file: File, dropped: Counter) {
        let mut sink = Sink { file, torn: false };
        let mut work: Vec<Work> = Vec::new();
        let mut written: Vec<Batch> = Vec::new();
        loop {
            let mut queue = self.lock();
            written
                .drain(..)
                .for_each(|batch| recycle(&mut queue, batch));
            let nothing = |q: &mut Queue| q.work.is_empty() && q.phase == QueuePhase::Open;
            queue = self
                .work
                .wait_while(queue, nothing)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut queue.work, &mut work);
            if work.is_empty() {
                queue.phase = QueuePhase::Finished;
                drop(queue);
                self.finished.notify_all();
                return;
            }
            drop(queue);
            for item in work.drain(..) {
                match item {
                    Work::Write(batch) => {
                        sink.write(&batch, dropped);
                        written.push(batch);
                    }
                    Work::SwitchTo(file) => sink = Sink { file, torn: false },
                }
            }
        }
    }
}

/// The destination, and whether its last line was left without an end.
struct Sink {
    file: File,
    torn: bool,
}

impl Sink {
    /// A full disk or a reader that left costs the lines that did not get out whole; the next batch
    /// is tried again, on a line of its own.
    fn write(&mut self, batch: &Batch, dropped: Counter) {
        if self.torn && self.file.write_all(b"\n").is_err() {
            dropped.add(batch.lines);
            return;
        }
        let left = write_out(&mut self.file, &batch.octets);
        let out = &batch.octets[..batch.octets.len() - left.len()];
        self.torn = out.last().is_some_and(|octet| *octet != b'\n');
        dropped.add(memchr::memchr_iter(b'\n', left).count() as u64);
    }
}

/// Writes what can be written and returns what cannot.
fn write_out<'a>(file: &mut impl Write, mut octets: &'a [u8]) -> &'a [u8] {
    while !octets.is_empty() {
        match file.write(octets) {
            Ok(0) => break,
            Ok(wrote) => octets = &octets[wrote..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    octets
}

fn recycle(queue: &mut Queue, mut batch: Batch) {
    queue.queued_bytes = queue.queued_bytes.saturating_sub(batch.octets.len());
    batch.octets.clear();
    if queue.spare.len() < SPARE_BUFFERS_MAX {
        queue.spare.push(batch.octets);
    }
}

/// Most octets between the workers and the file, those being written included. 8 MiB are some
/// 20,000 lines: a disk may stall for a tenth of a second at full load. Beyond: lines are dropped.
const QUEUED_BYTES_MAX: usize = 8 << 20;

/// Octets of a new buffer: a whole batch of the access log and the line that completed it, so that it
/// need not grow.
const BUFFER_OCTETS: usize = 36 << 10;

/// Buffers kept for the workers: two a worker on a large machine, at most 2 MiB.
const SPARE_BUFFERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cells::Cells;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn dropped() -> Counter {
        Counter::new(Cells::new(1).run(1))
    }

    fn batch(octets: &[u8]) -> Batch {
        Batch {
            octets: octets.to_vec(),
            lines: 1,
        }
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (
            File::from(OwnedFd::from(reader)),
            File::from(OwnedFd::from(writer)),
        )
    }

    #[test]
    fn what_was_handed_over_is_written_before_closing_returns() {
        let (mut reader, writer) = pipe();
        let log = LogWriter::start(writer, dropped()).unwrap();
        log.hand_over(&mut batch(b"one\n"));
        log.hand_over(&mut batch(b"two\n"));
        assert_eq!(log.close(Duration::from_secs(5)), Closed::Written);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_waiting() {
        let (_reader, writer) = pipe();
        let dropped = dropped();
        let log = LogWriter::start(writer, dropped).unwrap();
        for _ in 0..20 {
            log.hand_over(&mut batch(&[b'x'; 1 << 20]));
        }
        assert!(dropped.value() >= 11, "{}", dropped.value());
        assert_eq!(log.close(Duration::from_millis(20)), Closed::GivenUp);
    }

    #[test]
    fn lines_after_closing_are_counted_as_dropped() {
        let (_reader, writer) = pipe();
        let dropped = dropped();
        let log = LogWriter::start(writer, dropped).unwrap();
        log.close(Duration::from_secs(5));
        log.hand_over(&mut batch(b"late\n"));
        assert_eq!(dropped.value(), 1);
    }

    #[test]
    fn a_destination_that_is_gone_costs_lines_and_the_thread_lives() {
        let (reader, writer) = pipe();
        drop(reader);
        let dropped = dropped();
        let log = LogWriter::start(writer, dropped).unwrap();
        log.hand_over(&mut batch(b"lost\n"));
        let (mut reader, writer) = pipe();
        log.switch_to(writer);
        assert_eq!(log.close(Duration::from_secs(5)), Closed::Written);
        assert_eq!((dropped.value(), reader.read(&mut [0; 8]).unwrap()), (1, 0));
    }

    #[test]
    fn what_did_not_get_out_is_handed_back_from_its_first_octet() {
        let mut short = [0; 6];
        let left = write_out(&mut short.as_mut_slice(), b"one\ntwo\n");
        assert_eq!(left, b"o\n");
        assert_eq!(write_out(&mut io::sink(), b"one\n"), b"");
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (mut reader, writer) = pipe();
        let dropped = dropped();
        let mut sink = Sink {
            file: writer,
            torn: true,
        };
        sink.write(&batch(b"whole\n"), dropped);
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), dropped.value()), ("\nwhole\n", 0));
    }
}
