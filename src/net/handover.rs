//! The process that comes after this one: started beside it, with its listening sockets.
//!
//! The sockets themselves are passed on and never bound again, so their queues stay and nobody is
//! refused. The successor says on a pipe when it accepts; if it ends before that, or takes too
//! long, it is none, and this process goes on as if nothing had been. What it is told is in
//! `inherit`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

use crate::net::control;
use crate::net::inherit;

/// How this process was started, noted while that can still be told: a new binary may have taken
/// the old one's place by the time it is wanted.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A process that is to come after this one.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    ready: File,
}

impl Program {
    /// This process's.
    ///
    /// # Errors
    /// The system's.
    pub fn own() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let named = arguments.next().map(PathBuf::from).unwrap_or_default();
        // As it was named, so that a link which leads elsewhere later is followed anew. A name alone
        // was looked for in PATH, and what was found is what the system says.
        let path = match named.components().count() {
            0 | 1 => std::env::current_exe()?,
            _ => std::path::absolute(named)?,
        };
        Ok(Self {
            path,
            arguments: arguments.collect(),
        })
    }

    /// Starts it again, as whatever is at its path now. `sockets` are inheritable descriptors with
    /// their names; here they are closed again.
    ///
    /// # Errors
    /// The system's: it cannot be executed.
    pub fn start(&self, sockets: Vec<(OwnedFd, String)>) -> io::Result<Successor> {
        let (ready, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&tell, FdFlags::empty())?;
        let named: Vec<_> = sockets
            .iter()
            .map(|(fd, name)| (fd.as_raw_fd(), name.clone()))
            .collect();
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env(
                inherit::HANDOVER,
                inherit::handover(tell.as_raw_fd(), &named),
            )
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .spawn()?;
        drop((tell, sockets));
        Ok(Successor {
            child,
            ready: File::from(ready),
        })
    }
}

impl Successor {
    /// Waits until it accepts; its process number. Cancel: it is left to itself.
    ///
    /// # Errors
    /// A clause: it ended first, or did not say so in time and was ended.
    pub async fn accepts(self, patience: Duration) -> Result<u32, String> {
        let Self {
            mut child,
            mut ready,
        } = self;
        let word = control::blocking(move || {
            let mut word = [0; READY.len()];
            ready.read_exact(&mut word).map(|()| word)
        });
        match control::within(patience, word).await {
            Some(Ok(word)) if word == *READY => Ok(child.id()),
            Some(_) => Err(control::blocking(move || ended(&mut child)).await),
            None => {
                // By its own number, which is not used again before it is waited for.
                child.kill().ok();
                control::blocking(move || child.wait()).await.ok();
                Err(format!("it did not accept within {} s", patience.as_secs()))
            }
        }
    }
}

fn ended(child: &mut Child) -> String {
    match child.wait() {
        Ok(status) => format!("it ended before it accepted ({status})"),
        Err(error) => error.to_string(),
    }
}

/// Tells the process before us that we accept.
///
/// # Errors
/// It is gone.
pub fn tell_ready(pipe: OwnedFd) -> io::Result<()> {
    File::from(pipe).write_all(READY)
}

/// What is said on the pipe.
const READY: &[u8; 6] = b"ready\n";
