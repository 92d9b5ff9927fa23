//! A process's life: everything is put in its place and bound, then it serves, then it drains.
//!
//! The main thread is the control plane: signals, the admin listener, what the workers tell, and
//! the files of the configuration. Requests are the workers' alone.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::channel::mpsc::UnboundedReceiver;
use futures::channel::oneshot;
use futures::future::Either;
use futures::future::select;

use crate::app::assemble;
use crate::app::assemble::Assembled;
use crate::app::assemble::logs;
use crate::app::descriptors;
use crate::app::names;
use crate::app::names::Names;
use crate::app::plane;
use crate::app::plane::Order;
use crate::app::plane::Shown;
use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::app::refresh::Refresh;
use crate::app::reload;
use crate::app::reload::Applied;
use crate::app::reload::Reloader;
use crate::app::resolve;
use crate::app::shutdown::Shutdown;
use crate::app::sockets::Sockets;
use crate::app::watchdog;
use crate::app::workers;
use crate::app::workers::Told;
use crate::base::names::Name;
use crate::config::Loaded;
use crate::config::Settings;
use crate::config::Sources;
use crate::config::watch::Alike;
use crate::net::admin_serve::AdminListener;
use crate::net::clock;
use crate::net::control;
use crate::net::control::Asked;
use crate::net::control::Asks;
use crate::net::handover;
use crate::net::handover::Program;
use crate::net::inherit::Inherited;
use crate::net::listen::Bound;
use crate::net::listen::Local;
use crate::net::notify;
use crate::net::worker;
use crate::observe::ErrorLog;
use crate::observe::error_log::Severity;
use crate::proxy::service::Service;

/// Where a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its listeners' addresses.
    pub listeners: Vec<(Name, Local)>,
    /// The admin listener's.
    pub admin: Option<SocketAddr>,
}

/// Serves until it is told to stop. `started` is called when everything listens. The sources are
/// what a reload reads again.
///
/// # Errors
/// What keeps it from starting, or from going on; or what had to be cut at the end.
pub fn run(
    loaded: Loaded,
    sources: Sources,
    started: impl FnOnce(&Listening),
) -> Result<(), String> {
    let inherited = Inherited::take_from_environment()?;
    control::run(live(loaded, sources, inherited, started))
}

async fn live(
    loaded: Loaded,
    sources: Sources,
    inherited: Inherited,
    started: impl FnOnce(&Listening),
) -> Result<(), String> {
    let settings = &loaded.settings;
    let errors = logs::errors(&settings.log);
    let addresses = names::unresolved(&settings.upstreams);
    let assembled = assemble::assemble(settings, &addresses, Arc::clone(&errors))?;
    // Before anybody is told that we listen: a signal must find us ready to drain.
    let asks = Asks::new().map_err(|error| format!("signals cannot be had: {error}"))?;
    let Assembled {
        service,
        listeners,
        workers,
    } = assembled;
    let names = Arc::new(Mutex::new(Names::new(settings, &service, workers)));
    let refresh = Refresh::begin(&names, &service, resolve::system()).await;
    make_room(settings, &service, workers);
    let mut sockets = Sockets::new(workers, inherited);
    let fresh = sockets.bind(&listeners)?;
    let admin = settings.admin.bind;
    let admin = admin.map(|address| bind_admin(address, &mut sockets));
    let admin = admin.transpose()?;
    let posts = sockets.take(fresh, &listeners);
    let of_listeners = sockets.addresses();
    let listening = Listening {
        listeners: of_listeners
            .map(|(name, local)| (name.clone(), local.clone()))
            .collect(),
        admin: admin.as_ref().map(AdminListener::local),
    };
    tell_where(&errors, &listening);

    let of = Arc::clone(&service);
    worker::on_panic(move || task_panicked(&of));
    let (tell, mut told) = mpsc::unbounded();
    workers::start(posts, &service, &tell)?;
    all_began(&mut told, workers).await?;
    // Kept to the end, as `tell` is: a receiver without senders would have nothing more to wait for.
    let (order, orders) = mpsc::unbounded();
    let (renew, renewed) = mpsc::unbounded();
    let readiness = Arc::new(Readiness::new());
    readiness.set(Ready::Serving);
    let of_admin = settings.admin.clone();
    let ready = sockets.take_ready();
    let (hand_admin_over, admin_handed_over) = oneshot::channel();
    let heirloom = Heirloom {
        program: Program::own().map_err(|error| format!("its own path: {error}"))?,
        admin: of_admin
            .bind
            .zip(admin.as_ref().and_then(|at| at.shared().ok())),
        told: Some(hand_admin_over),
    };
    let parts = reload::Parts {
        service: Arc::clone(&service),
        names: Arc::clone(&names),
        sockets,
        listeners,
        workers,
        renewed: renew,
    };
    let reloader = Reloader::new(sources, loaded, parts);
    let shown = Shown {
        service: Arc::clone(&service),
        names,
        config: Box::new(reloader.shown()),
        readiness: Arc::clone(&readiness),
    };
    let plane = plane::plane(&of_admin, shown, order.clone())?;
    started(&listening);
    notify::tell(notify::News::Ready);
    if let Some(ready) = ready {
        // Who waits may have given up; then we are two, and it says so.
        handover::tell_ready(ready).ok();
    }

    let watched = Arc::clone(&service);
    let mut life = Life {
        service,
        readiness,
        reloader,
        heirloom,
        news: News { asks, told, orders },
    };
    let admin = pin!(plane::serve(admin, plane, &errors, admin_handed_over));
    let life = pin!(life.live());
    let refresh = pin!(refresh.run_with(renewed));
    let watching = pin!(watchdog::watch(&watched));
    // None of these ends; they go on as long as there is a life.
    let beside = select(admin, select(refresh, watching));
    let ended = match select(life, beside).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => Err("a part of the control plane has ended".to_owned()),
    };
    drop((tell, order));
    ended
}

/// A process that serves, and what it acts with.
struct Life {
    service: Arc<Service>,
    readiness: Arc<Readiness>,
    reloader: Reloader,
    heirloom: Heirloom,
    news: News,
}

/// What the next process gets besides the listeners, and how it is started.
struct Heirloom {
    program: Program,
    /// The admin listener, by what it was bound to.
    admin: Option<(SocketAddr, Bound)>,
    /// Who is told that the admin listener is another's.
    told: Option<oneshot::Sender<()>>,
}

/// Why serving ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// It was asked to.
    Away,
    /// Another process has taken over.
    InFavour,
}

impl Life {
    /// Serves until it is time to go, and goes.
    async fn live(&mut self) -> Result<(), String> {
        let goes = self.until_stop().await?;
        let Self {
            service,
            readiness,
            reloader,
            news,
            ..
        } = self;
        let sockets = &mut reloader.sockets;
        let mut shutdown = match goes {
            Goes::Away => {
                notify::tell(notify::News::Stopping);
                Shutdown::begin(service, readiness, Box::new(|| sockets.close()))
            }
            Goes::InFavour => Shutdown::hand_over(service, readiness, Box::new(|| sockets.leave())),
        };
        let asked = {
            let finish = pin!(shutdown.finish());
            let again = pin!(news.until_asked_again(service));
            match select(finish, again).await {
                Either::Left(((), _)) => None,
                Either::Right((asked, _)) => Some(asked),
            }
        };
        if let Some(asked) = asked {
            asked?;
            shutdown.hurry();
            shutdown.finish().await;
        }
        shutdown.end()
    }

    /// Does what is asked until that is to stop. Errors: a worker has ended.
    async fn until_stop(&mut self) -> Result<Goes, String> {
        loop {
            let new = {
                let news = pin!(self.news.next());
                let look = pin!(control::sleep(LOOK_AT_FILES));
                match select(news, look).await {
                    Either::Left((new, _)) => Some(new),
                    Either::Right(((), _)) => None,
                }
            };
            match new {
                Some(New::Stop) => return Ok(Goes::Away),
                Some(New::HandOver) => {
                    if let Some(goes) = self.hand_over().await {
                        return Ok(goes);
                    }
                }
                Some(New::Reload) => {
                    reopen(&self.service);
                    // The log has told; nobody waits for the answer.
                    self.reload().await.ok();
                }
                Some(New::ReloadFor(tell)) => {
                    let result = self.reload().await;
                    tell.send(result).ok(); // who asked may have left
                }
                Some(New::WorkerEnded { index, why }) => {
                    return Err(worker_ended(&self.service, index, &why));
                }
                None if self.reloader.look() == Alike::Different => {
                    self.reload().await.ok();
                }
                None => {}
            }
        }
    }

    async fn reload(&mut self) -> Result<Applied, String> {
        notify::tell(notify::News::Reloading);
        let result = self.reloader.reload().await;
        notify::tell(notify::News::Ready);
        result
    }

    /// Starts a new process with the sockets. Whatever keeps it from accepting, this one goes on.
    async fn hand_over(&mut self) -> Option<Goes> {
        let (now, errors) = (clock::wall(), Arc::clone(&self.service.errors));
        let says = "a new process is started with the listening sockets";
        errors.log(now, Severity::Info, "handover", says, &[]);
        match self.successor().await {
            Ok(id) => {
                notify::tell(notify::News::MainProcess(id));
                if let Some(told) = self.heirloom.told.take() {
                    told.send(()).ok(); // without an admin listener nobody waits for it
                }
                let says = "the new process accepts; this one drains";
                let facts: [(&str, &dyn std::fmt::Display); 1] = [("successor", &id)];
                errors.log(clock::wall(), Severity::Info, "handover", says, &facts);
                Some(Goes::InFavour)
            }
            Err(why) => {
                let says = "the new process does not accept; this one goes on";
                let facts: [(&str, &dyn std::fmt::Display); 1] = [("error", &why)];
                errors.log(clock::wall(), Severity::Error, "handover", says, &facts);
                None
            }
        }
    }

    async fn successor(&self) -> Result<u32, String> {
        let sockets = self.reloader.sockets.for_successor();
        let mut sockets = sockets.map_err(|error| error.to_string())?;
        if let Some((address, bound)) = &self.heirloom.admin {
            let copy = bound.inheritable().map_err(|error| error.to_string())?;
            sockets.push((copy, admin_name(*address)));
        }
        let started = self.heirloom.program.start(sockets);
        let successor = started.map_err(|error| format!("it cannot be started: {error}"))?;
        successor.accepts(SUCCESSOR_TIME_MAX).await
    }
}

/// A task that serves no connection of its own: those are told of with their client.
fn task_panicked(service: &Service) {
    service.metrics.panics.inc();
    let says = "a task panicked; only what it did has ended";
    let errors = &service.errors;
    errors.log(clock::wall(), Severity::Error, "panic", says, &[]);
}

fn worker_ended(service: &Service, index: usize, why: &str) -> String {
    let says = format!("worker {index} has ended: {why}");
    let facts: [(&str, &dyn std::fmt::Display); 1] = [("worker", &index)];
    let errors = &service.errors;
    errors.log(
        clock::wall(),
        Severity::Error,
        "worker_ended",
        &says,
        &facts,
    );
    says
}

/// Files are opened anew.
fn reopen(service: &Service) {
    let (severity, says) = match service.access_log.reopen() {
        Ok(()) => (Severity::Info, "files were reopened".to_owned()),
        Err(error) => (
            Severity::Error,
            format!("the access log cannot be reopened and goes on in its old file: {error}"),
        ),
    };
    service
        .errors
        .log(clock::wall(), severity, "reopened", &says, &[]);
}

/// Everything that the control plane hears of.
struct News {
    asks: Asks,
    told: UnboundedReceiver<Told>,
    orders: UnboundedReceiver<Order>,
}

/// One thing that the control plane has heard.
enum New {
    Stop,
    Reload,
    HandOver,
    ReloadFor(oneshot::Sender<Result<Applied, String>>),
    WorkerEnded { index: usize, why: String },
}

impl News {
    /// The next one. Cancel: none is lost.
    async fn next(&mut self) -> New {
        loop {
            let inside = select(self.told.next(), self.orders.next());
            match select(pin!(self.asks.next()), inside).await {
                Either::Left((Asked::Stop, _)) => return New::Stop,
                Either::Left((Asked::Reload, _)) => return New::Reload,
                Either::Left((Asked::HandOver, _)) => return New::HandOver,
                Either::Right((Either::Left((told, _)), _)) => match told {
                    Some(Told::Ended { index, why }) => return New::WorkerEnded { index, why },
                    // `live` holds a sender, so that it does not end.
                    Some(Told::Began) | None => {}
                },
                Either::Right((Either::Right((order, _)), _)) => match order {
                    Some(Order::Drain) => return New::Stop,
                    Some(Order::Reload(tell)) => return New::ReloadFor(tell),
                    // As above: there may be nobody to order.
                    None => {}
                },
            }
        }
    }

    /// During a drain: until it is asked for a second time. Errors: a worker has ended.
    async fn until_asked_again(&mut self, service: &Service) -> Result<(), String> {
        loop {
            match self.next().await {
                New::Stop => return Ok(()),
                New::Reload => reopen(service),
                New::ReloadFor(tell) => drop(tell), // what ends takes no other configuration
                New::HandOver => {}                 // nor has it anything to hand over
                New::WorkerEnded { index, why } => {
                    return Err(worker_ended(service, index, &why));
                }
            }
        }
    }
}

/// Waits until every worker accepts.
async fn all_began(told: &mut UnboundedReceiver<Told>, workers: usize) -> Result<(), String> {
    for _ in 0..workers {
        match told.next().await {
            Some(Told::Began) => {}
            Some(Told::Ended { index, why }) => {
                return Err(format!("worker {index} cannot start: {why}"));
            }
            None => return Err("the workers have ended".to_owned()),
        }
    }
    Ok(())
}

/// Takes all the descriptors that may be had, and warns if they are too few.
fn make_room(settings: &Settings, service: &Service, workers: usize) {
    let limit = control::raise_descriptor_limit();
    let needed = descriptors::needed(settings, service, workers);
    if let Some(says) = descriptors::warning(needed, limit) {
        service.errors.log(
            clock::wall(),
            Severity::Warn,
            "descriptors",
            &says,
            &[("needed", &needed)],
        );
    }
}

fn bind_admin(address: SocketAddr, sockets: &mut Sockets) -> Result<AdminListener, String> {
    let listener = match sockets.take_inherited(&admin_name(address)) {
        Some(bound) => AdminListener::inherited(bound),
        None => AdminListener::bind(address),
    };
    listener.map_err(|error: io::Error| format!("admin: {}", workers::refused(&address, &error)))
}

fn tell_where(errors: &ErrorLog, listening: &Listening) {
    let listeners = listening.listeners.iter();
    let listeners = listeners.map(|(name, local)| (name.as_str(), local.to_string()));
    let admin = listening.admin.iter();
    let admin = admin.map(|address| ("admin", address.to_string()));
    for (name, address) in listeners.chain(admin) {
        let facts: [(&str, &dyn std::fmt::Display); 2] =
            [("listener", &name), ("address", &address)];
        let says = "connections are accepted";
        errors.log(clock::wall(), Severity::Info, "listening", says, &facts);
    }
}

/// The admin listener's name in a hand-over, by what it was bound to.
fn admin_name(address: SocketAddr) -> String {
    format!("admin {address}")
}

/// How long a new process may take to accept: names have to be looked up first.
const SUCCESSOR_TIME_MAX: Duration = Duration::from_secs(30);

/// Between two looks at the files of the configuration: soon enough for people.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
