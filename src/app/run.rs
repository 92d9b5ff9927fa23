//! A process's life: everything is put in its place and bound, then it serves, then it drains.
//!
//! The main thread is the control plane: signals, the admin listener, and what the workers tell.
//! Requests are the workers' alone.

use std::future::Future;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::channel::mpsc::UnboundedReceiver;
use futures::channel::mpsc::UnboundedSender;
use futures::future::Either;
use futures::future::select;

use crate::app::admin::AdminPlane;
use crate::app::admin::Changes;
use crate::app::assemble;
use crate::app::assemble::Assembled;
use crate::app::assemble::logs;
use crate::app::config_view;
use crate::app::descriptors;
use crate::app::names;
use crate::app::names::Names;
use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::app::refresh;
use crate::app::refresh::Refresh;
use crate::app::resolve;
use crate::app::shutdown;
use crate::app::shutdown::Shutdown;
use crate::app::token::Token;
use crate::app::upstreams_view;
use crate::app::upstreams_view::Said;
use crate::app::workers;
use crate::app::workers::Told;
use crate::base::names::Name;
use crate::config::Loaded;
use crate::config::Settings;
use crate::net::admin_serve::AdminListener;
use crate::net::admin_serve::Trouble;
use crate::net::clock;
use crate::net::control;
use crate::net::control::Asked;
use crate::net::control::Asks;
use crate::observe::ErrorLog;
use crate::observe::error_log::Severity;
use crate::proxy::service::Service;

/// Where a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its listeners' addresses.
    pub listeners: Vec<(Name, SocketAddr)>,
    /// The admin listener's.
    pub admin: Option<SocketAddr>,
}

/// Serves until it is told to stop. `started` is called when everything listens.
///
/// # Errors
/// What keeps it from starting, or from going on.
pub fn run(loaded: &Loaded, started: impl FnOnce(&Listening)) -> Result<(), String> {
    control::run(live(loaded, started))
}

async fn live(loaded: &Loaded, started: impl FnOnce(&Listening)) -> Result<(), String> {
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
    let sockets = workers::bind(&listeners, workers)?;
    let admin = settings.admin.bind.map(bind_admin).transpose()?;
    let listening = Listening {
        listeners: sockets.addresses,
        admin: admin.as_ref().map(AdminListener::local),
    };
    tell_where(&errors, &listening);

    let (tell, mut told) = mpsc::unbounded();
    workers::start(sockets.posts, &service, &tell)?;
    all_began(&mut told, workers).await?;
    // Kept to the end, as `tell` is: a receiver without senders would have nothing more to wait for.
    let (order, orders) = mpsc::unbounded();
    // The admin plane keeps its end only where it may change things; a closed end would read as Stop.
    let _orders_stay_open = order.clone();
    let readiness = Arc::new(Readiness::new());
    readiness.set(Ready::Serving);
    let plane = plane(loaded, &names, &service, (&readiness, order.clone()))?;
    started(&listening);

    let mut news = News { asks, told, orders };
    let admin = pin!(serve_admin(admin, plane, &errors));
    let life = pin!(serve(&service, &readiness, &mut news));
    let refresh = pin!(refresh.run());
    let beside = select(admin, refresh);
    let ended = match select(life, beside).await {
        Either::Left((ended, _)) => ended,
        Either::Right((Either::Left(_), _)) => Err("the admin listener has ended".to_owned()),
        Either::Right((Either::Right(_), _)) => Err("names are no longer looked up".to_owned()),
    };
    drop((tell, order));
    ended
}

/// Serves until it is time to go, and goes.
async fn serve(service: &Service, readiness: &Readiness, news: &mut News) -> Result<(), String> {
    until_stop(service, news).await?;
    let mut shutdown = Shutdown::begin(service, readiness);
    let asked = {
        let finish = pin!(shutdown.finish());
        let again = pin!(until_stop(service, news));
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
async fn until_stop(service: &Service, news: &mut News) -> Result<(), String> {
    loop {
        match news.next().await {
            New::Stop => return Ok(()),
            New::Reopen => reopen(service),
            New::WorkerEnded { index, why } => {
                let says = format!("worker {index} has ended: {why}");
                let errors = &service.errors;
                errors.log(
                    clock::wall(),
                    Severity::Error,
                    "worker_ended",
                    &says,
                    &[("worker", &index)],
                );
                return Err(says);
            }
        }
    }
}

/// Files are opened anew. The configuration stays as it is, and the log says so.
fn reopen(service: &Service) {
    let (severity, says) = match service.access_log.reopen() {
        Ok(()) => (
            Severity::Info,
            "files were reopened; the configuration was not read again".to_owned(),
        ),
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

/// What the admin plane passes on.
enum Order {
    Drain,
}

/// One thing that the control plane has heard.
enum New {
    Stop,
    Reopen,
    WorkerEnded { index: usize, why: String },
}

impl News {
    /// The next one. Cancel: none is lost.
    async fn next(&mut self) -> New {
        loop {
            let inside = select(self.told.next(), self.orders.next());
            match select(pin!(self.asks.next()), inside).await {
                Either::Left((Asked::Stop, _)) => return New::Stop,
                Either::Left((Asked::Reload, _)) => return New::Reopen,
                Either::Right((Either::Left((Some(Told::Ended { index, why }), _)), _)) => {
                    return New::WorkerEnded { index, why };
                }
                Either::Right((Either::Right((Some(Order::Drain), _)), _)) => return New::Stop,
                Either::Right((Either::Left((Some(Told::Began), _)), _)) => {}
                // `live` holds a sender of each, so that neither ends: there may be nobody to order.
                Either::Right((Either::Left((None, _)) | Either::Right((None, _)), _)) => {}
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

fn bind_admin(address: SocketAddr) -> Result<AdminListener, String> {
    AdminListener::bind(address)
        .map_err(|error: io::Error| format!("admin: {}", workers::refused(address, &error)))
}

fn tell_where(errors: &ErrorLog, listening: &Listening) {
    let listeners = listening
        .listeners
        .iter()
        .map(|(name, address)| (name.as_str(), address));
    let admin = listening.admin.iter().map(|address| ("admin", address));
    for (name, address) in listeners.chain(admin) {
        let facts: [(&str, &dyn std::fmt::Display); 2] =
            [("listener", &name), ("address", address)];
        errors.log(
            clock::wall(),
            Severity::Info,
            "listening",
            "connections are accepted",
            &facts,
        );
    }
}

fn plane(
    loaded: &Loaded,
    names: &refresh::Shared,
    service: &Arc<Service>,
    (readiness, order): (&Arc<Readiness>, UnboundedSender<Order>),
) -> Result<AdminPlane, String> {
    let settings = &loaded.settings;
    let token = settings
        .admin
        .token
        .as_ref()
        .map(|secret| Token::parse(secret.expose()));
    let token = token
        .transpose()
        .map_err(|clause| format!("admin.token_file: {clause}"))?;
    let said = Said::of(&settings.upstreams, names);
    let config = config_view::show(&loaded.tree);
    let of = Arc::clone(service);
    let drain = move || {
        order
            .unbounded_send(Order::Drain)
            .map_err(|_| "it has ended".to_owned())
    };
    Ok(AdminPlane {
        metrics: Arc::clone(&service.metrics),
        live: Arc::clone(&service.live),
        now_micros: || clock::micros(clock::now()),
        upstreams: Box::new(move || upstreams_view::show(&of, &said)),
        config: Box::new(move || config.clone()),
        drain: {
            let of = Arc::clone(service);
            Box::new(move || shutdown::show(&of))
        },
        readiness: Arc::clone(readiness),
        token,
        changes: match settings.admin.allow_changes {
            true => Changes::Allowed {
                drain: Box::new(drain),
                reload: None,
            },
            false => Changes::Refused,
        },
    })
}

/// Serves the admin listener for ever, if there is one.
fn serve_admin(
    listener: Option<AdminListener>,
    plane: AdminPlane,
    errors: &ErrorLog,
) -> impl Future<Output = ()> {
    let plane = Arc::new(plane);
    let metrics = Arc::clone(&plane.metrics);
    let trouble = move |trouble| match trouble {
        Trouble::Accept(error) => {
            let says = "a connection of the admin listener could not be accepted";
            errors.log(
                clock::wall(),
                Severity::Error,
                "admin_accept",
                says,
                &[("error", &error)],
            );
        }
        Trouble::Panicked => {
            metrics.panics.inc();
            let says = "a request to the admin listener ended in a panic";
            errors.log(clock::wall(), Severity::Error, "admin_panic", says, &[]);
        }
    };
    async move {
        let answer = |request| {
            let plane = Arc::clone(&plane);
            async move { plane.answer(&request) }
        };
        match listener {
            Some(listener) => listener.serve(answer, trouble).await,
            None => pending().await,
        }
    }
}
