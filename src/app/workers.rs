//! Sockets and the threads that accept on them.
//!
//! Everything is bound before anything starts, so that a process which cannot have all of its
//! addresses takes none. Then each worker is a thread with a socket of its own for every address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use futures::channel::mpsc::UnboundedSender;

use crate::app::assemble::Placed;
use crate::base::names::Name;
use crate::net::listen;
use crate::net::listen::Bound;
use crate::net::worker;
use crate::proxy::accept;
use crate::proxy::service::Listener;
use crate::proxy::service::Service;
use crate::proxy::tend;

/// The sockets of one worker, each with its listener.
pub type Post = Vec<(Bound, Arc<Listener>)>;

/// What was bound.
pub struct Sockets {
    /// Of each worker.
    pub posts: Vec<Post>,
    /// Where each listener listens, ports chosen by the system included.
    pub addresses: Vec<(Name, SocketAddr)>,
}

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

/// Binds every address of every listener, once for each worker.
///
/// # Errors
/// A clause with the listener and the address that cannot be had. What was bound is closed again.
pub fn bind(placed: &[Placed], workers: usize) -> Result<Sockets, String> {
    let mut posts: Vec<Post> = std::iter::repeat_with(Vec::new).take(workers).collect();
    let mut addresses = Vec::new();
    for Placed {
        listener,
        bind,
        backlog,
        tcp,
    } in placed
    {
        let name = &listener.settings.name;
        for address in bind {
            let sockets = listen::bind(*address, workers, *backlog, tcp)
                .map_err(|error| format!("listener {name}: {}", refused(*address, &error)))?;
            if let Some(first) = sockets.first() {
                addresses.push((name.clone(), first.address));
            }
            for (post, socket) in posts.iter_mut().zip(sockets) {
                post.push((socket, Arc::clone(listener)));
            }
        }
    }
    Ok(Sockets { posts, addresses })
}

/// Why an address cannot be had, in a clause that begins with it.
#[must_use]
pub fn refused(address: SocketAddr, error: &std::io::Error) -> String {
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
    posts: Vec<Post>,
    service: &Arc<Service>,
    tell: &UnboundedSender<Told>,
) -> Result<(), String> {
    for (index, post) in posts.into_iter().enumerate() {
        let (service, tell) = (Arc::clone(service), tell.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || work(index, post, service, tell))
            .map_err(|error| format!("worker {index} cannot start: {error}"))?;
    }
    Ok(())
}

/// One worker's life.
fn work(index: usize, post: Post, service: Arc<Service>, tell: UnboundedSender<Told>) {
    let mut obituary = Obituary {
        index,
        why: "it panicked".to_owned(),
        tell: tell.clone(),
    };
    let begin = move || {
        accept::begin_worker(index, &service);
        for (bound, listener) in post {
            worker::spawn(accept::accept(bound, listener, Arc::clone(&service)));
        }
        if index == 0 {
            if service.keeps_warm() {
                let service = Arc::clone(&service);
                worker::spawn(tend::keep_warm(move || service.endpoints_kept_warm()));
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
    use crate::app::assemble::tests::assembled;
    use std::net::TcpListener;

    #[test]
    fn each_worker_has_a_socket_for_every_address() {
        let said = [("LISTENERS__WEB__BIND", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]")];
        let sockets = bind(&assembled(&said).unwrap().listeners, 3).unwrap();
        assert_eq!(
            sockets.posts.iter().map(Vec::len).collect::<Vec<_>>(),
            [2, 2, 2]
        );
        assert_eq!(sockets.addresses.len(), 2);
        assert!(
            sockets
                .addresses
                .iter()
                .all(|(name, at)| name.as_str() == "web" && at.port() > 0)
        );
    }

    #[test]
    fn an_address_in_use_is_told_with_its_listener() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let listeners = assembled(&[("LISTENERS__WEB__BIND", &address)])
            .unwrap()
            .listeners;
        let error = bind(&listeners, 2).err().unwrap();
        let wanted = format!("listener web: {address} is in use (Address already in use");
        assert!(error.starts_with(&wanted), "{error}");
    }

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
