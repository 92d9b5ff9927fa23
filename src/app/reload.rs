//! Another configuration in the place of this one: checked as a whole first, then applied whole.
//!
//! Whatever can fail is done before anything changes: reading and checking, what routes encode,
//! sockets. After that nothing can, and it happens in one go on the control plane's thread: plans
//! and listeners are swapped, and workers see them at their next exchange. What is the same stays:
//! sockets, endpoints with their pools, tunnels, who was limited. Absent on purpose: when to do it
//! (`run`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use futures::channel::mpsc::UnboundedSender;
use futures::future::join_all;
use serde_json::Value;

use crate::app::assemble;
use crate::app::assemble::Means;
use crate::app::assemble::Placed;
use crate::app::budget;
use crate::app::checks::Checked;
use crate::app::config_view;
use crate::app::names::Names;
use crate::app::ports;
use crate::app::refresh;
use crate::app::refresh::Renewed;
use crate::app::resolve;
use crate::app::resolve::Resolver;
use crate::app::sockets::Sockets;
use crate::app::workers;
use crate::config;
use crate::config::Loaded;
use crate::config::Settings;
use crate::config::Sources;
use crate::config::raw::Raw;
use crate::config::raw::Table;
use crate::config::watch::Alike;
use crate::config::watch::Seen;
use crate::net::clock;
use crate::observe::error_log::Severity;
use crate::observe::words::ReloadResult;
use crate::proxy::service::Service;

/// The configuration in effect, and what changes it.
pub struct Reloader {
    sources: Sources,
    loaded: Loaded,
    service: Arc<Service>,
    names: refresh::Shared,
    checked: Arc<Checked>,
    /// Where the sockets are; the drain and a hand-over need them too.
    pub sockets: Sockets,
    listeners: Vec<Placed>,
    workers: usize,
    resolver: Resolver,
    renewed: UnboundedSender<Renewed>,
    /// What `/config` shows.
    shown: Arc<Mutex<Value>>,
    seen: Seen,
    changing: Option<Seen>,
    warms: Warms,
}

/// Whether somebody keeps idle connections ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Warms {
    Somebody,
    Nobody,
}

/// What the reloader is made of, besides what it was loaded from.
pub struct Parts {
    /// The service.
    pub service: Arc<Service>,
    /// The names of its servers.
    pub names: refresh::Shared,
    /// Its sockets.
    pub sockets: Sockets,
    /// Its listeners.
    pub listeners: Vec<Placed>,
    /// Its worker threads.
    pub workers: usize,
    /// What is checked of them.
    pub checked: Arc<Checked>,
    /// Its files when they were read.
    pub seen: Seen,
    /// Who is told that the names are others.
    pub renewed: UnboundedSender<Renewed>,
}

/// A configuration that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Keys that have changed and act only after a restart.
    pub need_a_restart: Vec<String>,
}

impl Reloader {
    /// With this configuration in effect.
    #[must_use]
    pub fn new(sources: Sources, loaded: Loaded, parts: Parts) -> Self {
        let metrics = &parts.service.metrics;
        metrics.reloads.in_effect_since(clock::wall());
        let warms = match parts.service.keeps_warm() {
            true => Warms::Somebody,
            false => Warms::Nobody,
        };
        Self {
            seen: parts.seen,
            changing: None,
            shown: Arc::new(Mutex::new(config_view::show(&loaded.tree))),
            sources,
            loaded,
            service: parts.service,
            names: parts.names,
            checked: parts.checked,
            sockets: parts.sockets,
            listeners: parts.listeners,
            workers: parts.workers,
            resolver: resolve::system(),
            renewed: parts.renewed,
            warms,
        }
    }

    /// What `/config` shows, whatever is in effect.
    pub fn shown(&self) -> impl Fn() -> Value + Send + Sync + use<> {
        let shown = Arc::clone(&self.shown);
        move || shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the files have changed since they were last read, and have come to rest: nobody
    /// writes a file at once.
    pub fn look(&mut self) -> Alike {
        if !self.loaded.settings.server.watch_config {
            return Alike::Same;
        }
        let now = Seen::look(self.sources.file.as_deref(), &self.seen);
        if now.reads_like(&self.seen) == Alike::Same {
            self.seen = now;
            self.changing = None;
            return Alike::Same;
        }
        if self.changing.as_ref() == Some(&now) {
            return Alike::Different;
        }
        self.changing = Some(now);
        Alike::Same
    }

    /// Reads the configuration again and applies it, or says why not; the log and the metrics hear
    /// of it either way. Cancel: nothing has changed.
    ///
    /// # Errors
    /// Every complaint, one a line.
    pub async fn reload(&mut self) -> Result<Applied, String> {
        let before = Seen::look(self.sources.file.as_deref(), &Seen::default());
        let result = self.read_and_apply().await;
        let result = result.map_err(|complaints| complaints.trim_end().to_owned());
        self.seen = before;
        self.changing = None;
        self.tell(&result);
        result
    }

    async fn read_and_apply(&mut self) -> Result<Applied, String> {
        let loaded = config::load(&self.sources).map_err(|all| all.to_string())?;
        let prepared = assemble::prepare(&loaded.settings)?;
        let mut names = Names::new(&loaded.settings, &self.service, self.workers);
        self.look_up_the_new(&mut names).await;
        // From here on nothing is awaited: no other plan comes between.
        let listeners = self.placed(&loaded.settings);
        let fresh = self.sockets.bind(&listeners)?;
        // Who sees the new plan's number looks for its listener's successor: it must be there.
        self.succeed_listeners(&loaded.settings, &listeners);
        self.replan(&loaded.settings, prepared, names);
        let posts = self.sockets.take(fresh, &listeners);
        workers::add(posts, &self.service);
        self.listeners = listeners;
        self.apply_the_rest(&loaded.settings);
        let need_a_restart = need_a_restart(&self.loaded.tree, &loaded.tree);
        let shown = config_view::show(&loaded.tree);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.loaded = loaded;
        Ok(Applied { need_a_restart })
    }

    /// What has never been asked for is looked up before it serves, within `dns.timeout`.
    async fn look_up_the_new(&self, names: &mut Names) {
        let unknown: Vec<_> = {
            let known = refresh::lock(&self.names);
            let is_known = |new: &crate::app::names::Name| {
                let mut old = known.all();
                old.any(|old| old.host == new.host && old.port == new.port)
            };
            names
                .all()
                .filter(|name| !is_known(name))
                .cloned()
                .collect()
        };
        let dns = names.dns.clone();
        let each = unknown.iter().map(|name| async {
            let looking = (self.resolver)(&name.host, name.port);
            let (result, _late) = resolve::answer(looking, &dns).await;
            (name.which, result)
        });
        for (which, result) in join_all(each).await {
            names.hear(which, result, &self.service);
        }
    }

    fn placed(&self, settings: &Settings) -> Vec<Placed> {
        let each = settings.listeners.iter().map(|listener| {
            let known = self
                .listeners
                .iter()
                .find(|known| known.name == listener.name);
            let door = known.map_or_else(
                || {
                    let metrics = self.service.metrics.listener(&listener.name);
                    assemble::listener::door(listener, metrics)
                },
                |known| Arc::clone(&known.door),
            );
            assemble::placed(listener, door)
        });
        each.collect()
    }

    fn replan(&self, settings: &Settings, prepared: assemble::Prepared, mut names: Names) {
        let service = &self.service;
        let old = service.plan();
        let mut known = refresh::lock(&self.names);
        names.remember(&mut known);
        let addresses = names.addresses();
        service.revise_plan(|now| {
            let means = Means {
                metrics: &service.metrics,
                live: &service.live,
                errors: &service.errors,
                sampled: service.tcp_info_interval,
            };
            let found = (&*addresses, self.workers);
            let old = Some((&self.loaded.settings, now));
            assemble::plan(settings, found, prepared, means, old)
        });
        let grace = names.note_replaced(&old, service);
        *known = names;
        drop(known);
        for (at, addresses) in settings.upstreams.iter().zip(&addresses) {
            let plan = service.plan();
            if let Some(upstream) = plan.upstream(&at.name)
                && !self.loaded.settings.upstreams.contains(at)
            {
                let shapes = assemble::upstream::endpoints(at, addresses, self.workers);
                upstream.apply(&shapes);
                ports::warn_of(upstream, service);
            }
        }
        // The control plane looks names up as long as the process lives.
        self.renewed.unbounded_send(Renewed { grace }).ok();
    }

    fn succeed_listeners(&self, settings: &Settings, listeners: &[Placed]) {
        for (settings, placed) in settings.listeners.iter().zip(listeners) {
            if !self.loaded.settings.listeners.contains(settings) {
                assemble::listener::succeed(&placed.door, settings);
            }
        }
    }

    fn apply_the_rest(&mut self, settings: &Settings) {
        let service = &self.service;
        let most = settings.server.max_connections;
        service.max_connections.store(most, Ordering::Relaxed);
        let budget = budget::of_service(settings, service, self.workers);
        service.shed.provide(&budget.descriptors);
        service
            .draining
            .set(assemble::drain::settings(&settings.drain));
        self.checked.set(settings);
        if self.warms == Warms::Nobody && service.keeps_warm() {
            self.warms = Warms::Somebody;
            workers::begin_to_warm(service);
        }
    }

    fn tell(&self, result: &Result<Applied, String>) {
        let (metrics, errors) = (&self.service.metrics.reloads, &self.service.errors);
        let now = clock::wall();
        match result {
            Ok(applied) => {
                metrics.total.of(ReloadResult::Applied).inc();
                metrics.in_effect_since(now);
                let restart = applied.need_a_restart.join(", ");
                let says = "the configuration was read again and is in effect";
                let facts: [(&str, &dyn std::fmt::Display); 1] = [("need_a_restart", &restart)];
                errors.log(now, Severity::Info, "reloaded", says, &facts);
            }
            Err(complaints) => {
                metrics.total.of(ReloadResult::Refused).inc();
                let complaints = complaints.replace('\n', " | ");
                let says = "the configuration was read again and refused; the one before stays";
                let facts: [(&str, &dyn std::fmt::Display); 1] = [("complaints", &complaints)];
                errors.log(now, Severity::Error, "reload_refused", says, &facts);
            }
        }
    }
}

/// Keys of tables that act from the start of the process only, and differ.
fn need_a_restart(old: &Table, new: &Table) -> Vec<String> {
    let mut keys = BTreeSet::new();
    for table in FROM_THE_START {
        let of = |tree: &Table| tree.get(table).and_then(|node| node.table().cloned());
        let (old, new) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
        for key in old.keys().chain(new.keys()) {
            let value = |table: &Table| table.get(key).map(|node| plain(&node.value));
            let acts = ACT_AT_ONCE.contains(&(table, key.as_str()));
            if !acts && value(&old) != value(&new) {
                keys.insert(format!("{table}.{key}"));
            }
        }
    }
    keys.into_iter().collect()
}

/// A value without where it was said.
fn plain(value: &Raw) -> String {
    value.as_toml()
}

/// Tables of the process as a whole.
const FROM_THE_START: [&str; 4] = ["server", "admin", "metrics", "log"];

/// What of them acts at once all the same.
const ACT_AT_ONCE: [(&str, &str); 3] = [
    ("server", "max_connections"),
    ("server", "fd_reserve"),
    ("server", "watch_config"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(said: &[(&str, &str)]) -> Table {
        let base = [
            ("LISTENERS__WEB__BIND", "127.0.0.1:0"),
            ("UPSTREAMS__APP__SERVERS", "[\"127.0.0.1:1\"]"),
        ];
        let variables = base.iter().chain(said);
        let variables =
            variables.map(|(key, value)| (format!("HOLDFAST_{key}"), (*value).to_owned()));
        let sources = Sources {
            variables: variables.collect(),
            ..Sources::default()
        };
        config::load(&sources).unwrap().tree
    }

    #[test]
    fn keys_that_act_from_the_start_only_are_named_and_no_others() {
        let old = tree(&[]);
        let new = tree(&[
            ("SERVER__WORKERS", "3"),
            ("SERVER__MAX_CONNECTIONS", "7"),
            ("ADMIN__BIND", "127.0.0.1:0"),
            ("LOG__LEVEL", "warn"),
            ("DRAIN__TIMEOUT", "1s"),
            ("LISTENERS__WEB__IDLE_TIMEOUT", "1s"),
        ]);
        let wanted = ["admin.bind", "log.level", "server.workers"];
        assert_eq!(need_a_restart(&old, &new), wanted);
        assert!(need_a_restart(&old, &old).is_empty());
    }
}
