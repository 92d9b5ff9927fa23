//! Settings to the small types of the floors that use them, and those to a service.
//!
//! Nothing is decided here and nothing starts: what the operator said reaches its place, under the
//! name it has in the file. Absent on purpose: sockets and threads (`run`, `workers`), and names of
//! servers, which are resolved before (`resolve`).

pub mod tcp;
pub mod listener;
pub mod upstream;
pub mod route;
pub mod logs;
pub mod drain;

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::app::resolve::Addresses;
use crate::base::names::Name;
use crate::config::Settings;
use crate::config::settings;
use crate::config::settings::values::Bind;
use crate::config::settings::values::Workers;
use crate::net::dial::TcpOptions;
use crate::observe::AccessLog;
use crate::observe::ErrorLog;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::Shape;
use crate::observe::UpstreamShape;
use crate::policy::route::Routes;
use crate::proxy::service::Door;
use crate::proxy::service::Parts;
use crate::proxy::service::Plan;
use crate::proxy::service::Route;
use crate::proxy::service::ServerTiming;
use crate::proxy::service::Service;
use crate::proxy::settings::RouteSettings;

/// A service that is ready to start.
pub struct Assembled {
    /// What the workers share.
    pub service: Arc<Service>,
    /// What they listen with.
    pub listeners: Vec<Placed>,
    /// How many they are.
    pub workers: usize,
}

/// A listener and where it accepts.
pub struct Placed {
    /// Its name.
    pub name: Name,
    /// Where it stands.
    pub door: Arc<Door>,
    /// Its addresses.
    pub bind: Vec<Bind>,
    /// Connections the kernel keeps until they are accepted.
    pub backlog: u32,
    /// Options of its sockets.
    pub tcp: TcpOptions,
}

/// Puts everything in its place. `addresses` are those of the upstreams, in the settings' order.
///
/// # Errors
/// A clause: the access log cannot be opened, or a route's fields cannot be encoded.
pub fn assemble(
    settings: &Settings,
    addresses: &[Addresses],
    errors: Arc<ErrorLog>,
) -> Result<Assembled, String> {
    let workers = workers(settings.server.workers);
    let metrics = Metrics::new(&shape(settings, workers));
    let live = LiveTable::telling(workers, Some(Arc::clone(&errors)));
    let access_log = AccessLog::open(
        logs::access(&settings.log),
        workers,
        metrics.log_lines_dropped,
    )
    .map_err(|error| format!("log.access_file: {error}"))?;
    let prepared = prepare(settings)?;
    let plan = plan(
        settings,
        (addresses, workers),
        prepared,
        Means {
            metrics: &metrics,
            live: &live,
            errors: &errors,
            sampled: sampled_every(settings),
        },
        None,
    );
    let parts = Parts {
        metrics: Arc::clone(&metrics),
        live,
        access_log,
        errors,
        server_timing: match settings.log.server_timing {
            true => ServerTiming::Sent,
            false => ServerTiming::Omitted,
        },
        tcp_info_interval: sampled_every(settings),
        max_connections: settings.server.max_connections,
        drain: drain::settings(&settings.drain),
    };
    let listeners = settings.listeners.iter().map(|settings| {
        let door = listener::door(settings, metrics.listener(&settings.name));
        placed(settings, door)
    });
    let listeners = listeners.collect();
    let service = Arc::new(Service::new(parts, plan));
    let shown = Arc::downgrade(&service);
    metrics.look_first(move || {
        if let Some(service) = shown.upgrade() {
            service.show_endpoints();
        }
    });
    Ok(Assembled {
        listeners,
        service,
        workers,
    })
}

/// A listener with what its sockets need.
#[must_use]
pub fn placed(settings: &settings::Listener, door: Arc<Door>) -> Placed {
    Placed {
        name: settings.name.clone(),
        door,
        bind: settings.bind.clone(),
        backlog: settings.backlog,
        tcp: tcp::options(&settings.tcp),
    }
}

/// Worker threads; one where the system does not say how many cores there are.
#[must_use]
pub fn workers(workers: Workers) -> usize {
    match workers {
        Workers::Auto => available_parallelism().map_or(1, usize::from),
        Workers::Count(count) => count.get(),
    }
}

/// How often the TCP of origins' connections is sampled, where the system can tell of it at all.
fn sampled_every(settings: &Settings) -> Option<Duration> {
    let asked = settings.metrics.tcp_info_interval.value();
    asked.filter(|_| cfg!(target_os = "linux"))
}

/// What there is to count.
fn shape(settings: &Settings, workers: usize) -> Shape {
    let most = usize::try_from(settings.metrics.max_endpoint_series).unwrap_or(usize::MAX);
    Shape {
        listeners: settings
            .listeners
            .iter()
            .map(|listener| listener.name.clone())
            .collect(),
        routes: settings
            .routes
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        upstreams: settings
            .upstreams
            .iter()
            .map(|settings| UpstreamShape {
                name: settings.name.clone(),
                max_endpoint_series: most,
            })
            .collect(),
        workers,
    }
}

/// The part of a plan that may turn out to be impossible.
pub struct Prepared {
    table: Arc<Routes>,
    routes: Vec<Arc<RouteSettings>>,
}

/// Makes the part of a plan that may turn out to be impossible.
///
/// # Errors
/// A clause: a route's fields cannot be encoded.
pub fn prepare(settings: &Settings) -> Result<Prepared, String> {
    let rules: Vec<_> = settings.routes.iter().map(route::rule).collect();
    let routes = settings.routes.iter().map(route::settings);
    Ok(Prepared {
        table: Arc::new(Routes::new(&rules)),
        routes: routes
            .map(|made| made.map(Arc::new))
            .collect::<Result<_, _>>()?,
    })
}

/// What upstreams count in, are seen in, and are told of in.
pub struct Means<'m> {
    /// The metrics.
    pub metrics: &'m Arc<Metrics>,
    /// The table of connections.
    pub live: &'m Arc<LiveTable>,
    /// The log of the process.
    pub errors: &'m Arc<ErrorLog>,
    /// How often TCP is sampled, if it is.
    pub sampled: Option<Duration>,
}

/// The plan of these settings. Of the plan before it, made of other settings, what is the same
/// stays; every other upstream of that name hands its endpoints on. Whether TCP is sampled is
/// decided when the process starts.
#[must_use]
pub fn plan(
    settings: &Settings,
    (addresses, workers): (&[Addresses], usize),
    prepared: Prepared,
    means: Means<'_>,
    old: Option<(&Settings, &Plan)>,
) -> Plan {
    let Means { metrics, live, .. } = means;
    let shapes = shape(settings, workers).upstreams;
    let each = settings.upstreams.iter().zip(addresses).zip(shapes);
    let upstream = |((settings, found), shape): ((&settings::Upstream, &Addresses), _)| {
        let former = old.and_then(|(_, plan)| plan.upstream(&settings.name));
        let same = old.is_some_and(|(old, _)| old.upstreams.contains(settings));
        if let (Some(former), true) = (former, same) {
            return Arc::clone(former);
        }
        let own = metrics.upstream(&shape);
        if means.sampled.is_some() && own.tcp().is_none() {
            metrics.sample_tcp(&settings.name, &own);
        }
        let of = (own, Arc::clone(live), Arc::clone(means.errors));
        let endpoints = upstream::endpoints(settings, found, workers);
        Arc::new(match former {
            Some(former) => {
                upstream::upstream(settings, Vec::new(), metrics, of).in_place_of(former, endpoints)
            }
            None => upstream::upstream(settings, endpoints, metrics, of),
        })
    };
    let upstreams: Vec<_> = each.map(upstream).collect();
    let routes = settings.routes.iter().zip(prepared.routes);
    let routes = routes.filter_map(|(settings, own)| {
        let mut upstreams = upstreams.iter();
        // There is one: the configuration was checked.
        let leads = upstreams.find(|at| at.settings.name == settings.upstream)?;
        Some(Arc::new(Route {
            settings: own,
            upstream: Arc::clone(leads),
            metrics: metrics.route(&settings.name),
        }))
    });
    Plan {
        table: prepared.table,
        routes: routes.collect(),
        upstreams,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config;
    use crate::config::Sources;
    use crate::observe::error_log::Severity;
    use crate::observe::line::Style;
    use std::sync::atomic::Ordering;

    /// The settings of some tables; each variable is a path below `HOLDFAST_` and a value.
    pub(in crate::app) fn settings(said: &[(&str, &str)]) -> Settings {
        let base = [
            ("LISTENERS__WEB__BIND", "127.0.0.1:0"),
            ("UPSTREAMS__APP__SERVERS", "[\"127.0.0.1:1\"]"),
        ];
        let mut variables: Vec<(String, String)> = Vec::new();
        for (key, value) in base.iter().chain(said) {
            let key = format!("HOLDFAST_{key}");
            variables.retain(|(other, _)| *other != key);
            variables.push((key, (*value).to_owned()));
        }
        let sources = Sources {
            variables,
            ..Sources::default()
        };
        match config::load(&sources) {
            Ok(loaded) => loaded.settings,
            Err(complaints) => panic!("{complaints}"),
        }
    }

    /// The same, of keys in one table, each as it stands in a file.
    pub(in crate::app) fn settings_in(table: &str, said: &[(&str, &str)]) -> Settings {
        let path = |key: &str| format!("{table}.{key}").to_uppercase().replace('.', "__");
        let said: Vec<_> = said
            .iter()
            .map(|(key, value)| (path(key), *value))
            .collect();
        let said: Vec<_> = said
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect();
        settings(&said)
    }

    /// Every server's literal address; a name has none.
    pub(in crate::app) fn literal(settings: &Settings) -> Vec<Addresses> {
        let of = |text: String| text.parse().into_iter().collect();
        let upstreams = settings.upstreams.iter();
        upstreams
            .map(|u| {
                u.servers
                    .iter()
                    .map(|s| of(s.address.to_string()))
                    .collect()
            })
            .collect()
    }

    pub(in crate::app) fn assembled(said: &[(&str, &str)]) -> Result<Assembled, String> {
        assembled_from(&settings(said))
    }

    pub(in crate::app) fn assembled_from(settings: &Settings) -> Result<Assembled, String> {
        let quiet = ErrorLog::to(Box::new(std::io::sink()), Severity::Error, Style::Json);
        assemble(settings, &literal(settings), quiet)
    }

    #[test]
    fn what_an_operator_says_of_the_process_reaches_the_service() {
        let said = [
            ("SERVER__MAX_CONNECTIONS", "7"),
            ("SERVER__WORKERS", "3"),
            ("LOG__SERVER_TIMING", "true"),
        ];
        let assembled = assembled(&said).unwrap();
        assert_eq!(assembled.workers, 3);
        assert_eq!(assembled.service.max_connections.load(Ordering::Relaxed), 7);
        assert_eq!(assembled.service.server_timing, ServerTiming::Sent);
    }

    #[test]
    fn a_request_is_routed_to_the_upstream_that_its_route_names() {
        let said = [
            ("UPSTREAMS__API__SERVERS", "[\"127.0.0.1:2\"]"),
            ("ROUTES__MAIN__UPSTREAM", "app"),
            ("ROUTES__API__UPSTREAM", "api"),
            ("ROUTES__API__PATH_PREFIX", "/api"),
        ];
        let plan = assembled(&said).unwrap().service.plan();
        let leads = |path: &[u8]| {
            let at = plan.table.find(b"a.example", path).unwrap();
            plan.routes[at].upstream.settings.name.to_string()
        };
        assert_eq!(leads(b"/api/x"), "api");
        assert_eq!(leads(b"/"), "app");
    }

    #[test]
    fn each_endpoint_counts_in_its_own_place() {
        let said = [(
            "UPSTREAMS__APP__SERVERS",
            "[\"127.0.0.1:1\", \"127.0.0.1:2\"]",
        )];
        let assembled = assembled(&said).unwrap();
        assert_eq!(assembled.service.endpoints().len(), 2);
        let text = assembled.service.metrics.expose();
        assert!(
            text.contains("endpoint=\"127.0.0.1:1\"") && text.contains("endpoint=\"127.0.0.1:2\"")
        );
    }

    #[test]
    fn an_access_log_that_cannot_be_opened_is_named_by_its_key() {
        let error = assembled(&[("LOG__ACCESS_FILE", "/nowhere/at/all.log")])
            .err()
            .unwrap();
        assert!(error.starts_with("log.access_file: "), "{error}");
    }
}
