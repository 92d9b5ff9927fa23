//! The threads that accept: each has a socket of its own for every address, where the system can.

use std::fmt::Display;
use std::sync::Arc;
use std::thread;

use futures::channel::mpsc::UnboundedSender;

use crate::net::worker;
use crate::proxy::accept;
use crate::proxy::accept::Post;
use crate::proxy::service::Service;
use crate::proxy::tend;

/// What a worker tells the control plane.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// It accepts.
    Began,
    /// Its thread has ended, which it does not do while the process lives.
    Ended {
        /// Which worker.
        index: usize,
        /// Why, as far as it is known.
        why: String,
    },
}

/// Why an address cannot be had, in a clause that begins with it.
#[must_use]
pub fn refused(address: &dyn Display, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("{address} is in use ({error})"),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{address} is no address of this machine ({error})")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{address} needs a right that this process has not ({error})")
        }
        _ => format!("{address}: {error}"),
    }
}

/// Starts a thread for each post.
///
/// # Errors
/// When the system has no thread left; those that began stay, and the caller ends the process.
pub fn start(
    posts: Vec<Vec<Post>>,
    service: &Arc<Service>,
    tell: &UnboundedSender<Told>,
) -> Result<(), String> {
    for (index, posts) in posts.into_iter().enumerate() {
        let (service, tell) = (Arc::clone(service), tell.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || work(index, posts, service, tell))
            .map_err(|error| format!("worker {index} cannot start: {error}"))?;
    }
    Ok(())
}

/// One worker's life.
fn work(index: usize, posts: Vec<Post>, service: Arc<Service>, tell: UnboundedSender<Told>) {
    let mut obituary = Obituary {
        index,
        why: "it panicked".to_owned(),
        tell: tell.clone(),
    };
    let begin = move || {
        accept::begin_worker(index, &service);
        for post in posts {
            worker::spawn(accept::accept(post, Arc::clone(&service)));
        }
        if index == 0 {
            if service.keeps_warm() {
                warm(Arc::clone(&service));
            }
            worker::spawn(tend::expire_the_idle(move || service.endpoints()));
        }
        // The control plane is gone only when the process ends.
        tell.unbounded_send(Told::Began).ok();
    };
    obituary.why = match worker::run(index, begin) {
        Ok(()) => "it was stopped".to_owned(),
        Err(error) => error.to_string(),
    };
}

/// Has the workers accept on more sockets.
pub fn add(posts: Vec<Vec<Post>>, service: &Arc<Service>) {
    for (index, posts) in posts.into_iter().enumerate() {
        let workers = worker::all();
        let Some(worker) = workers.iter().find(|worker| worker.index() == index) else {
            continue;
        };
        let service = Arc::clone(service);
        worker.post(move || {
            for post in posts {
                worker::spawn(accept::accept(post, Arc::clone(&service)));
            }
        });
    }
}

/// Has a worker keep idle connections ready, where nobody did yet.
pub fn begin_to_warm(service: &Arc<Service>) {
    if let Some(worker) = worker::all().into_iter().next() {
        let service = Arc::clone(service);
        worker.post(move || warm(service));
    }
}

fn warm(service: Arc<Service>) {
    worker::spawn(tend::keep_warm(move || service.endpoints_kept_warm()));
}

/// Tells that a worker has ended, however it did.
struct Obituary {
    index: usize,
    why: String,
    tell: UnboundedSender<Told>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let told = Told::Ended {
            index: self.index,
            why: std::mem::take(&mut self.why),
        };
        self.tell.unbounded_send(told).ok(); // as above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_told_of() {
        let (tell, mut told) = futures::channel::mpsc::unbounded();
        let obituary = Obituary {
            index: 3,
            why: "it panicked".to_owned(),
            tell,
        };
        drop(obituary);
        let wanted = Told::Ended {
            index: 3,
            why: "it panicked".to_owned(),
        };
        assert_eq!(told.try_recv(), Ok(wanted));
    }
}
