//! A process that serves: what it hears of and does, until it is time to go.
//!
//! One thing after the other, on the control plane's thread: signals, orders of the admin plane,
//! what workers tell, changed files.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use futures::channel::oneshot;
use futures::future::Either;
use futures::future::select;

use crate::app::plane::Order;
use crate::app::readiness::Readiness;
use crate::app::reload::Applied;
use crate::app::reload::Reloader;
use crate::app::shutdown::Shutdown;
use crate::app::workers::Told;
use crate::config::watch::Alike;
use crate::net::clock;
use crate::net::control;
use crate::net::control::Asked;
use crate::net::control::Asks;
use crate::net::handover::Program;
use crate::net::listen::Bound;
use crate::net::notify;
use crate::observe::error_log::Severity;
use crate::proxy::service::Service;

/// A process that serves, and what it acts with.
pub struct Life {
    /// What it serves with.
    pub service: Arc<Service>,
    /// What probes are told.
    pub readiness: Arc<Readiness>,
    /// Its configuration.
    pub reloader: Reloader,
    /// What the next process gets.
    pub heirloom: Heirloom,
    /// What it hears.
    pub news: News,
}

/// What the next process gets besides the listeners, and how it is started.
pub struct Heirloom {
    /// How this process was started.
    pub program: Program,
    /// The admin listener, by what it was bound to.
    pub admin: Option<(SocketAddr, Bound)>,
    /// Who is told that the admin listener is another's.
    pub told: Option<oneshot::Sender<()>>,
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
    ///
    /// # Errors
    /// A worker has ended, or something had to be cut.
    pub async fn live(&mut self) -> Result<(), String> {
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
                None => {
                    // Who was handed over to is heard once it is the service.
                    self.reloader.sockets.tell_keeper();
                    if self.reloader.look() == Alike::Different {
                        self.reload().await.ok();
                    }
                }
            }
        }
    }

    async fn reload(&mut self) -> Result<Applied, String> {
        notify::tell(notify::News::Reloading);
        let result = self.reloader.reload().await;
        self.reloader.sockets.tell_keeper();
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
pub struct News {
    /// From operators, by signal.
    pub asks: Asks,
    /// From the workers.
    pub told: UnboundedReceiver<Told>,
    /// From the admin plane.
    pub orders: UnboundedReceiver<Order>,
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
                    // Who starts us holds a sender, so that it does not end.
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

/// The admin listener's name in a hand-over, by what it was bound to.
#[must_use]
pub fn admin_name(address: SocketAddr) -> String {
    format!("admin {address}")
}

/// How long a new process may take to accept: names have to be looked up first.
const SUCCESSOR_TIME_MAX: Duration = Duration::from_secs(30);

/// Between two looks at the files of the configuration: soon enough for people.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
