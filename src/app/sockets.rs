//! The listening sockets of the process: which there are, and how they follow the configuration.
//!
//! Everything new is bound before anything old is given up, so that a configuration which cannot
//! have all of its addresses changes none. The control plane keeps a descriptor of each socket, to
//! change its options and to hand it on; it lets go of them before the workers close theirs, or
//! the kernel would go on queueing connections that nobody accepts.
//!
//! A service manager is offered the sockets of addresses, so that they outlive a restart. Not those
//! at a path: the path goes with whoever served it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::app::assemble::Placed;
use crate::app::workers::refused;
use crate::base::names::Name;
use crate::config::settings::values::Bind;
use crate::net::inherit;
use crate::net::inherit::Inherited;
use crate::net::listen;
use crate::net::listen::Beside;
use crate::net::listen::Bound;
use crate::net::listen::Local;
use crate::net::notify;
use crate::proxy::accept::Post;
use crate::proxy::accept::Shut;
use crate::proxy::rouse;

/// The sockets in use.
pub struct Sockets {
    held: Vec<Held>,
    workers: usize,
    inherited: Inherited,
    kept: Kept,
}

/// What a service manager was told of our sockets.
#[derive(Default)]
struct Kept {
    /// It keeps these.
    names: BTreeSet<String>,
    /// It is to forget these.
    gone: BTreeSet<String>,
}

/// The sockets of one address of one listener.
struct Held {
    listener: Name,
    bind: Bind,
    bound: Vec<Bound>,
    shut: Arc<Shut>,
}

/// What a configuration needs that is not there: bound, and not yet accepted from.
pub struct Fresh(Vec<Held>);

impl Sockets {
    /// None yet. What was inherited is used where its name is bound.
    #[must_use]
    pub fn new(workers: usize, inherited: Inherited) -> Self {
        Self {
            held: Vec::new(),
            workers,
            inherited,
            kept: Kept::default(),
        }
    }

    /// Binds what these listeners need and is not there.
    ///
    /// # Errors
    /// A clause with the listener and the address that cannot be had. What was bound is closed
    /// again.
    pub fn bind(&mut self, placed: &[Placed]) -> Result<Fresh, String> {
        let mut fresh = Vec::new();
        let kept = self.kept(placed);
        for (at, placed) in placed.iter().enumerate() {
            for (nth, bind) in placed.bind.iter().enumerate() {
                if kept.contains(&Some((at, nth))) {
                    continue;
                }
                let bound = self.bound(bind, placed).map_err(|error| {
                    format!("listener {}: {}", placed.name, refused(bind, &error))
                })?;
                fresh.push(Held {
                    listener: placed.name.clone(),
                    bind: bind.clone(),
                    bound,
                    shut: Arc::default(),
                });
            }
        }
        Ok(Fresh(fresh))
    }

    /// Puts the listeners in service: fresh sockets are given to the workers, in the posts that are
    /// returned; those that stay get their options; those that nobody wants any more are shut.
    pub fn take(&mut self, fresh: Fresh, placed: &[Placed]) -> Vec<Vec<Post>> {
        let mut posts: Vec<Vec<Post>> = Vec::new();
        posts.resize_with(self.workers, Vec::new);
        let kept = self.kept(placed);
        let former = std::mem::take(&mut self.held);
        for (mut held, kept) in former.into_iter().zip(kept) {
            let Some(placed) = kept.and_then(|(at, _)| placed.get(at)) else {
                self.kept.gone.extend(held.name_to_keep());
                held.give_up();
                continue;
            };
            for bound in &held.bound {
                // It listens as it did; there is nothing to go back to.
                bound.set(placed.backlog, &placed.tcp).ok();
            }
            if held.listener != placed.name {
                held.shut.shut();
                held.shut = Arc::default();
                held.listener = placed.name.clone();
                held.post(placed, &mut posts);
            }
            self.held.push(held);
        }
        for held in fresh.0 {
            if let Some(placed) = placed.iter().find(|placed| placed.name == held.listener) {
                held.post(placed, &mut posts);
                self.held.push(held);
            }
        }
        rouse::everyone();
        posts
    }

    /// Where each listener listens, ports chosen by the system included.
    pub fn addresses<'s>(&'s self) -> impl Iterator<Item = (&'s Name, &'s Local)> {
        let first = |held: &'s Held| Some((&held.listener, &held.bound.first()?.local));
        self.held.iter().filter_map(first)
    }

    /// Lets go of every socket: what the workers still have of them is the last of it.
    pub fn close(&mut self) {
        self.held.drain(..).for_each(Held::give_up);
    }

    /// Tells the service manager what to keep for the next process, and what not any more.
    pub fn tell_keeper(&mut self) {
        for gone in std::mem::take(&mut self.kept.gone) {
            notify::forget(&gone);
            self.kept.names.remove(&gone);
        }
        let mut fresh: BTreeMap<String, Vec<BorrowedFd<'_>>> = BTreeMap::new();
        for held in &self.held {
            if let Some(name) = held.name_to_keep()
                && !self.kept.names.contains(&name)
            {
                let sockets = held.bound.iter().map(AsFd::as_fd);
                fresh.entry(name).or_default().extend(sockets);
            }
        }
        for (name, sockets) in fresh {
            notify::keep(&name, &sockets);
            self.kept.names.insert(name);
        }
    }

    /// Inheritable descriptors of every socket, with the names under which the next process looks
    /// for them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn for_successor(&self) -> io::Result<Vec<(OwnedFd, String)>> {
        let each = self.held.iter().flat_map(|held| {
            let name = held.bind.to_string();
            held.bound.iter().map(move |bound| (bound, name.clone()))
        });
        each.map(|(bound, name)| Ok((bound.inheritable()?, name)))
            .collect()
    }

    /// Lets go of every socket, which another process has too: its path stays.
    pub fn leave(&mut self) {
        for held in self.held.drain(..) {
            drop(held.bound);
            held.shut.shut();
        }
    }

    /// What was inherited under this name for something else than a listener.
    pub fn take_inherited(&mut self, name: &str) -> Option<Bound> {
        self.inherited.take(name).pop()
    }

    /// The pipe on which the process before us waits, if there is one. What it gave us and nobody
    /// wants is closed; a service manager's sockets may be wanted after a reload.
    pub fn take_ready(&mut self) -> Option<OwnedFd> {
        let unused = self.inherited.keep_only("fd:");
        let names = unused.iter().filter_map(|name| inherit::name_to_keep(name));
        self.kept.gone.extend(names);
        self.inherited.take_ready()
    }

    /// Which of what is held serves which address of which listener.
    fn kept(&self, placed: &[Placed]) -> Vec<Option<(usize, usize)>> {
        let mut kept = vec![None; self.held.len()];
        for of in [Whose::Same, Whose::Another] {
            for (at, placed) in placed.iter().enumerate() {
                for (nth, bind) in placed.bind.iter().enumerate() {
                    if kept.contains(&Some((at, nth))) {
                        continue;
                    }
                    let mut each = self.held.iter().zip(&mut kept);
                    let fits = |held: &Held| held.bind == *bind && held.is_of(&placed.name, of);
                    let found = each.find(|(held, kept)| kept.is_none() && fits(held));
                    if let Some((_, kept)) = found {
                        *kept = Some((at, nth));
                    }
                }
            }
        }
        kept
    }

    fn bound(&mut self, bind: &Bind, placed: &Placed) -> io::Result<Vec<Bound>> {
        let inherited = self.inherited.take(&bind.to_string());
        if !inherited.is_empty() {
            for bound in &inherited {
                bound.set(placed.backlog, &placed.tcp)?;
            }
            return for_each_worker(inherited, self.workers);
        }
        match bind {
            Bind::Tcp(address) => {
                let options = (placed.backlog, &placed.tcp);
                listen::bind(*address, self.workers, options, self.beside(*address))
            }
            Bind::Unix(path) => listen::bind_unix(path, self.workers, placed.backlog),
            Bind::Fd(_) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the service manager handed over no socket of this name (LISTEN_FDNAMES)",
            )),
        }
    }

    /// Whether a socket of ours has this port, at whatever address.
    fn beside(&self, address: SocketAddr) -> Beside {
        let mut held = self.held.iter().flat_map(|held| &held.bound);
        let ours = |bound: &Bound| matches!(&bound.local, Local::Ip(local) if local.port() == address.port() && *local != address);
        match held.any(ours) {
            true => Beside::Ours,
            false => Beside::Nobody,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Same,
    Another,
}

impl Held {
    /// Under which name a service manager keeps its sockets; it has those of `fd:NAME` anyway.
    fn name_to_keep(&self) -> Option<String> {
        match self.bind {
            Bind::Tcp(_) => inherit::name_to_keep(&self.bind.to_string()),
            Bind::Unix(_) | Bind::Fd(_) => None,
        }
    }

    /// A port that the system chose is nobody else's.
    fn is_of(&self, name: &Name, whose: Whose) -> bool {
        let chosen = matches!(self.bind, Bind::Tcp(address) if address.port() == 0);
        match whose {
            Whose::Same => self.listener == *name,
            Whose::Another => !chosen,
        }
    }

    fn post(&self, placed: &Placed, posts: &mut [Vec<Post>]) {
        let workers = posts.len().max(1);
        for (at, bound) in self.bound.iter().enumerate() {
            // A worker without a descriptor of its own is missed only until the next start.
            if let (Ok(bound), Some(posts)) = (bound.try_clone(), posts.get_mut(at % workers)) {
                posts.push(Post {
                    bound,
                    door: Arc::clone(&placed.door),
                    shut: Arc::clone(&self.shut),
                });
            }
        }
    }

    /// The workers take what is in the queue and close.
    fn give_up(self) {
        drop(self.bound);
        self.shut.shut();
        if let Bind::Unix(path) = &self.bind {
            // Who comes later is to be refused, and not to wait for nobody.
            std::fs::remove_file(path).ok();
        }
    }
}

/// At least one for each worker: they share where there are fewer.
fn for_each_worker(mut sockets: Vec<Bound>, workers: usize) -> io::Result<Vec<Bound>> {
    let own = sockets.len();
    for at in own..workers {
        let copy = sockets
            .get(at % own.max(1))
            .map(Bound::try_clone)
            .transpose()?;
        sockets.extend(copy);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use std::net::TcpListener;

    fn sockets(workers: usize) -> Sockets {
        Sockets::new(workers, Inherited::default())
    }

    #[test]
    fn each_worker_has_a_socket_for_every_address() {
        let said = [("LISTENERS__WEB__BIND", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]")];
        let listeners = assembled(&said).unwrap().listeners;
        let mut sockets = sockets(3);
        let fresh = sockets.bind(&listeners).unwrap();
        let posts = sockets.take(fresh, &listeners);
        assert_eq!(posts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(sockets.addresses().count(), 2);
        assert!(sockets.addresses().all(|(name, _)| name.as_str() == "web"));
    }

    #[test]
    fn what_is_there_is_not_bound_again() {
        let listeners = assembled(&[]).unwrap().listeners;
        let mut sockets = sockets(2);
        let fresh = sockets.bind(&listeners).unwrap();
        sockets.take(fresh, &listeners);
        let before: Vec<_> = sockets.addresses().map(|(_, at)| at.clone()).collect();
        let fresh = sockets.bind(&listeners).unwrap();
        assert!(fresh.0.is_empty());
        let posts = sockets.take(fresh, &listeners);
        assert!(posts.iter().all(Vec::is_empty));
        let after: Vec<_> = sockets.addresses().map(|(_, at)| at.clone()).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn an_address_in_use_is_told_with_its_listener() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let said = [("LISTENERS__WEB__BIND", address.as_str())];
        let listeners = assembled(&said).unwrap().listeners;
        let error = sockets(2).bind(&listeners).err().unwrap();
        let wanted = format!("listener web: {address} is in use (Address already in use");
        assert!(error.starts_with(&wanted), "{error}");
    }

    #[test]
    fn fewer_sockets_than_workers_are_shared_and_more_are_all_used() {
        let bound = |count| -> Vec<Bound> {
            let one = || TcpListener::bind("127.0.0.1:0").unwrap().into();
            (0..count).map(|_| listen::adopt(one()).unwrap()).collect()
        };
        assert_eq!(for_each_worker(bound(1), 3).unwrap().len(), 3);
        assert_eq!(for_each_worker(bound(4), 3).unwrap().len(), 4);
    }
}
