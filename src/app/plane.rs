//! The admin plane wired up: what it shows, and how what it orders reaches the control plane.

use std::future::Future;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::channel::oneshot;
use futures::future::select;

use crate::app::admin::AdminPlane;
use crate::app::admin::Changes;
use crate::app::admin::Show;
use crate::app::ports;
use crate::app::readiness::Readiness;
use crate::app::refresh;
use crate::app::reload::Applied;
use crate::app::shutdown;
use crate::app::token::Token;
use crate::app::upstreams_view;
use crate::config::settings::Admin;
use crate::net::admin_serve::AdminListener;
use crate::net::admin_serve::Trouble;
use crate::net::clock;
use crate::observe::ErrorLog;
use crate::observe::error_log::Severity;
use crate::proxy::dismiss;
use crate::proxy::service::Service;

/// What the admin plane passes on.
pub enum Order {
    /// To drain and end.
    Drain,
    /// To read the configuration again, and say how that went.
    Reload(oneshot::Sender<Result<Applied, String>>),
}

/// What the plane shows.
pub struct Shown {
    /// The service.
    pub service: Arc<Service>,
    /// The names of its servers.
    pub names: refresh::Shared,
    /// What `/config` shows.
    pub config: Show,
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
}

/// The plane; `order` is where its orders go.
///
/// # Errors
/// The token cannot be used.
pub fn plane(
    settings: &Admin,
    shown: Shown,
    order: UnboundedSender<Order>,
) -> Result<AdminPlane, String> {
    let Shown {
        service,
        names,
        config,
        readiness,
    } = shown;
    let token = settings.token.as_ref();
    let token = token
        .map(|secret| Token::parse(secret.expose()))
        .transpose();
    let token = token.map_err(|clause| format!("admin.token_file: {clause}"))?;
    let (of, drains) = (Arc::clone(&service), Arc::clone(&service));
    let (measured, closes) = (Arc::clone(&service), Arc::clone(&service));
    Ok(AdminPlane {
        metrics: Arc::clone(&service.metrics),
        measure: Box::new(move || ports::tell(&measured)),
        live: Arc::clone(&service.live),
        now_micros: || clock::micros(clock::now()),
        upstreams: Box::new(move || upstreams_view::show(&of, &names)),
        config,
        drain: Box::new(move || shutdown::show(&drains)),
        readiness,
        token,
        changes: match settings.allow_changes {
            true => changes(order, closes),
            false => Changes::Refused,
        },
    })
}

fn changes(order: UnboundedSender<Order>, service: Arc<Service>) -> Changes {
    let reload = order.clone();
    Changes::Allowed {
        drain: Box::new(move || {
            let sent = order.unbounded_send(Order::Drain);
            sent.map_err(|_| ENDED.to_owned())
        }),
        reload: Box::new(move || {
            let (tell, told) = oneshot::channel();
            let sent = reload.unbounded_send(Order::Reload(tell));
            Box::pin(async move {
                sent.map_err(|_| ENDED.to_owned())?;
                told.await.unwrap_or_else(|_| Err(ENDED.to_owned()))
            })
        }),
        dismiss: Box::new(move |id| dismiss::dismiss(&service, id)),
    }
}

async fn until_told(told: oneshot::Receiver<()>) {
    if told.await.is_err() {
        pending().await // nobody will tell
    }
}

/// Nobody is there to do it.
const ENDED: &str = "it is ending";

/// Serves the admin listener for ever, if there is one.
/// Once `handed_over` is told, another process has its socket.
pub fn serve(
    listener: Option<AdminListener>,
    plane: AdminPlane,
    errors: &ErrorLog,
    handed_over: oneshot::Receiver<()>,
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
            async move { plane.answer(&request).await }
        };
        match listener {
            Some(listener) => {
                let serving = pin!(listener.serve(answer, trouble));
                let handed_over = pin!(until_told(handed_over));
                select(serving, handed_over).await;
                pending().await
            }
            None => pending().await,
        }
    }
}
