//! A process's life: everything is put in its place and bound, then it serves, then it drains.
//!
//! The main thread is the control plane: signals, the admin listener, what the workers tell, and
//! the files of the configuration. Requests are the workers' alone.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::channel::mpsc::UnboundedReceiver;
use futures::channel::oneshot;
use futures::future::Either;
use futures::future::select;

use crate::app::assemble;
use crate::app::assemble::Assembled;
use crate::app::assemble::Placed;
use crate::app::assemble::logs;
use crate::app::budget;
use crate::app::checks;
use crate::app::checks::Checked;
use crate::app::life::Heirloom;
use crate::app::life::Life;
use crate::app::life::News;
use crate::app::life::admin_name;
use crate::app::names;
use crate::app::names::Names;
use crate::app::plane;
use crate::app::plane::Shown;
use crate::app::ports;
use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::app::refresh::Refresh;
use crate::app::reload;
use crate::app::reload::Reloader;
use crate::app::resolve;
use crate::app::shedding;
use crate::app::sockets::Sockets;
use crate::app::watchdog;
use crate::app::workers;
use crate::app::workers::Told;
use crate::base::names::Name;
use crate::config::Loaded;
use crate::config::Settings;
use crate::config::Sources;
use crate::config::watch::Seen;
use crate::net::admin_serve::AdminListener;
use crate::net::clock;
use crate::net::control;
use crate::net::control::Asks;
use crate::net::descriptors;
use crate::net::handover;
use crate::net::handover::Program;
use crate::net::inherit::Inherited;
use crate::net::listen::Local;
use crate::net::memory;
use crate::net::notify;
use crate::net::worker;
use crate::observe::ErrorLog;
use crate::observe::error_log::Severity;
use crate::proxy::accept::Post;
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
    // First of all: whoever writes the files once we are there to be seen must be noticed.
    let seen = Seen::look(sources.file.as_deref(), &Seen::default());
    let inherited = Inherited::take_from_environment()?;
    control::run(live(loaded, (sources, seen), inherited, started))
}

async fn live(
    loaded: Loaded,
    (sources, seen): (Sources, Seen),
    inherited: Inherited,
    started: impl FnOnce(&Listening),
) -> Result<(), String> {
    control::begin().await;
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
    // Before the first client: those who come at once in numbers must find them counted. What cannot
    // be listed is not counted, for which the reserve is wide enough.
    descriptors::take_stock().ok();
    service.shed.look(&[], &service.live);
    ports::warn(&service);
    let mut sockets = Sockets::new(workers, inherited);
    let Taken {
        posts,
        admin,
        listening,
    } = listen(settings, &mut sockets, &listeners)?;
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
    if ready.is_none() {
        // Before it hears that we are ready, so that a restart may come at any time after that. It
        // would not hear one who is handed over to: that one is not the service yet (`life`).
        sockets.tell_keeper();
    }
    let (heirloom, admin_handed_over) = heirloom(of_admin.bind, admin.as_ref())?;
    let checked = Arc::new(Checked::new(settings));
    let parts = reload::Parts {
        service: Arc::clone(&service),
        names: Arc::clone(&names),
        checked: Arc::clone(&checked),
        seen,
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
    let checks = pin!(checks::run(&checked, &watched));
    let shedding = pin!(shedding::watch(&watched));
    // None of these ends; they go on as long as there is a life.

    let beside = select(
        select(admin, checks),
        select(refresh, select(watching, shedding)),
    );
    let ended = match select(life, beside).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => Err("a part of the control plane has ended".to_owned()),
    };
    drop((tell, order));
    ended
}

/// What was bound, and where all of it is.
struct Taken {
    /// Of each worker.
    posts: Vec<Vec<Post>>,
    admin: Option<AdminListener>,
    listening: Listening,
}

/// Binds everything, or nothing stays bound.
fn listen(
    settings: &Settings,
    sockets: &mut Sockets,
    listeners: &[Placed],
) -> Result<Taken, String> {
    let fresh = sockets.bind(listeners)?;
    let admin = settings.admin.bind;
    let admin = admin.map(|address| bind_admin(address, sockets));
    let admin = admin.transpose()?;
    let posts = sockets.take(fresh, listeners);
    let of_listeners = sockets.addresses();
    let listening = Listening {
        listeners: of_listeners
            .map(|(name, local)| (name.clone(), local.clone()))
            .collect(),
        admin: admin.as_ref().map(AdminListener::local),
    };
    Ok(Taken {
        posts,
        admin,
        listening,
    })
}

/// What a next process would get, and who hears that the admin listener is its.
fn heirloom(
    bind: Option<SocketAddr>,
    admin: Option<&AdminListener>,
) -> Result<(Heirloom, oneshot::Receiver<()>), String> {
    let (tell, told) = oneshot::channel();
    let heirloom = Heirloom {
        program: Program::own().map_err(|error| format!("its own path: {error}"))?,
        admin: bind.zip(admin.and_then(|at| at.shared().ok())),
        told: Some(tell),
    };
    Ok((heirloom, told))
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

/// Takes all the descriptors that may be had, and warns if they or the memory are too few.
fn make_room(settings: &Settings, service: &Service, workers: usize) {
    let limit = control::raise_descriptor_limit();
    let budget = budget::of_service(settings, service, workers);
    service.shed.provide(&budget.descriptors);
    let warn = |event, needed: u64, says: Option<String>| {
        if let Some(says) = says {
            let (errors, facts) = (&service.errors, [("needed", &needed as &dyn Display)]);
            errors.log(clock::wall(), Severity::Warn, event, &says, &facts);
        }
    };
    let of_fds = budget.too_many_descriptors(limit);
    warn("descriptors", budget.descriptors.needed(), of_fds);
    let of_memory = budget.too_much_memory(memory::limit());
    warn("memory", budget.memory.needed(), of_memory);
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

/// A task that serves no connection of its own: those are told of with their client.
fn task_panicked(service: &Service) {
    service.metrics.panics.inc();
    let says = "a task panicked; only what it did has ended";
    let errors = &service.errors;
    errors.log(clock::wall(), Severity::Error, "panic", says, &[]);
}
