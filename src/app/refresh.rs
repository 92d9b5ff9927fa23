//! Names looked up again and again, in the background: a request never waits for a resolver.
//!
//! One task of the control plane, with at most one look-up a name under way. It ends with the
//! process. Absent on purpose: what follows from an answer (`names`).

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use futures::future::Either;
use futures::future::LocalBoxFuture;
use futures::future::select;
use futures::stream::FuturesUnordered;

use crate::app::names::Name;
use crate::app::names::Names;
use crate::app::names::Then;
use crate::app::names::Which;
use crate::app::resolve;
use crate::app::resolve::LookingUp;
use crate::app::resolve::Resolver;
use crate::app::resolve::Unresolved;
use crate::net::control;
use crate::proxy::service::Service;

/// The names, for whoever keeps them and whoever shows them.
pub type Shared = Arc<Mutex<Names>>;

/// Who looks names up.
pub struct Refresh {
    names: Shared,
    service: Arc<Service>,
    resolver: Resolver,
    coming: FuturesUnordered<LocalBoxFuture<'static, Event>>,
}

/// What comes after some time.
enum Event {
    /// It is time to look a name up. A look-up that was late goes on.
    Due(Which, Option<LookingUp>),
    /// A look-up has ended, or its time is over.
    Answered(Answered),
    /// An endpoint's grace is over.
    Grace,
}

/// The names are others, and endpoints may have begun to leave.
#[derive(Clone, Copy, Debug)]
pub struct Renewed {
    /// For how long they are kept.
    pub grace: Duration,
}

struct Answered {
    which: Which,
    result: Result<Vec<SocketAddr>, Unresolved>,
    late: Option<LookingUp>,
}

/// The names behind their lock.
pub fn lock(names: &Shared) -> MutexGuard<'_, Names> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Refresh {
    /// Looks every name up once, all at the same time and within `dns.timeout`, so that what
    /// resolves is there before the first request. What does not is no reason not to start.
    pub async fn begin(names: &Shared, service: &Arc<Service>, resolver: Resolver) -> Self {
        let mut refresh = Self {
            names: Arc::clone(names),
            service: Arc::clone(service),
            resolver,
            coming: FuturesUnordered::new(),
        };
        let all: Vec<_> = lock(names).all().map(|name| name.which).collect();
        let mut first: FuturesUnordered<_> = all
            .into_iter()
            .filter_map(|which| refresh.look_up(which, None))
            .collect();
        while let Some(event) = first.next().await {
            refresh.on_event(event);
        }
        refresh
    }

    /// Goes on for ever, with the names as they are.
    #[cfg(test)]
    pub async fn run(self) {
        self.run_with(futures::channel::mpsc::unbounded().1).await;
    }

    /// Goes on for ever; whenever something comes from `renewed`, the names are others.
    pub async fn run_with(mut self, mut renewed: UnboundedReceiver<Renewed>) {
        loop {
            let coming = async {
                match self.coming.next().await {
                    Some(event) => event,
                    None => pending().await, // there are no names
                }
            };
            let news = async {
                match renewed.next().await {
                    Some(renewed) => renewed,
                    None => pending().await, // nobody will renew them
                }
            };
            let heard = match select(pin!(coming), pin!(news)).await {
                Either::Left((event, _)) => Either::Left(event),
                Either::Right((renewed, _)) => Either::Right(renewed),
            };
            match heard {
                Either::Left(event) => self.on_event(event),
                Either::Right(renewed) => self.begin_anew(renewed),
            }
        }
    }

    /// What was under way was for names that may be no more; those there are have been heard of.
    fn begin_anew(&mut self, renewed: Renewed) {
        self.coming = FuturesUnordered::new();
        // Whose grace was being waited for: the next look is a whole grace away.
        lock(&self.names).close_the_gone(&self.service);
        let names = lock(&self.names);
        let interval = names.dns.refresh_interval;
        let wait = |name: &Name| match name.last_failure {
            None => interval,
            Some(_) => interval.min(AGAIN_AFTER_FAILURE),
        };
        let all: Vec<_> = names.all().map(|name| (name.which, wait(name))).collect();
        drop(names);
        for (which, wait) in all {
            self.after(wait, Event::Due(which, None));
        }
        self.after(renewed.grace + GRACE_OVER, Event::Grace);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Due(which, late) => {
                if let Some(looking) = self.look_up(which, late) {
                    self.coming.push(looking);
                }
            }
            Event::Answered(Answered {
                which,
                result,
                late,
            }) => {
                let wait = self.wait_after(&result);
                let then = lock(&self.names).on_answer(which, result, &self.service);
                self.after(wait, Event::Due(which, late));
                match then {
                    Then::Nothing => {}
                    Then::CloseAfter(grace) => self.after(grace + GRACE_OVER, Event::Grace),
                }
            }
            Event::Grace => lock(&self.names).close_the_gone(&self.service),
        }
    }

    /// A failure is looked at again soon: the interval may be an hour, and a name that has no
    /// address costs requests.
    fn wait_after(&self, result: &Result<Vec<SocketAddr>, Unresolved>) -> Duration {
        let interval = lock(&self.names).dns.refresh_interval;
        match result {
            Ok(_) => interval,
            Err(_) => interval.min(AGAIN_AFTER_FAILURE),
        }
    }

    fn after(&self, wait: Duration, event: Event) {
        let later = async move {
            control::sleep(wait).await;
            event
        };
        self.coming.push(Box::pin(later));
    }

    fn look_up(
        &self,
        which: Which,
        late: Option<LookingUp>,
    ) -> Option<LocalBoxFuture<'static, Event>> {
        let names = lock(&self.names);
        let name = names.all().find(|name| name.which == which)?;
        let looking = late.unwrap_or_else(|| (self.resolver)(&name.host, name.port));
        let dns = names.dns.clone();
        Some(Box::pin(async move {
            let (result, late) = resolve::answer(looking, &dns).await;
            Event::Answered(Answered {
                which,
                result,
                late,
            })
        }))
    }
}

/// Until a failed look-up is tried again: as long as resolvers themselves wait for a server
/// (`RES_TIMEOUT`), so that an outage costs a resolver no more than its clients do anyway.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A timer that rings a moment early must not find the grace still running.
const GRACE_OVER: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use crate::app::assemble::tests::settings;
    use crate::base::ProxyError;
    use crate::proxy::endpoint::Endpoint;
    use crate::proxy::upstream::Upstream;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    /// What a resolver does when it is asked.
    #[derive(Clone)]
    enum Does {
        Gives(Vec<SocketAddr>),
        Fails,
        Hangs,
    }

    /// One name over a resolver that plays a script; its last act is repeated.
    struct Scene {
        names: Shared,
        service: Arc<Service>,
        asked: Rc<RefCell<usize>>,
    }

    fn gives(ports: std::ops::Range<u16>) -> Does {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        Does::Gives(ports.map(at).collect())
    }

    fn scene() -> Scene {
        let said = [("UPSTREAMS__APP__SERVERS", "[\"app.internal:80\"]")];
        let service = assembled(&said).unwrap().service;
        let mut names = Names::new(&settings(&said), &service, 1);
        names.dns.refresh_interval = Duration::from_millis(20);
        names.dns.timeout = Duration::from_millis(10);
        names.dns.removal_grace = Duration::from_secs(3600);
        Scene {
            names: Arc::new(Mutex::new(names)),
            service,
            asked: Rc::default(),
        }
    }

    impl Scene {
        fn resolver(&self, script: Vec<Does>) -> Resolver {
            let asked = Rc::clone(&self.asked);
            Box::new(move |_, _| {
                let act = (*asked.borrow()).min(script.len() - 1);
                *asked.borrow_mut() += 1;
                let act = script[act].clone();
                Box::pin(async move {
                    match act {
                        Does::Gives(addresses) => Ok(addresses),
                        Does::Fails => Err(io::Error::other("no such host")),
                        Does::Hangs => pending().await,
                    }
                })
            })
        }

        /// Plays the script for a while, and answers what the first act led to.
        fn play(&self, script: Vec<Does>) -> Arc<Upstream> {
            control::run(async {
                let resolver = self.resolver(script);
                let refresh = Refresh::begin(&self.names, &self.service, resolver).await;
                let first = self.upstream();
                control::within(WHILE, refresh.run()).await;
                first
            })
        }

        fn upstream(&self) -> Arc<Upstream> {
            Arc::clone(&self.service.plan().routes[0].upstream)
        }

        fn metric(&self, series: &str) -> String {
            let text = self.service.metrics.expose();
            let line = text.lines().find_map(|line| line.strip_prefix(series));
            line.unwrap_or("nothing").trim().to_owned()
        }
    }

    fn ports(endpoints: &[Arc<Endpoint>]) -> Vec<u16> {
        endpoints.iter().map(|at| at.address.port()).collect()
    }

    /// Several refreshes of 20 ms, on a machine that is busy with other tests.
    const WHILE: Duration = Duration::from_millis(400);

    #[test]
    fn a_name_that_does_not_resolve_at_start_serves_as_soon_as_it_does() {
        let scene = scene();
        let first = scene.play(vec![Does::Fails, gives(1..3)]);
        assert_eq!(first.none_left(), ProxyError::Dns);
        assert_eq!(ports(&scene.upstream().endpoints), [1, 2]);
        assert_eq!(scene.upstream().none_left(), ProxyError::NoEndpoint);
        assert_eq!(
            scene.metric("holdfast_dns_addresses{upstream=\"app\"}"),
            "2"
        );
    }

    #[test]
    fn a_failing_resolver_takes_no_endpoint_away() {
        let scene = scene();
        let first = scene.play(vec![gives(1..3), Does::Fails, Does::Hangs]);
        let now = scene.upstream();
        assert!(Arc::ptr_eq(&first, &now), "a failure makes no new plan");
        let failures = "holdfast_dns_refresh_total{upstream=\"app\",result=\"failure\"}";
        assert_eq!(scene.metric(failures), "1");
    }

    #[test]
    fn a_last_good_answer_that_is_too_old_serves_no_longer() {
        let scene = scene();
        lock(&scene.names).dns.keep_last_good = Duration::ZERO;
        scene.play(vec![gives(1..3), Does::Fails]);
        let now = scene.upstream();
        assert_eq!((ports(&now.endpoints), now.leaving.len()), (vec![], 2));
        assert_eq!(now.none_left(), ProxyError::Dns);
    }

    #[test]
    fn a_resolver_that_hangs_is_asked_once_and_counted_each_time() {
        let scene = scene();
        scene.play(vec![Does::Hangs]);
        assert_eq!(*scene.asked.borrow(), 1);
        let late = "holdfast_dns_refresh_total{upstream=\"app\",result=\"timeout\"}";
        assert!(scene.metric(late).parse::<u32>().unwrap() > 1);
    }

    #[test]
    fn of_five_hundred_addresses_sixty_four_are_endpoints() {
        let scene = scene();
        scene.play(vec![gives(1..501), gives(101..501)]);
        let now = scene.upstream();
        assert_eq!(now.endpoints.len(), 64);
        assert_eq!(now.endpoints[0].address.port(), 101);
    }

    #[test]
    fn an_address_that_comes_back_within_the_grace_keeps_its_endpoint() {
        let scene = scene();
        let first = scene.play(vec![gives(1..3), gives(2..3), gives(1..3)]);
        let now = scene.upstream();
        assert_eq!((ports(&now.endpoints), now.leaving.len()), (vec![2, 1], 0));
        assert!(Arc::ptr_eq(&first.endpoints[0], &now.endpoints[1]));
        assert!(Arc::ptr_eq(&first.budget, &now.budget));
    }

    #[test]
    fn an_address_that_is_gone_leaves_and_is_closed_after_the_grace() {
        let scene = scene();
        let first = scene.play(vec![gives(1..3), gives(2..3)]);
        assert_eq!(ports(&scene.upstream().leaving), [1]);
        lock(&scene.names).dns.removal_grace = Duration::from_millis(10);
        scene.play(vec![gives(3..4)]);
        assert_eq!(ports(&scene.upstream().endpoints), [3]);
        assert_eq!(
            ports(&scene.upstream().leaving),
            [1],
            "its grace is an hour"
        );
        assert!(first.endpoints[1].pool.is_closed() && !first.endpoints[0].pool.is_closed());
    }

    #[test]
    fn an_endpoint_that_went_takes_its_series_along() {
        let scene = scene();
        lock(&scene.names).dns.removal_grace = Duration::ZERO;
        scene.play(vec![gives(1..2), gives(2..3)]);
        let text = scene.service.metrics.expose();
        assert!(text.contains("endpoint=\"10.0.0.1:2\""));
        assert!(!text.contains("endpoint=\"10.0.0.1:1\""));
    }
}
