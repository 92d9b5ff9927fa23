//! Whether a request that failed is sent again, and whether there is budget for it.
//!
//! The table of the behaviour contract (4.7.3) as one function. RFC 9110 §9.2.2 lets a gateway
//! repeat idempotent requests by itself, and others only when it knows that the origin did not
//! act on them; the latter is what a proof says. Absent on purpose: how a proof is had (`net`),
//! the octets to send again (`proxy`), and connections found dead before anything was sent on them:
//! that was no attempt (`proxy/checkout` takes another).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What failed, before any octet of an answer went to the client unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connect failed, was refused or timed out: nothing was sent.
    Connect,
    /// A reused connection ended before it answered.
    ReusedEnded(Proof),
    /// A new connection ended before it answered.
    FreshEnded,
    /// The answer's head did not come in time.
    HeaderTimeout,
    /// An answer came with this status code; its body was read, so that its connection survives.
    Status(RetryStatus),
    /// Anything, after the client was sent part of an answer.
    AfterAnswerBegan,
}

/// What is known of a request on a reused connection that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The origin's TCP had not taken an octet of it when the origin had already closed.
    Unsent,
    /// The origin may have acted on it.
    Unknown,
}

/// The status codes that may be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryStatus {
    /// 502.
    BadGateway,
    /// 503.
    Unavailable,
    /// 504.
    GatewayTimeout,
}

impl RetryStatus {
    /// Reads a status code. None: it is not one that may be listed.
    #[must_use]
    pub fn of(status: u16) -> Option<Self> {
        match status {
            502 => Some(Self::BadGateway),
            503 => Some(Self::Unavailable),
            504 => Some(Self::GatewayTimeout),
            _ => None,
        }
    }
}

/// Whether doing a request twice is as good as once (RFC 9110 §9.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodClass {
    /// GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    Idempotent,
    /// Any other, unknown ones included.
    Unsafe,
}

/// Whether the request can still be sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHeld {
    /// All that was read of it is still there.
    Replayable,
    /// It outgrew the replay buffer.
    Forgotten,
}

/// When requests that are not idempotent are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsafeMethods {
    /// Only when nothing was sent.
    Never,
    /// Also when it is proven that nothing arrived.
    Proven,
    /// Whenever an idempotent one would be.
    Always,
}

/// Whether a kind of failure is listed in `retry.on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It is.
    In,
    /// It is not.
    Out,
}

/// `retry.on`, one answer for each word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// `connect_failure`.
    pub connect_failure: Listed,
    /// `stale_connection`.
    pub stale_connection: Listed,
    /// `empty_response`.
    pub empty_response: Listed,
    /// `timeout`.
    pub timeout: Listed,
    /// `502`.
    pub bad_gateway: Listed,
    /// `503`.
    pub unavailable: Listed,
    /// `504`.
    pub gateway_timeout: Listed,
}

/// The settings of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Most attempts, the first one included.
    pub attempts: u32,
    /// Which failures are worth another attempt.
    pub on: RetryOn,
    /// When requests that are not idempotent are sent again.
    pub unsafe_methods: UnsafeMethods,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What failed.
    pub failure: Failure,
    /// Of which class the request is.
    pub method: MethodClass,
    /// Whether it can be sent again.
    pub request: RequestHeld,
    /// Attempts made, this one included.
    pub attempts: u32,
}

/// Where the next attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// A new connection, at the same endpoint or another.
    FreshConnection,
    /// Another endpoint if there is one, on a new connection.
    NextEndpoint,
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAgain {
    /// The client has part of an answer.
    AnswerBegan,
    /// The failure is not listed.
    NotListed,
    /// The origin may have acted on it, and once more would be twice.
    UnsafeMethod,
    /// It had its attempts.
    Attempts,
    /// It is too large to be kept.
    BodyNotBuffered,
    /// Too many requests are being repeated already.
    Budget,
}

/// Whether to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and there.
    Again(Course),
    /// No, and why.
    NotAgain(NotAgain),
}

/// Decides, and charges the budget if the answer is another attempt.
#[must_use]
pub fn decide(
    failed: &Failed,
    settings: &RetrySettings,
    budget: &Budget,
    now: Instant,
) -> Decision {
    match course(failed, settings) {
        Ok(course) => match budget.withdraw(now) {
            Charge::Paid => Decision::Again(course),
            Charge::Refused => Decision::NotAgain(NotAgain::Budget),
        },
        Err(why) => Decision::NotAgain(why),
    }
}

/// The table, before anybody pays: where another attempt would go.
///
/// # Errors
/// Why there is none.
pub fn course(failed: &Failed, settings: &RetrySettings) -> Result<Course, NotAgain> {
    let on = &settings.on;
    let (listed, course) = match failed.failure {
        Failure::AfterAnswerBegan => return Err(NotAgain::AnswerBegan),
        Failure::Connect => (on.connect_failure, Course::NextEndpoint),
        Failure::ReusedEnded(_) => (on.stale_connection, Course::FreshConnection),
        Failure::FreshEnded => (on.empty_response, Course::NextEndpoint),
        Failure::HeaderTimeout => (on.timeout, Course::NextEndpoint),
        Failure::Status(RetryStatus::BadGateway) => (on.bad_gateway, Course::NextEndpoint),
        Failure::Status(RetryStatus::Unavailable) => (on.unavailable, Course::NextEndpoint),
        Failure::Status(RetryStatus::GatewayTimeout) => (on.gateway_timeout, Course::NextEndpoint),
    };
    if listed == Listed::Out {
        return Err(NotAgain::NotListed);
    }
    // RFC 9110 §9.2.2: not unless it is idempotent, or known not to have been applied.
    if failed.method == MethodClass::Unsafe && !is_harmless(failed.failure, settings.unsafe_methods)
    {
        return Err(NotAgain::UnsafeMethod);
    }
    if failed.attempts >= settings.attempts {
        return Err(NotAgain::Attempts);
    }
    if failed.request == RequestHeld::Forgotten {
        return Err(NotAgain::BodyNotBuffered);
    }
    Ok(course)
}

/// Whether a request that is not idempotent may be sent again after this failure.
fn is_harmless(failure: Failure, unsafe_methods: UnsafeMethods) -> bool {
    match (failure, unsafe_methods) {
        (Failure::Connect, _) | (_, UnsafeMethods::Always) => true,
        (Failure::ReusedEnded(Proof::Unsent), UnsafeMethods::Proven) => true,
        (_, UnsafeMethods::Proven | UnsafeMethods::Never) => false,
    }
}

/// Whether the budget bore a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It did, and is the poorer for it.
    Paid,
    /// It did not.
    Refused,
}

/// The retry budget of one upstream: each request deposits `ratio` of a retry, each retry costs one,
/// and where requests deposit less than `per_second`, time makes up for it. So an origin in trouble
/// gets a fraction more load and not a multiple. Shared by all workers: a deposit is one addition,
/// and only a retry takes a lock and looks at time.
#[derive(Debug)]
pub struct Budget {
    /// Thousandths of a retry that each request deposits.
    ratio: i64,
    /// Retries a second that there are at any load.
    per_second: u32,
    since: Instant,
    /// Thousandths of a retry. Only who holds `settled` takes from it.
    balance: AtomicI64,
    settled: Mutex<Settled>,
}

/// How things stood when a retry was last asked for.
#[derive(Debug)]
struct Settled {
    /// When, in milliseconds after the budget's beginning.
    at: u64,
    /// The balance then.
    balance: i64,
    /// By how much requests had deposited more than time is worth, up to a second's worth: a deposit
    /// comes in one piece and counts for the moments around it.
    ahead: i64,
}

impl Budget {
    /// A budget with one second's worth in it. `ratio` is between 0 and 1.
    #[must_use]
    pub fn new(ratio: f64, per_second: u32, now: Instant) -> Self {
        let balance = i64::from(per_second) * RETRY;
        Self {
            // A float cast saturates, and the clamp keeps it within 0 to 1000.
            ratio: (ratio.clamp(0.0, 1.0) * RETRY as f64).round() as i64,
            per_second,
            since: now,
            balance: AtomicI64::new(balance),
            settled: Mutex::new(Settled {
                at: 0,
                balance,
                ahead: 0,
            }),
        }
    }

    /// Whether it grows as the other does.
    #[must_use]
    pub fn has_terms_of(&self, other: &Self) -> bool {
        (self.ratio, self.per_second) == (other.ratio, other.per_second)
    }

    /// A request begins.
    pub fn on_request(&self) {
        // Workers that read at once may overshoot the reserve by a deposit each; no matter.
        if self.balance.load(Ordering::Relaxed) < RESERVE {
            self.balance.fetch_add(self.ratio, Ordering::Relaxed);
        }
    }

    /// Takes one retry out, if there is one.
    pub fn withdraw(&self, now: Instant) -> Charge {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = self.balance.load(Ordering::Relaxed);
        let deposited = balance.saturating_sub(settled.balance);
        let ahead = settled.ahead + deposited - self.earned(&mut settled, now);
        settled.ahead = ahead.clamp(0, self.second());
        // A second's worth at most: the floor is a rate, not savings.
        let by_time = (-ahead).clamp(0, self.second());
        let most = RESERVE.max(self.second());
        let grown = balance.saturating_add(by_time).min(most.max(balance));
        let (charge, left) = match grown >= RETRY {
            true => (Charge::Paid, grown - RETRY),
            false => (Charge::Refused, grown),
        };
        settled.balance = left;
        // Added, and not stored: deposits go on meanwhile.
        self.balance.fetch_add(left - balance, Ordering::Relaxed);
        charge
    }

    /// What the time since a retry was last asked for is worth.
    fn earned(&self, settled: &mut Settled, now: Instant) -> i64 {
        let millis = now.saturating_duration_since(self.since).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(settled.at);
        let elapsed = millis - std::mem::replace(&mut settled.at, millis);
        // A millisecond at one retry a second is worth a thousandth.
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX).min(ELAPSED_MAX);
        elapsed * i64::from(self.per_second)
    }

    /// What a second is worth.
    fn second(&self) -> i64 {
        i64::from(self.per_second) * RETRY
    }
}

/// One retry, in thousandths.
const RETRY: i64 = 1000;

/// Milliseconds after which no more is earned: some way beyond what can be ahead, and far from
/// where a product would overflow.
const ELAPSED_MAX: i64 = 10_000;

/// Most that requests can save up: 100 retries. Enough for the idle connections of a pool that
/// all went stale at once; little enough that an origin which fails after a long calm is not
/// flooded. Beyond it deposits are dropped.
const RESERVE: i64 = 100 * RETRY;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::start;
    use std::time::Duration;

    const ALL: RetryOn = RetryOn {
        connect_failure: Listed::In,
        stale_connection: Listed::In,
        empty_response: Listed::In,
        timeout: Listed::In,
        bad_gateway: Listed::In,
        unavailable: Listed::In,
        gateway_timeout: Listed::In,
    };

    const NONE: RetryOn = RetryOn {
        connect_failure: Listed::Out,
        stale_connection: Listed::Out,
        empty_response: Listed::Out,
        timeout: Listed::Out,
        bad_gateway: Listed::Out,
        unavailable: Listed::Out,
        gateway_timeout: Listed::Out,
    };

    /// What no origin acted on, and what is the price of reuse.
    const DEFAULT: RetryOn = RetryOn {
        connect_failure: Listed::In,
        stale_connection: Listed::In,
        ..NONE
    };

    fn settings(on: RetryOn, unsafe_methods: UnsafeMethods) -> RetrySettings {
        RetrySettings {
            attempts: 2,
            on,
            unsafe_methods,
        }
    }

    fn tell(failure: Failure, method: MethodClass, settings: &RetrySettings) -> Decision {
        let failed = Failed {
            failure,
            method,
            request: RequestHeld::Replayable,
            attempts: 1,
        };
        decide(&failed, settings, &Budget::new(0.0, 1, start()), start())
    }

    const FRESH: Decision = Decision::Again(Course::FreshConnection);
    const NEXT: Decision = Decision::Again(Course::NextEndpoint);
    const UNSAFE: Decision = Decision::NotAgain(NotAgain::UnsafeMethod);
    const UNLISTED: Decision = Decision::NotAgain(NotAgain::NotListed);
    const BEGAN: Decision = Decision::NotAgain(NotAgain::AnswerBegan);

    #[test]
    fn the_table_holds_cell_by_cell() {
        use Failure::*;
        let unsent = ReusedEnded(Proof::Unsent);
        let unknown = ReusedEnded(Proof::Unknown);
        let status = Status(RetryStatus::Unavailable);
        // failure, nothing listed, idempotent, then unsafe with never, proven, always.
        let table = [
            (Connect, UNLISTED, NEXT, [NEXT, NEXT, NEXT]),
            (unsent, UNLISTED, FRESH, [UNSAFE, FRESH, FRESH]),
            (unknown, UNLISTED, FRESH, [UNSAFE, UNSAFE, FRESH]),
            (FreshEnded, UNLISTED, NEXT, [UNSAFE, UNSAFE, NEXT]),
            (HeaderTimeout, UNLISTED, NEXT, [UNSAFE, UNSAFE, NEXT]),
            (status, UNLISTED, NEXT, [UNSAFE, UNSAFE, NEXT]),
            (AfterAnswerBegan, BEGAN, BEGAN, [BEGAN, BEGAN, BEGAN]),
        ];
        let choices = [
            UnsafeMethods::Never,
            UnsafeMethods::Proven,
            UnsafeMethods::Always,
        ];
        for (failure, unlisted, idempotent, unsafe_answers) in table {
            for (choice, answer) in choices.into_iter().zip(unsafe_answers) {
                let all = settings(ALL, choice);
                assert_eq!(
                    tell(failure, MethodClass::Idempotent, &all),
                    idempotent,
                    "{failure:?}"
                );
                let told = tell(failure, MethodClass::Unsafe, &all);
                assert_eq!(told, answer, "{failure:?} with {choice:?}");
                for method in [MethodClass::Idempotent, MethodClass::Unsafe] {
                    assert_eq!(tell(failure, method, &settings(NONE, choice)), unlisted);
                }
            }
        }
    }

    #[test]
    fn by_default_only_failed_connects_and_stale_connections_are_repeated() {
        let default = settings(DEFAULT, UnsafeMethods::Proven);
        let told = |failure| tell(failure, MethodClass::Idempotent, &default);
        assert_eq!(told(Failure::Connect), NEXT);
        assert_eq!(told(Failure::ReusedEnded(Proof::Unknown)), FRESH);
        assert_eq!(told(Failure::FreshEnded), UNLISTED);
        assert_eq!(told(Failure::HeaderTimeout), UNLISTED);
        for status in [502, 503, 504] {
            assert_eq!(
                told(Failure::Status(RetryStatus::of(status).unwrap())),
                UNLISTED
            );
        }
        assert_eq!(RetryStatus::of(500), None);
    }

    #[test]
    fn a_post_is_not_sent_twice_once_the_origin_may_have_seen_it() {
        let proven = settings(ALL, UnsafeMethods::Proven);
        assert_eq!(
            tell(
                Failure::ReusedEnded(Proof::Unknown),
                MethodClass::Unsafe,
                &proven
            ),
            UNSAFE
        );
    }

    #[test]
    fn attempts_then_the_body_then_the_budget_have_the_last_word() {
        let settings = settings(ALL, UnsafeMethods::Never);
        let budget = Budget::new(0.0, 0, start());
        let mut failed = Failed {
            failure: Failure::Connect,
            method: MethodClass::Idempotent,
            request: RequestHeld::Forgotten,
            attempts: 2,
        };
        let told = |failed: &Failed| decide(failed, &settings, &budget, start());
        assert_eq!(told(&failed), Decision::NotAgain(NotAgain::Attempts));
        failed.attempts = 1;
        assert_eq!(told(&failed), Decision::NotAgain(NotAgain::BodyNotBuffered));
        failed.request = RequestHeld::Replayable;
        assert_eq!(told(&failed), Decision::NotAgain(NotAgain::Budget));
    }

    fn withdrawals(budget: &Budget, now: Instant) -> usize {
        (0..1000)
            .take_while(|_| budget.withdraw(now) == Charge::Paid)
            .count()
    }

    #[test]
    fn five_requests_at_a_fifth_pay_for_one_retry() {
        let budget = Budget::new(0.2, 0, start());
        (0..14).for_each(|_| budget.on_request());
        assert_eq!(withdrawals(&budget, start()), 2);
    }

    #[test]
    fn the_floor_is_a_rate_and_not_savings() {
        let now = start();
        let budget = Budget::new(0.0, 3, now);
        assert_eq!(withdrawals(&budget, now), 3);
        assert_eq!(withdrawals(&budget, now + Duration::from_millis(700)), 2);
        assert_eq!(withdrawals(&budget, now + Duration::from_secs(3600)), 3);
    }

    #[test]
    fn the_floor_is_for_those_who_ask_little_and_comes_on_top_of_nothing() {
        let now = start();
        let budget = Budget::new(0.2, 3, now);
        let asked_for = |requests: u32, from: u64| {
            let each = |at: u32| {
                budget.on_request();
                let millis = from + 1000 * u64::from(at) / u64::from(requests);
                withdrawals(&budget, now + Duration::from_millis(millis))
            };
            (0..requests).map(each).sum::<usize>()
        };
        let first = asked_for(1000, 0);
        assert_eq!(first, 3 + 200, "what it begins with, and a fifth");
        assert_eq!(asked_for(1000, 1000), 200, "a fifth");
        assert_eq!(asked_for(5, 3200), 3, "the floor");
    }

    #[test]
    fn requests_save_up_at_most_the_reserve() {
        let budget = Budget::new(1.0, 0, start());
        (0..5000).for_each(|_| budget.on_request());
        assert_eq!(withdrawals(&budget, start()), 100);
    }
}
