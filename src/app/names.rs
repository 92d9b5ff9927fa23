//! The servers that are names: what is known of each, and the plan that follows from it.
//!
//! Every answer comes through here, the first one too, and makes a new plan only if it changes
//! something. All of it is on the control plane's thread between two awaits, so plans follow each
//! other. Absent on purpose: asking resolvers and timers (`refresh`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::app::assemble::upstream;
use crate::app::resolve::Addresses;
use crate::app::resolve::Unresolved;
use crate::base::CloseReason;
use crate::config::settings;
use crate::config::settings::Dns;
use crate::config::settings::Settings;
use crate::config::settings::values::ServerAddress;
use crate::config::settings::words::Word as _;
use crate::net::clock;
use crate::observe::DnsMetrics;
use crate::observe::error_log::Severity;
use crate::observe::words::DnsResult;
use crate::policy::answers::ADDRESSES_MAX;
use crate::policy::answers::Change;
use crate::policy::answers::Known;
use crate::policy::answers::News;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Plan;
use crate::proxy::service::Service;

/// All upstreams, those without names too: their endpoints leave in the same way.
pub struct Names {
    /// How names are looked up.
    pub dns: Dns,
    workers: usize,
    upstreams: Vec<Upstream>,
    /// Endpoints of upstreams that are configured no longer, and when their pools are closed.
    gone: Vec<(Arc<Endpoint>, Instant)>,
}

/// An upstream.
struct Upstream {
    settings: settings::Upstream,
    servers: Vec<Server>,
    /// For those that have names.
    metrics: Arc<DnsMetrics>,
    /// Its endpoints that leave, and when their pools are closed.
    leaving: Vec<(Arc<Endpoint>, Instant)>,
}

enum Server {
    Literal(SocketAddr),
    Name(Name),
}

/// One name.
#[derive(Clone, Debug)]
pub struct Name {
    /// Which one it is.
    pub which: Which,
    /// The host that is looked up.
    pub host: String,
    /// The port of each of its addresses.
    pub port: u16,
    /// What is known of it.
    pub known: Known,
    /// When it was last answered, by the clock on the wall.
    pub last_success: Option<SystemTime>,
    /// Why the last look-up failed, if it did.
    pub last_failure: Option<Unresolved>,
}

/// A name's place: the upstream's, then the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which(usize, usize);

/// What an answer makes necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// No more.
    Nothing,
    /// To look again after so long whether pools are to be closed.
    CloseAfter(Duration),
}

/// The addresses to begin with: names have none yet.
#[must_use]
pub fn unresolved(upstreams: &[settings::Upstream]) -> Vec<Addresses> {
    let of = |server: &settings::upstream::Server| match &server.address {
        ServerAddress::Ip(address) => vec![*address],
        ServerAddress::Name { .. } => Vec::new(),
    };
    let upstreams = upstreams.iter();
    upstreams
        .map(|upstream| upstream.servers.iter().map(of).collect())
        .collect()
}

impl Names {
    /// The names of the settings, of which nothing is known yet.
    #[must_use]
    pub fn new(settings: &Settings, service: &Service, workers: usize) -> Self {
        let each = settings.upstreams.iter().enumerate();
        let upstream = |(at, upstream): (usize, &settings::Upstream)| Upstream {
            settings: upstream.clone(),
            servers: servers(at, upstream),
            metrics: service.metrics.dns(&upstream.name),
            leaving: Vec::new(),
        };
        Self {
            dns: settings.dns.clone(),
            workers,
            upstreams: each.map(upstream).collect(),
            gone: Vec::new(),
        }
    }

    /// Takes over what was known of the same names, and who leaves.
    pub fn remember(&mut self, old: &mut Self) {
        self.gone.append(&mut old.gone);
        for former in &mut old.upstreams {
            let name = former.settings.name.clone();
            let same = |at: &&mut Upstream| at.settings.name == name;
            match self.upstreams.iter_mut().find(same) {
                Some(upstream) => upstream.remember(former),
                None => self.gone.append(&mut former.leaving),
            }
        }
    }

    /// What was heard of a name before the plan is made.
    pub fn hear(
        &mut self,
        which: Which,
        result: Result<Vec<SocketAddr>, Unresolved>,
        service: &Service,
    ) {
        let keep = self.dns.keep_last_good;
        if let Some(upstream) = self.upstreams.get_mut(which.0) {
            upstream.learn(which.1, result, keep, service);
        }
    }

    /// The addresses of every server, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> Vec<Addresses> {
        self.upstreams.iter().map(Upstream::addresses).collect()
    }

    /// The plan has been replaced: what it has no more leaves; the time until that is over.
    pub fn note_replaced(&mut self, old: &Plan, service: &Service) -> Duration {
        let grace = self.dns.removal_grace;
        let close_at = clock::now() + grace;
        let now = service.plan();
        for former in &old.upstreams {
            if now.upstream(&former.settings.name).is_none() {
                let all = former.endpoints.iter().chain(&former.leaving);
                self.gone.extend(all.map(|at| (Arc::clone(at), close_at)));
            }
        }
        for upstream in &mut self.upstreams {
            upstream.note_leaving(service, close_at);
        }
        grace
    }

    /// Every name.
    pub fn all(&self) -> impl Iterator<Item = &Name> {
        self.upstreams.iter().flat_map(Upstream::names)
    }

    /// How the upstream that is called so is balanced, in the configuration's word.
    #[must_use]
    pub fn balance(&self, upstream: &str) -> &'static str {
        let called = |at: &&Upstream| at.settings.name.as_str() == upstream;
        let found = self.upstreams.iter().find(called);
        found.map_or("", |at| at.settings.balance.word())
    }

    /// The names of the upstream that is called so.
    pub fn of(&self, upstream: &str) -> impl Iterator<Item = &Name> {
        let called = move |at: &&Upstream| at.settings.name.as_str() == upstream;
        self.upstreams
            .iter()
            .filter(called)
            .flat_map(Upstream::names)
    }

    /// A look-up of a name has ended: the plan follows.
    pub fn on_answer(
        &mut self,
        which: Which,
        result: Result<Vec<SocketAddr>, Unresolved>,
        service: &Service,
    ) -> Then {
        let (dns, workers) = (self.dns.clone(), self.workers);
        let Some(upstream) = self.upstreams.get_mut(which.0) else {
            return Then::Nothing;
        };
        let Some(change) = upstream.learn(which.1, result, dns.keep_last_good, service) else {
            return Then::Nothing;
        };
        if change.is_none() {
            return Then::Nothing;
        }
        let shapes = upstream::endpoints(&upstream.settings, &upstream.addresses(), workers);
        let lists = vec![(upstream.settings.name.clone(), shapes)];
        service.revise_plan(|plan| plan.with_endpoints(lists));
        upstream.note_leaving(service, clock::now() + dns.removal_grace);
        match change.removed.is_empty() {
            true => Then::Nothing,
            false => Then::CloseAfter(dns.removal_grace),
        }
    }

    /// Closes the pools of endpoints whose grace is over.
    pub fn close_the_gone(&mut self, service: &Service) {
        let now = clock::now();
        let over = |(_, until): &mut (Arc<Endpoint>, Instant)| *until <= now;
        for (endpoint, _) in self.gone.extract_if(.., over) {
            endpoint.close_pool(CloseReason::EndpointRemoved);
        }
        for upstream in &mut self.upstreams {
            let gone: Vec<_> = upstream
                .leaving
                .extract_if(.., over)
                .map(|(at, _)| at)
                .collect();
            if gone.is_empty() {
                continue;
            }
            // Out of the plan first: a closed pool must never be found again by its address.
            service.revise_plan(|plan| plan.without(&upstream.settings.name, &gone));
            for endpoint in gone {
                endpoint.close_pool(CloseReason::EndpointRemoved);
            }
        }
    }
}

impl Upstream {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.servers.iter().filter_map(|server| match server {
            Server::Literal(_) => None,
            Server::Name(name) => Some(name),
        })
    }

    /// What was known of the same names under the same upstream, and who leaves.
    fn remember(&mut self, former: &mut Self) {
        self.leaving.append(&mut former.leaving);
        let known: Vec<_> = former.names().cloned().collect();
        for server in &mut self.servers {
            let Server::Name(name) = server else { continue };
            let same = |at: &&Name| at.host == name.host && at.port == name.port;
            if let Some(known) = known.iter().find(same) {
                *name = Name {
                    which: name.which,
                    ..known.clone()
                };
            }
        }
    }

    fn addresses(&self) -> Addresses {
        let of = |server: &Server| match server {
            Server::Literal(address) => vec![*address],
            Server::Name(name) => name.known.addresses().to_vec(),
        };
        self.servers.iter().map(of).collect()
    }

    /// Takes the result in, counts it and tells of it. `None`: there is no such name.
    fn learn(
        &mut self,
        at: usize,
        result: Result<Vec<SocketAddr>, Unresolved>,
        keep: Duration,
        service: &Service,
    ) -> Option<Change> {
        let Some(Server::Name(name)) = self.servers.get_mut(at) else {
            return None;
        };
        let result_word = match &result {
            Ok(_) => DnsResult::Success,
            Err(Unresolved::TimedOut(_)) => DnsResult::Timeout,
            Err(Unresolved::Failed(_) | Unresolved::NoAddress(_)) => DnsResult::Failure,
        };
        self.metrics.refreshes.of(result_word).inc();
        let (change, news) = name.take(result, keep);
        tell(service, self.settings.name.as_str(), name, (&change, news));
        let addresses: usize = self.names().map(|name| name.known.addresses().len()).sum();
        // `None`, never, is less than any time.
        let longest = self.names().map(|name| name.last_success).min();
        let shown = u32::try_from(addresses).map_or(f64::MAX, f64::from);
        self.metrics.addresses.set(shown);
        self.metrics.succeeded(longest.flatten());
        Some(change)
    }

    /// Endpoints that have begun to leave close then; those that came back do not.
    fn note_leaving(&mut self, service: &Service, close_at: Instant) {
        let plan = service.plan();
        let Some(now) = plan.upstream(&self.settings.name) else {
            return;
        };
        let until = |endpoint: &Arc<Endpoint>| {
            let mut known = self.leaving.iter();
            let known = known.find(|(other, _)| Arc::ptr_eq(endpoint, other));
            known.map_or(close_at, |(_, until)| *until)
        };
        let leaving = now.leaving.iter().map(|at| (Arc::clone(at), until(at)));
        self.leaving = leaving.collect();
    }
}

impl Name {
    fn take(
        &mut self,
        result: Result<Vec<SocketAddr>, Unresolved>,
        keep: Duration,
    ) -> (Change, News) {
        match result {
            Ok(addresses) => {
                self.last_success = Some(clock::wall());
                self.last_failure = None;
                self.known.on_answer(&addresses, clock::now())
            }
            Err(why) => {
                self.last_failure = Some(why);
                self.known.on_failure(clock::now(), keep)
            }
        }
    }
}

fn servers(at: usize, upstream: &settings::Upstream) -> Vec<Server> {
    let servers = upstream.servers.iter().enumerate();
    let server = |(place, server): (usize, &settings::upstream::Server)| match &server.address {
        ServerAddress::Ip(address) => Server::Literal(*address),
        ServerAddress::Name { host, port } => Server::Name(Name {
            which: Which(at, place),
            host: host.clone(),
            port: port.get(),
            known: Known::default(),
            last_success: None,
            last_failure: None,
        }),
    };
    servers.map(server).collect()
}

/// Says what an operator should hear: turns, not every look-up.
fn tell(service: &Service, upstream: &str, name: &Name, (change, news): (&Change, News)) {
    let (serving, host) = (name.known.addresses().len(), &name.host);
    let why = || {
        name.last_failure
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let (severity, says) = match news {
        News::Fails if serving == 0 => {
            let says = format!(
                "cannot resolve {host}: {}; it has no endpoint until it does",
                why()
            );
            (Severity::Warn, says)
        }
        News::Fails => {
            let says = format!(
                "cannot resolve {host}: {}; the last good answer serves",
                why()
            );
            (Severity::Warn, says)
        }
        News::Expires => {
            let says = format!(
                "the last good answer for {host} is too old (dns.keep_last_good): {}",
                why()
            );
            (Severity::Error, says)
        }
        News::Recovers => (Severity::Info, format!("{host} resolves again")),
        News::Same if !change.is_none() && change.left_out > 0 => {
            let says = format!("{host} has more than the {ADDRESSES_MAX} addresses that are used");
            (Severity::Warn, says)
        }
        News::Same if !change.is_none() => (Severity::Info, format!("{host} has other addresses")),
        News::Same => return,
    };
    let facts: [(&str, &dyn std::fmt::Display); 5] = [
        ("upstream", &upstream),
        ("serving", &serving),
        ("added", &change.added.len()),
        ("removed", &change.removed.len()),
        ("left_out", &change.left_out),
    ];
    let errors = &service.errors;
    errors.log(clock::wall(), severity, "dns", &says, &facts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use crate::app::assemble::tests::settings;
    use crate::policy::balance::Rank;

    /// The plan has upstreams in the order of their names: `app` is the second.
    const SAID: [(&str, &str); 5] = [
        (
            "UPSTREAMS__APP__SERVERS",
            "[{ address = \"app.internal:80\", weight = 3, backup = true }, \"127.0.0.1:1\"]",
        ),
        ("UPSTREAMS__API__SERVERS", "[\"127.0.0.1:2\"]"),
        ("ROUTES__APP__UPSTREAM", "app"),
        ("ROUTES__API__UPSTREAM", "api"),
        ("ROUTES__API__PATH_PREFIX", "/api"),
    ];

    fn answered(ports: &[u16]) -> Result<Vec<SocketAddr>, Unresolved> {
        let at = |port: &u16| SocketAddr::from(([10, 0, 0, 1], *port));
        Ok(ports.iter().map(at).collect())
    }

    #[test]
    fn an_answer_touches_only_the_upstream_of_its_name_and_the_routes_to_it() {
        let service = assembled(&SAID).unwrap().service;
        let mut names = Names::new(&settings(&SAID), &service, 1);
        let before = service.plan();
        names.on_answer(Which(1, 0), answered(&[1, 2]), &service);
        let after = service.plan();
        assert!(Arc::ptr_eq(&before.table, &after.table));
        for (old, new) in before.routes.iter().zip(&after.routes) {
            let touched = old.upstream.settings.name.as_str() == "app";
            assert_eq!(!Arc::ptr_eq(old, new), touched);
            let own = after.upstream(&new.upstream.settings.name).unwrap();
            assert!(Arc::ptr_eq(own, &new.upstream));
        }
        assert_eq!(names.all().count(), 1);
    }

    #[test]
    fn each_address_of_a_name_has_the_weight_and_the_rank_of_its_server() {
        let service = assembled(&SAID).unwrap().service;
        let mut names = Names::new(&settings(&SAID), &service, 1);
        let literal = Arc::clone(&service.plan().upstreams[1].endpoints[0]);
        names.on_answer(Which(1, 0), answered(&[1, 2]), &service);
        let plan = service.plan();
        let of = plan.upstreams[1].candidates.iter();
        let of: Vec<_> = of.map(|at| (at.weight.get(), at.rank)).collect();
        let wanted = [(3, Rank::Backup), (3, Rank::Backup), (1, Rank::Primary)];
        assert_eq!(of, wanted);
        assert!(Arc::ptr_eq(&literal, &plan.upstreams[1].endpoints[2]));
    }

    #[test]
    fn a_worker_takes_the_new_plan_at_its_next_exchange() {
        let service = assembled(&SAID).unwrap().service;
        let mut names = Names::new(&settings(&SAID), &service, 1);
        let here = service.plan_here();
        names.on_answer(Which(1, 0), answered(&[1]), &service);
        assert_eq!(here.upstreams[1].endpoints.len(), 1);
        assert_eq!(service.plan_here().upstreams[1].endpoints.len(), 2);
    }
}
