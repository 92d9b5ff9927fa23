//! After a failed attempt: what becomes of its connection, and whether there is another.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::h1::framing::Framing;
use crate::h1::persistence::Persistence;
use crate::net::clock;
use crate::net::stream::Fault;
use crate::observe::words::RetryDenied;
use crate::observe::words::RetryReason;
use crate::observe::words::RetryResult;
use crate::observe::words::StaleFound;
use crate::observe::words::StaleResult;
use crate::observe::words::TruncatedFraming;
use crate::policy::health::Symptom;
use crate::policy::retry;
use crate::policy::retry::Course;
use crate::policy::retry::Decision;
use crate::policy::retry::Failed;
use crate::policy::retry::Failure;
use crate::policy::retry::NotAgain;
use crate::policy::retry::Proof;
use crate::policy::retry::RequestHeld;
use crate::policy::retry::RetryStatus;
use crate::pool::Verdict;
use crate::proxy::answer::Answer;
use crate::proxy::answer::AnswerKind;
use crate::proxy::answer::Ended;
use crate::proxy::answer::NoAnswer;
use crate::proxy::attempt;
use crate::proxy::attempt::ClientFailed;
use crate::proxy::desk::Desk;
use crate::proxy::discard;
use crate::proxy::exchange;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::LastAnswer;
use crate::proxy::exchange::Outcomes;
use crate::proxy::held::Worth;
use crate::proxy::lent::Lent;
use crate::proxy::lent::Wear;
use crate::proxy::progress::Begun;
use crate::proxy::progress::Upload;
use crate::proxy::relay::Stuck;
use crate::proxy::service::Route;
use crate::proxy::upstream::Upstream;
use std::sync::Arc;

impl Exchange<'_> {
    /// Retires or saves the connection of a failed attempt, and says what follows.
    pub(super) async fn after_failure(
        &mut self,
        desk: &mut Desk,
        route: &Arc<Route>,
        (lent, wear): (Lent, Wear),
        (broken, upload): (Broken, Upload),
    ) -> Next {
        let upstream = &route.upstream;
        match broken {
            Broken::Refused(error) => {
                desk.record.note_kept(lent.give_back(Verdict::Reusable));
                Next::Stop(Outcomes::ClientFailed(error, CloseReason::FramingError))
            }
            Broken::Client(failed, begun) => {
                let retires = Verdict::Retire(CloseReason::ClientUnfinished);
                desk.record.note_kept(lent.give_back(retires));
                let (error, reason) = match failed {
                    ClientFailed::Gone(reason) => {
                        return Next::Stop(Outcomes::ClientGone(reason));
                    }
                    ClientFailed::Slow => (ProxyError::RequestTimeout, CloseReason::BodyTimeout),
                    ClientFailed::TooLarge => (ProxyError::BodyTooLarge, CloseReason::BodyTooLarge),
                    ClientFailed::Malformed(error) => (error, CloseReason::FramingError),
                };
                Next::Stop(match begun {
                    Begun::No | Begun::Interim => Outcomes::ClientFailed(error, reason),
                    Begun::Yes => Outcomes::BrokeOff(error),
                })
            }
            Broken::Ended(ended, proof, begun) => {
                desk.record
                    .note_kept(lent.give_back(Verdict::Retire(ended.reason())));
                self.after_end(upstream, (ended, wear, upload), (proof, begun))
            }
            Broken::Origin(no_answer, begun) => {
                self.after_bad_answer(desk, upstream, lent, (no_answer, begun, upload))
                    .await
            }
        }
    }

    /// The connection ended before it answered.
    fn after_end(
        &self,
        upstream: &Upstream,
        (ended, wear, upload): (Ended, Wear, Upload),
        (proof, begun): (Proof, Begun),
    ) -> Next {
        let failure = match (begun, wear) {
            (Begun::Yes | Begun::Interim, _) => Failure::AfterAnswerBegan,
            (Begun::No, Wear::Reused) => Failure::ReusedEnded(proof),
            (Begun::No, Wear::Fresh) => Failure::FreshEnded,
        };
        let decision = self.decide(upstream, failure);
        let told = match (wear, begun, ended) {
            (Wear::Reused, Begun::No | Begun::Interim, _) => {
                let found = match upload {
                    Upload::Refused => StaleFound::Write,
                    Upload::Flowing | Upload::Whole(_) | Upload::Behind => StaleFound::Read,
                };
                let result = match decision {
                    Decision::Again(_) => StaleResult::Retried,
                    Decision::NotAgain(_) => StaleResult::Failed,
                };
                upstream.metrics.stale.of(found, result).inc();
                let why = match proof {
                    Proof::Unsent => RetryReason::Unsent,
                    Proof::Unknown => RetryReason::Stale,
                };
                (why, ProxyError::StaleConnection)
            }
            (_, _, Ended::Fin) => (RetryReason::Empty, ProxyError::EmptyResponse),
            (_, _, Ended::Reset | Ended::Silence) => {
                (RetryReason::Reset, ProxyError::UpstreamReset)
            }
        };
        next(decision, told, begun)
    }

    async fn after_bad_answer(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        lent: Lent,
        (no_answer, begun, upload): (NoAnswer, Begun, Upload),
    ) -> Next {
        let record = &mut desk.record;
        let mut retire =
            |lent: Lent, reason| record.note_kept(lent.give_back(Verdict::Retire(reason)));
        match no_answer {
            NoAnswer::Ended(_) => Next::Stop(Outcomes::Failed(ProxyError::Internal)),
            NoAnswer::TimedOut => {
                retire(lent, CloseReason::Timeout);
                let failure = match begun {
                    Begun::No => Failure::HeaderTimeout,
                    Begun::Interim | Begun::Yes => Failure::AfterAnswerBegan,
                };
                let decision = self.decide(upstream, failure);
                next(
                    decision,
                    (RetryReason::Timeout, ProxyError::ResponseTimeout),
                    begun,
                )
            }
            NoAnswer::Unwanted(answer) => {
                self.after_unwanted(desk, upstream, lent, (*answer, upload))
            }
            NoAnswer::UnwantedBrokeOff {
                status,
                framing,
                stuck,
            } => {
                let BrokeOff::ByOrigin(reason, error) = broke_off(&stuck, framing, upstream) else {
                    retire(lent, CloseReason::ClientGone);
                    return Next::Stop(Outcomes::ClientGone(self.client.gone_reason()));
                };
                retire(lent, reason);
                let decision = self.decide_on_status(upstream, status);
                next(decision, (RetryReason::Status, error), begun)
            }
            NoAnswer::ClientGone => {
                retire(lent, CloseReason::ClientGone);
                Next::Stop(Outcomes::ClientGone(self.client.gone_reason()))
            }
            NoAnswer::ClientStalled => {
                retire(lent, CloseReason::ClientGone);
                Next::Stop(Outcomes::ClientStalled)
            }
            NoAnswer::HeadTooLarge
            | NoAnswer::Malformed(_)
            | NoAnswer::Unwritable
            | NoAnswer::HeadCutShort(_) => {
                let (reason, error) = bad_head(&no_answer);
                retire(lent, reason);
                Next::Stop(broke(begun, error))
            }
            NoAnswer::BrokeOff {
                status,
                framing,
                stuck,
                content,
                origin,
            } => {
                desk.record.status = Some(status);
                desk.record.bytes_out = content;
                let rest = Rest {
                    framing,
                    origin,
                    upload,
                };
                self.after_broken_body(desk, upstream, lent, (rest, stuck, content))
            }
        }
    }

    /// A listed answer came whole: its connection lives on, and it is kept in case all fails.
    fn after_unwanted(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        lent: Lent,
        (answer, upload): (Answer, Upload),
    ) -> Next {
        exchange::settle(desk, lent, (&answer, upload), upstream.settings.reuse);
        let decision = self.decide_on_status(upstream, answer.status);
        let last = Box::new(LastAnswer {
            answer,
            upload,
            octets: std::mem::take(&mut desk.out),
            origin: desk.record.origin.clone(),
        });
        match decision {
            Decision::Again(course) => {
                self.last = Some(last);
                Next::Again(RetryReason::Status, course)
            }
            Decision::NotAgain(_) => Next::Stop(Outcomes::Held(last)),
        }
    }

    fn decide_on_status(&self, upstream: &Upstream, status: u16) -> Decision {
        match RetryStatus::of(status) {
            Some(status) => self.decide(upstream, Failure::Status(status)),
            None => Decision::NotAgain(NotAgain::NotListed),
        }
    }

    fn after_broken_body(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        lent: Lent,
        (rest, stuck, content): (Rest, Stuck, u64),
    ) -> Next {
        Next::Stop(match broke_off(&stuck, rest.framing, upstream) {
            BrokeOff::ByOrigin(reason, error) => {
                let retires = Verdict::Retire(reason);
                desk.record.note_kept(lent.give_back(retires));
                Outcomes::BrokeOff(error)
            }
            BrokeOff::ClientStalled => {
                let retires = Verdict::Retire(CloseReason::ClientGone);
                desk.record.note_kept(lent.give_back(retires));
                Outcomes::ClientStalled
            }
            BrokeOff::ClientReset => {
                save(desk, upstream, lent, (rest, content));
                Outcomes::ClientGone(CloseReason::PeerRst)
            }
            BrokeOff::ClientLeft => {
                save(desk, upstream, lent, (rest, content));
                Outcomes::ClientGone(self.client.gone_reason())
            }
        })
    }

    pub(super) fn decide(&self, upstream: &Upstream, failure: Failure) -> Decision {
        let content = &self.content;
        let nothing_sent = self.judged.framing == Framing::None || content.reader.received() == 0;
        let request = match content.replay.holds() || nothing_sent {
            true => RequestHeld::Replayable,
            false => RequestHeld::Forgotten,
        };
        // A connect that failed sent nothing, so it is none of the attempts that `retry.attempts`
        // counts; what bounds it is that each endpoint is dialled once.
        let attempts = self.sent.max(1);
        let failed = Failed {
            failure,
            method: self.method,
            request,
            attempts,
        };
        decision(&failed, upstream)
    }

    pub(super) fn count_retry(
        &self,
        upstream: &Upstream,
        again: Option<(RetryReason, Course)>,
        result: RetryResult,
    ) {
        if let Some((why, _)) = again {
            upstream.metrics.retries.of(why, result).inc();
        }
    }
}

/// What went wrong in an attempt.
pub(super) enum Broken {
    /// The request cannot be passed on.
    Refused(ProxyError),
    /// The client's side failed.
    Client(ClientFailed, Begun),
    /// The origin's connection ended before it answered.
    Ended(Ended, Proof, Begun),
    /// The origin's answer is none.
    Origin(NoAnswer, Begun),
}

/// What a failed attempt says of its endpoint's health: nothing where the client failed, or we, or a
/// reused connection was closed by the origin just as the request was sent, as it may (RFC 9112 §9.3).
pub(super) fn symptom(broken: &Broken, wear: Wear) -> Option<Symptom> {
    match broken {
        Broken::Refused(_) | Broken::Client(..) => None,
        Broken::Ended(_, _, Begun::No) if wear == Wear::Reused => None,
        Broken::Ended(..) => Some(Symptom::NoAnswer),
        Broken::Origin(no_answer, _) => match no_answer {
            NoAnswer::TimedOut => Some(Symptom::Late),
            NoAnswer::Unwanted(answer) => Symptom::of_status(answer.status),
            NoAnswer::UnwantedBrokeOff { status, stuck, .. } => {
                Symptom::of_status(*status).or_else(|| symptom_of(stuck))
            }
            NoAnswer::Malformed(_) | NoAnswer::HeadTooLarge => Some(Symptom::Illegible),
            NoAnswer::HeadCutShort(_) => Some(Symptom::CutShort),
            NoAnswer::BrokeOff { stuck, .. } => symptom_of(stuck),
            NoAnswer::Ended(_)
            | NoAnswer::ClientGone
            | NoAnswer::ClientStalled
            | NoAnswer::Unwritable => None,
        },
    }
}

/// The same of an answer that broke off.
fn symptom_of(stuck: &Stuck) -> Option<Symptom> {
    match stuck {
        Stuck::SenderFin | Stuck::SenderBroke(_) | Stuck::SenderSlow => Some(Symptom::CutShort),
        Stuck::Malformed(_) | Stuck::TooLarge => Some(Symptom::Illegible),
        Stuck::Misfit | Stuck::Recipient(_) | Stuck::RecipientGone => None,
    }
}

/// What follows a failed attempt.
pub(super) enum Next {
    /// Nothing: this is how it ends.
    Stop(Outcomes),
    /// Another attempt, why and where.
    Again(RetryReason, Course),
}

fn next(decision: Decision, (why, error): (RetryReason, ProxyError), begun: Begun) -> Next {
    match decision {
        Decision::Again(course) => Next::Again(why, course),
        Decision::NotAgain(_) => Next::Stop(broke(begun, error)),
    }
}

/// What a head that is none is called.
fn bad_head(no_answer: &NoAnswer) -> (CloseReason, ProxyError) {
    match no_answer {
        NoAnswer::HeadTooLarge => (CloseReason::BadResponse, ProxyError::ResponseHeadTooLarge),
        NoAnswer::HeadCutShort(ended) => (ended.reason(), ProxyError::Truncated),
        _ => (CloseReason::BadResponse, ProxyError::BadResponse),
    }
}

fn broke(begun: Begun, error: ProxyError) -> Outcomes {
    match begun {
        Begun::No | Begun::Interim => Outcomes::Failed(error),
        Begun::Yes => Outcomes::BrokeOff(error),
    }
}

/// Whose doing it is that an answer broke off.
enum BrokeOff {
    /// The origin's, or ours.
    ByOrigin(CloseReason, ProxyError),
    /// The client's, which took nothing for too long.
    ClientStalled,
    /// The client's, which reset.
    ClientReset,
    /// The client's, which left while the origin was waited for.
    ClientLeft,
}

/// Tells why an answer broke off; one that was cut short is counted.
fn broke_off(stuck: &Stuck, framing: Framing, upstream: &Upstream) -> BrokeOff {
    match stuck {
        Stuck::SenderFin | Stuck::SenderBroke(_) => {
            count_truncated(framing, upstream);
            BrokeOff::ByOrigin(CloseReason::Truncated, ProxyError::Truncated)
        }
        // It has stopped short of what its framing says, and who asked gets no more of it.
        Stuck::SenderSlow => {
            count_truncated(framing, upstream);
            BrokeOff::ByOrigin(CloseReason::Timeout, ProxyError::BodyIdle)
        }
        Stuck::Malformed(_) | Stuck::TooLarge => {
            BrokeOff::ByOrigin(CloseReason::BadResponse, ProxyError::BadResponse)
        }
        Stuck::Misfit => BrokeOff::ByOrigin(CloseReason::Ours, ProxyError::Internal),
        Stuck::Recipient(Fault::TimedOut) => BrokeOff::ClientStalled,
        Stuck::Recipient(_) => BrokeOff::ClientReset,
        Stuck::RecipientGone => BrokeOff::ClientLeft,
    }
}

fn count_truncated(framing: Framing, upstream: &Upstream) {
    let word = match framing {
        Framing::Chunked => TruncatedFraming::Chunked,
        Framing::None | Framing::Length(_) | Framing::UntilClose => TruncatedFraming::Length,
    };
    upstream.metrics.truncated.of(word).inc();
}

/// Whether a failed request is sent again; what denies it is counted.
fn decision(failed: &Failed, upstream: &Upstream) -> Decision {
    let settings = &upstream.settings.retry;
    let decision = retry::decide(failed, settings, &upstream.budget, clock::now());
    if let Decision::NotAgain(why) = decision {
        count_denied(upstream, why);
    }
    decision
}

/// Whether an answer is held for another attempt, as the table has it: the budget is asked when it
/// came whole. What denies it is counted.
pub(super) fn worth(failed: &Failed, upstream: &Upstream) -> Worth {
    match retry::course(failed, &upstream.settings.retry) {
        Ok(_) => Worth::AnotherTry,
        Err(why) => {
            count_denied(upstream, why);
            Worth::PassingOn
        }
    }
}

fn count_denied(upstream: &Upstream, why: NotAgain) {
    let word = match why {
        NotAgain::Budget => RetryDenied::Budget,
        NotAgain::UnsafeMethod => RetryDenied::UnsafeMethod,
        NotAgain::BodyNotBuffered => RetryDenied::BodyNotBuffered,
        NotAgain::Attempts => RetryDenied::Attempts,
        NotAgain::AnswerBegan | NotAgain::NotListed => return,
    };
    upstream.metrics.retries_denied.of(word).inc();
}

/// What is left of an answer, and what the verdict on its connection must know.
#[derive(Clone, Copy)]
struct Rest {
    framing: Framing,
    origin: Persistence,
    upload: Upload,
}

/// Reads on what is left of an answer whose client left, if it is little, so that the connection
/// is saved (`abort_drain_bytes`). Runs by itself.
fn save(desk: &mut Desk, upstream: &Upstream, lent: Lent, (rest, read): (Rest, u64)) {
    match rest.framing {
        Framing::Length(length)
            if length.saturating_sub(read) <= upstream.settings.abort_drain_bytes =>
        {
            let framing = Framing::Length(length.saturating_sub(read));
            discard_aside(desk, upstream, lent, Rest { framing, ..rest });
        }
        // How much is left is too much, or not known: where in a chunk we are is not kept.
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
            let retires = Verdict::Retire(CloseReason::ClientGone);
            desk.record.note_kept(lent.give_back(retires));
        }
    }
}

/// Reads and drops the rest of an answer in a task of its own; the connection is kept if that is
/// no more than `abort_drain_bytes` and nothing else speaks against it.
fn discard_aside(desk: &mut Desk, upstream: &Upstream, lent: Lent, rest: Rest) {
    // An origin that is still owed a part of the request would read the next one as that part.
    let Upload::Whole(_) = rest.upload else {
        let retires = Verdict::Retire(CloseReason::ClientUnfinished);
        return desk.record.note_kept(lent.give_back(retires));
    };
    let mut input = std::mem::take(&mut desk.origin_in);
    let settings = Arc::clone(&upstream.settings);
    crate::net::worker::spawn(async move {
        let (most, idle) = (settings.abort_drain_bytes, settings.body_idle);
        let discarded = match lent.stream() {
            Some(stream) => discard::discard(stream, &mut input, rest.framing, most, idle).await,
            None => Err(Stuck::SenderFin),
        };
        let kind = match rest.framing {
            Framing::UntilClose => AnswerKind::UntilClose,
            Framing::None | Framing::Length(_) | Framing::Chunked => AnswerKind::Complete,
        };
        let said = (input.unread(), attempt::wire(lent.stream()));
        let limits = (settings.reuse, lent.allowance());
        let verdict = match discarded {
            Ok(()) => attempt::verdict_after((rest.origin, kind), rest.upload, said, limits),
            Err(_) => Verdict::Retire(CloseReason::UnreadBody),
        };
        lent.give_back(verdict);
    });
}
