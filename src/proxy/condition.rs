//! An endpoint's health as the workers share it: what each request asks is a word or two to read.
//!
//! The machine (`policy/health`) is behind a lock that only changes take: an answer from an endpoint
//! that is well, which is nearly every answer, reads one flag. Changes of one upstream's endpoints
//! are told, and their number bounded, by its [`Ward`]. Absent on purpose: what follows from a
//! change for the endpoint's connections (`heed`).

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::base::names::Name;
use crate::base::units::show_duration;
use crate::net::clock;
use crate::observe::ErrorLog;
use crate::observe::GaugeGuard;
use crate::observe::error_log::Severity;
use crate::policy::balance::Load;
use crate::policy::balance::Unfit;
use crate::policy::balance::Usable;
use crate::policy::balance::ewma::Ewma;
use crate::policy::health;
use crate::policy::health::Change;
use crate::policy::health::Check;
use crate::policy::health::Ejection;
use crate::policy::health::Health;
use crate::policy::health::HealthSettings;
use crate::policy::health::Room;
use crate::policy::health::Standing;
use crate::policy::health::Symptom;

/// What an upstream's endpoints share: how many of them are out, and who is told.
pub struct Ward {
    name: Name,
    settings: Mutex<HealthSettings>,
    errors: Arc<ErrorLog>,
    beds: Mutex<Beds>,
}

/// How many endpoints there are, and how many of them are ejected.
#[derive(Clone, Copy, Debug, Default)]
struct Beds {
    endpoints: u32,
    ejected: u32,
}

/// The health of one endpoint, for every worker.
pub struct Condition {
    ward: Arc<Ward>,
    /// Which endpoint, for the log.
    name: String,
    state: Mutex<Health>,
    /// Whether an answer may change something; else no lock is taken for it.
    stirred: AtomicBool,
    gate: AtomicU64,
    /// In milliseconds of the process; 0: it is not held.
    held_until: AtomicU64,
    /// Whether it is one of those that its ward counts as ejected. Written under the ward's lock.
    counted: AtomicBool,
    /// Requests under way that began on trial.
    trials: AtomicU32,
    /// How long its answers take.
    pub ewma: Ewma,
    /// What it is counted as among the endpoints of its upstream.
    pub(super) shown: Mutex<Shown>,
}

/// The gauges that an endpoint holds up by its standing.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) state: Option<GaugeGuard>,
    pub(super) up: Option<GaugeGuard>,
}

/// What the balancer reads: the standing in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// Until this millisecond.
    Shut(u64),
    /// One at a time.
    Ajar,
    /// A growing share since this millisecond.
    Opening(u64),
}

impl Gate {
    const NEVER: u64 = (1 << 62) - 1;

    fn pack(self) -> u64 {
        match self {
            Self::Open => 0,
            Self::Shut(until) => (1 << 62) | until.min(Self::NEVER),
            Self::Ajar => 2 << 62,
            Self::Opening(since) => (3 << 62) | since.min(Self::NEVER),
        }
    }

    fn unpack(bits: u64) -> Self {
        let millis = bits & Self::NEVER;
        match bits >> 62 {
            0 => Self::Open,
            1 => Self::Shut(millis),
            2 => Self::Ajar,
            _ => Self::Opening(millis),
        }
    }
}

impl Ward {
    /// A ward without endpoints yet.
    #[must_use]
    pub fn new(name: Name, settings: HealthSettings, errors: Arc<ErrorLog>) -> Arc<Self> {
        Arc::new(Self {
            name,
            settings: Mutex::new(settings),
            errors,
            beds: Mutex::default(),
        })
    }

    /// Other settings from now on, for those that join; [`Condition::hold_to_ward`] gives them to
    /// one that is there.
    pub fn set(&self, settings: HealthSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> HealthSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are its endpoints from now on; those that leave count no more.
    pub fn revise<'a>(
        &self,
        staying: impl Iterator<Item = &'a Condition>,
        leaving: impl Iterator<Item = &'a Condition>,
    ) {
        let mut beds = self.beds();
        *beds = Beds::default();
        for condition in staying {
            let out = condition.is_ejected();
            condition.counted.store(out, Ordering::Relaxed);
            beds.endpoints += 1;
            beds.ejected += u32::from(out);
        }
        for condition in leaving {
            condition.counted.store(false, Ordering::Relaxed);
        }
    }

    fn beds(&self) -> MutexGuard<'_, Beds> {
        self.beds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, condition: &Condition) -> Room {
        let mut beds = self.beds();
        let ratio = self.settings().max_eject_ratio;
        let room = Room::beside(beds.ejected, beds.endpoints, ratio);
        if room == Room::Free {
            beds.ejected += 1;
            condition.counted.store(true, Ordering::Relaxed);
        }
        room
    }

    fn leave(&self, condition: &Condition) {
        let mut beds = self.beds();
        if condition.counted.swap(false, Ordering::Relaxed) {
            beds.ejected = beds.ejected.saturating_sub(1);
        }
    }
}

impl Condition {
    /// An endpoint of that ward, there from the start or `joined` now.
    #[must_use]
    pub fn new(ward: &Arc<Ward>, name: String, joined: Option<Instant>) -> Self {
        let condition = Self {
            state: Mutex::new(Health::new(ward.settings(), joined)),
            ward: Arc::clone(ward),
            name,
            stirred: AtomicBool::new(false),
            gate: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            trials: AtomicU32::new(0),
            ewma: Ewma::default(),
            shown: Mutex::default(),
        };
        condition.mirror(&condition.lock());
        condition
    }

    /// The settings of its ward are others: it is judged by them from now on.
    pub fn hold_to_ward(&self) {
        let settings = self.ward.settings();
        self.change(|health, now| health.on_settings(settings, now));
    }

    /// Whether it can take a request now, with this load.
    #[must_use]
    pub fn look(&self, load: Load) -> Usable {
        let gate = self.gate.load(Ordering::Relaxed);
        // Nearly always: well, and not held.
        if gate == 0 && self.held_until.load(Ordering::Relaxed) == 0 {
            return Usable::Fit(load);
        }
        let now = clock::now_millis();
        match Gate::unpack(gate) {
            Gate::Open if self.is_held_at(now) => Usable::Unfit(Unfit::Held),
            Gate::Open => Usable::Fit(load),
            Gate::Shut(until) if now < until => Usable::Unfit(Unfit::Ejected),
            Gate::Ajar if self.trials.load(Ordering::Relaxed) > 0 => Usable::Unfit(Unfit::Ejected),
            Gate::Ajar => Usable::Fit(load),
            Gate::Shut(_) => {
                self.on_time();
                Usable::Unfit(Unfit::Ejected) // and on trial at the next look
            }
            Gate::Opening(_) if self.is_held_at(now) => Usable::Unfit(Unfit::Held),
            Gate::Opening(since) => {
                let slow_start = self.ward.settings().slow_start.unwrap_or_default();
                let warming = Duration::from_millis(now.saturating_sub(since));
                if warming >= slow_start {
                    self.on_time();
                }
                Usable::Warming(load, health::warm_share(warming, slow_start))
            }
        }
    }

    /// Whether it may be connected to.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        !self.is_held_at(clock::now_millis()) && !self.is_ejected()
    }

    /// Whether it is out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        let gate = Gate::unpack(self.gate.load(Ordering::Relaxed));
        matches!(gate, Gate::Shut(_))
    }

    /// A request begins; answers whether it is one on trial, which must be told when it is over.
    #[must_use]
    pub fn begin(&self) -> Trial {
        match Gate::unpack(self.gate.load(Ordering::Relaxed)) {
            Gate::Ajar => {
                self.trials.fetch_add(1, Ordering::Relaxed);
                Trial::Begun
            }
            Gate::Open | Gate::Shut(_) | Gate::Opening(_) => Trial::None,
        }
    }

    /// A request that began on trial is over.
    pub fn end(&self, trial: &Trial) {
        if *trial == Trial::Begun {
            self.trials.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How it stands, failures in a row, and until when it is held.
    #[must_use]
    pub fn standing(&self) -> (Standing, u32, Option<Instant>) {
        self.on_time();
        let health = self.lock();
        (health.standing(), health.row(), health.held_until())
    }

    /// A connect succeeded.
    pub fn on_connected(&self) {
        if self.held_until.load(Ordering::Relaxed) != 0 {
            let mut health = self.lock();
            health.on_connected();
            self.mirror(&health);
        }
    }

    pub(super) fn on_answer(&self) {
        if self.stirred.load(Ordering::Relaxed) {
            self.change(|health, now| health.on_answer(now));
        }
    }

    pub(super) fn on_symptom(&self, symptom: Symptom) -> Option<Change> {
        self.change(|health, now| health.on_symptom(symptom, now, || self.ward.take(self)))
    }

    pub(super) fn on_check(&self, check: Check) -> Option<Change> {
        self.change(|health, now| health.on_check(check, now, || self.ward.take(self)))
    }

    fn on_time(&self) {
        self.change(Health::on_time);
    }

    fn is_held_at(&self, now: u64) -> bool {
        match self.held_until.load(Ordering::Relaxed) {
            0 => false,
            until => now < until,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, of: impl FnOnce(&mut Health, Instant) -> Option<Change>) -> Option<Change> {
        let change = {
            let mut health = self.lock();
            let change = of(&mut health, clock::now());
            self.mirror(&health);
            change
        };
        if change == Some(Change::OnTrial) {
            self.ward.leave(self);
        }
        self.tell(change?);
        change
    }

    fn mirror(&self, health: &Health) {
        let millis = |at: Instant| clock::micros(at) / 1000;
        let gate = match health.standing() {
            Standing::Well => Gate::Open,
            Standing::Ejected(_) => Gate::Shut(health.next_deadline().map_or(Gate::NEVER, millis)),
            Standing::OnTrial(_) => Gate::Ajar,
            Standing::Warming { since } => Gate::Opening(millis(since)),
        };
        self.gate.store(gate.pack(), Ordering::Relaxed);
        self.stirred.store(!health.is_quiet(), Ordering::Relaxed);
        let held = health.held_until().map_or(0, millis);
        self.held_until.store(held, Ordering::Relaxed);
    }

    fn tell(&self, change: Change) {
        let (severity, event, says) = match change {
            Change::Ejected(ejection) => (Severity::Warn, "endpoint_ejected", ejected(&ejection)),
            Change::Spared(symptom) => {
                let why = "ejecting it would leave too few (health.max_eject_ratio)";
                let says = format!("{}, and stays in use: {why}", symptom.says());
                (Severity::Warn, "endpoint_not_ejected", says)
            }
            Change::Returned => {
                let says = "it answered and is in use again".to_owned();
                (Severity::Info, "endpoint_returned", says)
            }
            // What comes of it is told.
            Change::OnTrial => return,
        };
        let facts: [(&str, &dyn std::fmt::Display); 2] =
            [("upstream", &self.ward.name), ("endpoint", &self.name)];
        self.ward
            .errors
            .log(clock::wall(), severity, event, &says, &facts);
    }
}

/// Whether a request began on trial.
#[derive(Debug, PartialEq, Eq)]
pub enum Trial {
    /// It did.
    Begun,
    /// It did not.
    None,
}

/// An ejection in words: how long, and why.
#[must_use]
pub fn ejected(ejection: &Ejection) -> String {
    let lasts = match ejection.until {
        Some(until) => {
            let lasts = until.saturating_duration_since(ejection.since);
            format!("for {}", show_duration(lasts))
        }
        None => "until checks pass".to_owned(),
    };
    let (row, last) = (ejection.row, ejection.symptom.says());
    format!("it gets no requests {lasts}, after {row} failures in a row: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_reads_back_as_it_was_written() {
        for gate in [
            Gate::Open,
            Gate::Shut(12_345),
            Gate::Shut(Gate::NEVER),
            Gate::Ajar,
            Gate::Opening(7),
        ] {
            assert_eq!(Gate::unpack(gate.pack()), gate);
        }
    }

    fn ward(endpoints: usize) -> (Arc<Ward>, Vec<Condition>) {
        let settings = HealthSettings {
            failures: Some(1),
            eject: Duration::from_secs(3600),
            max_eject_ratio: 0.5,
            slow_start: None,
            checks: None,
        };
        let line = crate::observe::line::Style::Json;
        let quiet = ErrorLog::to(Box::new(std::io::sink()), Severity::Error, line);
        let ward = Ward::new(Name::parse("app").unwrap(), settings, quiet);
        let condition = |at| Condition::new(&ward, format!("10.0.0.{at}:80"), None);
        let conditions: Vec<_> = (0..endpoints).map(condition).collect();
        ward.revise(conditions.iter(), [].iter());
        (ward, conditions)
    }

    #[test]
    fn an_ejected_endpoint_that_leaves_makes_room_for_another() {
        let (ward, conditions) = ward(4);
        let out = |at: usize| {
            conditions[at].on_symptom(Symptom::NoAnswer);
            conditions[at].is_ejected()
        };
        assert_eq!([out(0), out(1), out(2)], [true, true, false]);
        ward.revise(conditions[1..].iter(), conditions[..1].iter());
        assert!(!out(2), "one of three is out");
        ward.revise(conditions[2..].iter(), conditions[..2].iter());
        assert!(out(2), "none of two was");
        ward.leave(&conditions[0]);
        assert!(!out(3), "who has left takes nobody's place along");
    }

    #[test]
    fn an_ejected_endpoint_is_unfit_and_one_that_is_held_is_to_be_had_at_need() {
        let (_ward, conditions) = ward(2);
        assert_eq!(conditions[0].look(Load(3)), Usable::Fit(Load(3)));
        conditions[0].on_symptom(Symptom::Late);
        let unfit = conditions[0].look(Load(0));
        assert_eq!(unfit, Usable::Unfit(Unfit::Ejected));
        conditions[1].on_symptom(Symptom::NoConnect);
        assert_eq!(conditions[1].look(Load(0)), Usable::Unfit(Unfit::Held));
        assert!(!conditions[1].may_connect() && !conditions[1].is_ejected());
        conditions[1].on_connected();
        assert!(conditions[1].may_connect());
    }
}
