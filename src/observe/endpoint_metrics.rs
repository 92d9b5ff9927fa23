//! What is counted for each endpoint, within a cap: endpoints come and go, series must not pile up.
//!
//! A name's addresses change for as long as the process lives. So an endpoint holds its series
//! while it is there, the cap counts those that are there, and the cells of one that went are used
//! again. Endpoints beyond the cap share the series "other".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::observe::gauge::Gauge;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::words::EndpointState;
use crate::observe::words::Word as _;

/// What one endpoint counts. A plain copy.
#[derive(Clone, Copy, Debug)]
pub struct EndpointMetrics {
    /// Connections that are being opened.
    pub connecting: Gauge,
    /// Connections that carry a request.
    pub active: Gauge,
    /// Connections that are parked.
    pub idle: Gauge,
    /// 1 while it gets requests; of "other", how many do.
    pub up: Gauge,
}

/// An endpoint's series while it is there; dropped by its last holder, they are no longer shown.
#[derive(Debug)]
pub struct EndpointSeries {
    metrics: EndpointMetrics,
    /// `None`: the series is "other".
    own: Option<String>,
    of: Arc<EndpointBook>,
}

/// The endpoints of one upstream that have series.
#[derive(Debug)]
pub(super) struct EndpointBook {
    upstream: String,
    cap: usize,
    registry: Arc<Mutex<Registry>>,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    own: BTreeMap<String, Held>,
    other: Option<EndpointMetrics>,
    /// Cells of endpoints that went: at most as many as the cap.
    spare: Vec<EndpointMetrics>,
}

#[derive(Debug)]
struct Held {
    metrics: EndpointMetrics,
    holders: usize,
}

impl EndpointMetrics {
    /// The gauge of connections in this state.
    #[must_use]
    pub fn of(&self, state: EndpointState) -> &Gauge {
        match state {
            EndpointState::Connecting => &self.connecting,
            EndpointState::Active => &self.active,
            EndpointState::Idle => &self.idle,
        }
    }
}

impl std::ops::Deref for EndpointSeries {
    type Target = EndpointMetrics;

    fn deref(&self) -> &EndpointMetrics {
        &self.metrics
    }
}

impl Drop for EndpointSeries {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.own {
            self.of.leave(endpoint);
        }
    }
}

impl EndpointBook {
    pub(super) fn new(upstream: &str, cap: usize, registry: &Arc<Mutex<Registry>>) -> Arc<Self> {
        Arc::new(Self {
            upstream: upstream.to_owned(),
            cap,
            registry: Arc::clone(registry),
            pages: Mutex::default(),
        })
    }

    pub(super) fn enter(self: &Arc<Self>, endpoint: &str) -> EndpointSeries {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = &mut *pages;
        let (metrics, own) = if let Some(held) = pages.own.get_mut(endpoint) {
            held.holders += 1;
            (held.metrics, Some(endpoint.to_owned()))
        } else if pages.own.len() < self.cap {
            let metrics = self.show(endpoint, pages.spare.pop());
            let held = Held {
                metrics,
                holders: 1,
            };
            pages.own.insert(endpoint.to_owned(), held);
            (metrics, Some(endpoint.to_owned()))
        } else {
            let other = pages.other.get_or_insert_with(|| self.show(OTHER, None));
            (*other, None)
        };
        EndpointSeries {
            metrics,
            own,
            of: Arc::clone(self),
        }
    }

    fn leave(&self, endpoint: &str) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = pages.own.get_mut(endpoint) else {
            return;
        };
        held.holders = held.holders.saturating_sub(1);
        if held.holders > 0 {
            return;
        }
        let metrics = held.metrics;
        pages.own.remove(endpoint);
        pages.spare.push(metrics);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        for state in EndpointState::ALL {
            registry.remove(ENDPOINT_CONNECTIONS, &self.labels(endpoint, *state));
        }
        registry.remove(ENDPOINT_UP, &self.labels_of_up(endpoint));
    }

    /// Puts the series on show, over the cells of one that went if there are any.
    fn show(&self, endpoint: &str, spare: Option<EndpointMetrics>) -> EndpointMetrics {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of = |state: EndpointState| {
            let labels = self.labels(endpoint, state);
            match spare {
                Some(spare) => registry.again(ENDPOINT_CONNECTIONS, &labels, *spare.of(state)),
                None => registry.gauge(ENDPOINT_CONNECTIONS, &labels),
            }
        };
        EndpointMetrics {
            connecting: of(EndpointState::Connecting),
            active: of(EndpointState::Active),
            idle: of(EndpointState::Idle),
            up: match spare {
                Some(spare) => registry.again(ENDPOINT_UP, &self.labels_of_up(endpoint), spare.up),
                None => registry.gauge(ENDPOINT_UP, &self.labels_of_up(endpoint)),
            },
        }
    }

    fn labels_of_up<'a>(&'a self, endpoint: &'a str) -> [(&'static str, &'a str); 2] {
        [("upstream", &self.upstream), ("endpoint", endpoint)]
    }

    fn labels<'a>(
        &'a self,
        endpoint: &'a str,
        state: EndpointState,
    ) -> [(&'static str, &'a str); 3] {
        [
            ("upstream", &self.upstream),
            ("endpoint", endpoint),
            ("state", state.label()),
        ]
    }
}

/// What endpoints beyond the cap are counted as.
const OTHER: &str = "other";

const ENDPOINT_UP: Info = Info {
    name: "holdfast_upstream_endpoint_up",
    help: "1 while the endpoint gets requests, 0 while it is ejected or leaves.",
};
const ENDPOINT_CONNECTIONS: Info = Info {
    name: "holdfast_upstream_endpoint_connections",
    help: "Connections of one endpoint, by state.",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn book(cap: usize) -> (Arc<EndpointBook>, impl Fn() -> String) {
        let registry = Arc::new(Mutex::new(Registry::new(1)));
        let book = EndpointBook::new("app", cap, &registry);
        (book, move || registry.lock().unwrap().expose())
    }

    #[test]
    fn endpoints_beyond_the_cap_share_one_series() {
        let (book, text) = book(2);
        let held: Vec<_> = ["a", "b", "c", "d"].map(|e| book.enter(e)).into();
        held.iter().for_each(|series| series.idle.inc());
        let text = text();
        assert!(text.contains(r#"{upstream="app",endpoint="b",state="idle"} 1"#));
        assert!(text.contains(r#"{upstream="app",endpoint="other",state="idle"} 2"#));
        assert!(!text.contains("endpoint=\"c\""));
    }

    #[test]
    fn an_endpoint_that_went_makes_room_for_one_that_comes() {
        let (book, text) = book(1);
        drop(book.enter("a"));
        let later = book.enter("b");
        later.active.inc();
        let text = text();
        assert!(text.contains(r#"{upstream="app",endpoint="b",state="active"} 1"#));
        assert!(!text.contains("endpoint=\"a\"") && !text.contains("endpoint=\"other\""));
    }

    #[test]
    fn endpoints_that_come_and_go_for_ever_take_the_cells_of_a_few() {
        let (book, _) = book(4);
        for port in 0..1000 {
            drop(book.enter(&port.to_string()));
        }
        assert_eq!(book.pages.lock().unwrap().spare.len(), 1);
    }

    #[test]
    fn a_series_stays_while_one_of_its_two_holders_does() {
        let (book, text) = book(1);
        let one = book.enter("a");
        drop(book.enter("a"));
        assert!(text().contains("endpoint=\"a\""));
        drop(one);
        assert!(!text().contains("endpoint=\"a\""));
    }
}
