//! One exchange, top to bottom: the only file with the whole story.
//!
//! ```text
//! judge the head ─► route ─► attempts ─► the rest of the answer ─► what next
//!                             │ pick an endpoint, take a connection,
//!                             │ send the request, pass the answer on,
//!                             │ give the connection back
//!                             └ on failure: policy/retry says whether once more
//! ```
//! Whatever ends the exchange early has a name and becomes an answer of our own, or, where the
//! client has part of an answer already, an abort that it can see.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::h1::framing::Framing;
use crate::h1::head::Version;
use crate::h1::persistence::Persistence;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::dial::DialError;
use crate::net::sys;
use crate::observe::record::End;
use crate::observe::record::Kept;
use crate::observe::record::OriginRecord;
use crate::observe::words::QueueReject;
use crate::observe::words::RetryDenied;
use crate::observe::words::RetryReason;
use crate::observe::words::RetryResult;
use crate::observe::words::StaleFound;
use crate::observe::words::StaleResult;
use crate::observe::words::TruncatedFraming;
use crate::policy::balance::Dice;
use crate::policy::balance::Tried;
use crate::policy::retry;
use crate::policy::retry::Course;
use crate::policy::retry::Decision;
use crate::policy::retry::Failed;
use crate::policy::retry::Failure;
use crate::policy::retry::MethodClass;
use crate::policy::retry::NotAgain;
use crate::policy::retry::Proof;
use crate::policy::retry::RequestHeld;
use crate::policy::retry::RetryStatus;
use crate::pool::Verdict;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Queueing;
use crate::proxy::account;
use crate::proxy::attempt;
use crate::proxy::attempt::Attempt;
use crate::proxy::attempt::ClientFailed;
use crate::proxy::attempt::Content;
use crate::proxy::attempt::Unanswered;
use crate::proxy::checkout::Acquired;
use crate::proxy::checkout::Inspect;
use crate::proxy::checkout::Lent;
use crate::proxy::checkout::NotAcquired;
use crate::proxy::checkout::Want;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::desk::Desk;
use crate::proxy::judge;
use crate::proxy::judge::Judged;
use crate::proxy::origin;
use crate::proxy::origin::Answer;
use crate::proxy::origin::AnswerKind;
use crate::proxy::origin::Begun;
use crate::proxy::origin::Ended;
use crate::proxy::origin::NoAnswer;
use crate::proxy::origin::Progress;
use crate::proxy::origin::Upload;
use crate::proxy::origin::Wanted;
use crate::proxy::relay;
use crate::proxy::relay::Stuck;
use crate::proxy::reply;
use crate::proxy::reply::Afterwards;
use crate::proxy::service::Route;
use crate::proxy::settings::Reuse;
use crate::proxy::tunnel;
use crate::proxy::upstream::Endpoint;
use crate::proxy::upstream::InFlight;
use crate::proxy::upstream::Upstream;

/// What follows an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next one, on the same connection.
    Next,
    /// The end of the connection.
    End(Ending),
}

/// Serves the request whose head was read whole and is held in the desk's input.
pub async fn serve(client: &mut Client, desk: &mut Desk, began: Instant) -> After {
    account::note_head(&mut desk.record, &desk.request, desk.input.held());
    let (octets, unread) = desk.input.split();
    let mut judged = match judge::judge(client, &desk.request, octets, unread) {
        Ok(judged) => judged,
        Err(error) => return refuse(client, desk, (began, None), error).await,
    };
    let plan = client.service.plan_here();
    let path = desk.request.target.path(octets);
    let found = plan.table.find(desk.request.host(octets), path);
    let Some(route) = found.and_then(|at| plan.routes.get(at)) else {
        return Exchange::new(client, None, judged, began)
            .fail(desk, ProxyError::NoRoute)
            .await;
    };
    judged.asked.upgrade = judge::upgrade(&desk.request, octets, &route.settings);
    desk.record.route = Some(route.settings.name.clone());
    let _in_flight = route.metrics.in_flight.hold();
    route.upstream.budget.on_request();
    let mut exchange = Exchange::new(client, Some(route), judged, began);
    match route.upstream.settings.request {
        None => exchange.run(desk).await,
        Some(limit) => exchange.run_within(desk, limit).await,
    }
}

/// Refuses a request whose head is wrong: nothing that follows it can be trusted.
pub async fn refuse(
    client: &mut Client,
    desk: &mut Desk,
    (began, route): (Instant, Option<&Route>),
    error: ProxyError,
) -> After {
    let reason = match error {
        ProxyError::HeadTooLarge | ProxyError::UriTooLong => CloseReason::HeadTooLarge,
        ProxyError::BodyTooLarge => CloseReason::BodyTooLarge,
        ProxyError::RequestTimeout => CloseReason::HeaderTimeout,
        ProxyError::ClientLimit => CloseReason::ClientLimit,
        _ => CloseReason::FramingError,
    };
    account::count_error(client, route, error);
    desk.out.clear();
    let settings = &client.listener.settings;
    let (method, wait) = (desk.request.method, settings.retry_after);
    reply::error(&mut desk.out, error, method, Afterwards::Closes, wait);
    desk.record.status = Some(error.status());
    desk.record.end = account::failed(error);
    let written = relay::flush(&client.stream, &mut desk.out, settings.write_timeout).await;
    let kept = Kept::Closed(reason);
    account::finish(&mut desk.record, client, route, (began, kept));
    match written {
        Ok(()) => After::End(Ending::linger(reason)),
        Err(_) => After::End(Ending::by_peer(CloseReason::PeerRst)),
    }
}

/// An exchange under way.
struct Exchange<'a> {
    client: &'a mut Client,
    route: Option<&'a Arc<Route>>,
    judged: Judged,
    began: Instant,
    content: Content,
    method: MethodClass,
}

/// How the attempts ended.
enum Outcomes {
    /// With an answer, of which the rest waits in `out`.
    Answered(Answer, Lent, Upload),
    /// With none; nothing went to the client.
    Failed(ProxyError),
    /// In the middle of an answer.
    BrokeOff(ProxyError),
    /// The client left.
    ClientGone,
    /// The client's request failed; nothing went to the client.
    ClientFailed(ProxyError),
}

impl<'a> Exchange<'a> {
    fn new(
        client: &'a mut Client,
        route: Option<&'a Arc<Route>>,
        judged: Judged,
        began: Instant,
    ) -> Self {
        let rate = client.listener.settings.min_body_rate;
        let buffer = route.map_or(0, |route| route.upstream.settings.retry_buffer);
        let buffer = usize::try_from(buffer).unwrap_or(usize::MAX);
        let content = attempt::content(judged.framing, rate, buffer);
        let method = match judged.asked.method.is_idempotent() {
            true => MethodClass::Idempotent,
            false => MethodClass::Unsafe,
        };
        Self {
            client,
            route,
            judged,
            began,
            content,
            method,
        }
    }

    async fn run(&mut self, desk: &mut Desk) -> After {
        let Some(route) = self.route else {
            return self.fail(desk, ProxyError::NoRoute).await;
        };
        let outcome = self.attempts(desk, route).await;
        self.conclude(desk, route, outcome).await
    }

    /// The same, with a limit on the whole.
    async fn run_within(&mut self, desk: &mut Desk, limit: Duration) -> After {
        let Some(route) = self.route else {
            return self.fail(desk, ProxyError::NoRoute).await;
        };
        let deadline = Deadline::after(limit);
        let sent_before = self.client.stream.sent();
        let outcome = {
            let attempts = self.attempts(desk, route);
            crate::net::worker::within(deadline, attempts).await
        };
        let outcome = outcome.unwrap_or_else(|_| match self.client.stream.sent() == sent_before {
            true => Outcomes::Failed(ProxyError::RequestDeadline),
            false => Outcomes::BrokeOff(ProxyError::RequestDeadline),
        });
        self.conclude(desk, route, outcome).await
    }

    async fn attempts(&mut self, desk: &mut Desk, route: &'a Arc<Route>) -> Outcomes {
        let upstream = &route.upstream;
        let mut tried = Tried::default();
        let mut again: Option<(RetryReason, Course)> = None;
        loop {
            desk.record.attempts += 1;
            let fresh = again.is_some();
            let acquired = self.acquire(desk, upstream, &mut tried, fresh).await;
            let (acquired, at, _in_flight) = match acquired {
                Ok(acquired) => acquired,
                Err(NotServed::ClientGone) => return Outcomes::ClientGone,
                Err(NotServed::Error(error)) => {
                    self.count_retry(upstream, again, RetryResult::Failure);
                    return Outcomes::Failed(error);
                }
                Err(NotServed::Dial(error)) => {
                    self.count_retry(upstream, again, RetryResult::Failure);
                    match self.decide(desk, upstream, Failure::Connect) {
                        Decision::Again(course) => {
                            again = Some((RetryReason::Connect, course));
                            desk.record.retry = Some(RetryReason::Connect);
                            continue;
                        }
                        Decision::NotAgain(_) => return Outcomes::Failed(dial_error(&error)),
                    }
                }
            };
            let reused = matches!(acquired.outcome, Outcome::Reused | Outcome::ReusedAfterWait);
            let mut lent = acquired.lent;
            let tried_once = self.attempt(desk, route, &mut lent, reused).await;
            let (failed, upload) = match tried_once {
                Ok((answer, upload)) => {
                    self.count_retry(upstream, again, RetryResult::Success);
                    return Outcomes::Answered(answer, lent, upload);
                }
                Err(failed) => failed,
            };
            self.count_retry(upstream, again, RetryResult::Failure);
            match self
                .after_failure(desk, route, lent, (failed, upload, reused))
                .await
            {
                Next::Stop(outcome) => return outcome,
                Next::Again(why, course) => {
                    if course == Course::NextEndpoint {
                        tried.note(at);
                        // Where there is no other, the same one is better than none.
                        if upstream.pick(&tried, &mut Fast).is_none() {
                            tried = Tried::default();
                        }
                    }
                    desk.record.retry = Some(why);
                    again = Some((why, course));
                }
            }
        }
    }

    /// Takes a connection: at a chosen endpoint, else wherever there is room, else in line.
    async fn acquire(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        tried: &mut Tried,
        retry: bool,
    ) -> Result<(Acquired, usize, InFlight), NotServed> {
        let mut looked = *tried;
        let mut full: Option<(usize, &Arc<Endpoint>)> = None;
        let only = upstream.endpoints.len() == 1;
        loop {
            let picked = upstream.pick(&looked, &mut Fast);
            let (at, endpoint, may_wait) = match (picked, full) {
                (Some((at, endpoint)), _) => (at, endpoint, only),
                (None, Some((at, endpoint))) => (at, endpoint, true),
                (None, None) => {
                    let error = if tried.is_empty() {
                        ProxyError::NoEndpoint
                    } else {
                        ProxyError::ConnectFailed
                    };
                    return Err(NotServed::Error(error));
                }
            };
            let in_flight = InFlight::at(endpoint);
            let want = self.want(upstream, endpoint, (retry, may_wait));
            let acquired = self.while_client_stays(endpoint.acquire(want)).await;
            match acquired {
                None => {
                    if may_wait {
                        upstream
                            .metrics
                            .queue_rejected
                            .of(QueueReject::ClientGone)
                            .inc();
                    }
                    return Err(NotServed::ClientGone);
                }
                Some(Ok(acquired)) => {
                    note_origin(desk, upstream, endpoint, &acquired);
                    return Ok((acquired, at, in_flight));
                }
                Some(Err(NotAcquired::Full)) => {
                    looked.note(at);
                    full = full.or(Some((at, endpoint)));
                }
                Some(Err(NotAcquired::Dial(error))) => {
                    note_endpoint(desk, upstream, endpoint);
                    tried.note(at);
                    return Err(NotServed::Dial(error));
                }
                Some(Err(NotAcquired::QueueFull)) => {
                    upstream.metrics.queue_rejected.of(QueueReject::Full).inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(ProxyError::QueueFull));
                }
                Some(Err(NotAcquired::QueueTimeout)) => {
                    upstream
                        .metrics
                        .queue_rejected
                        .of(QueueReject::Timeout)
                        .inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(ProxyError::QueueTimeout));
                }
                Some(Err(NotAcquired::Closed)) => looked.note(at),
            }
        }
    }

    fn want(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        (retry, may_wait): (bool, bool),
    ) -> Want {
        let settings = &upstream.settings;
        let first_of_client = settings.reuse == Reuse::Safe && self.client.nth <= 1;
        let unsafe_method = self.method == MethodClass::Unsafe;
        let (fresh, why) = match settings.reuse {
            _ if retry => (Fresh::Only, Some(OpenReason::Retry)),
            Reuse::Never => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe if first_of_client => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe | Reuse::Always if unsafe_method => {
                (Fresh::IdleLessThan(settings.unsafe_max_idle), None)
            }
            Reuse::Safe | Reuse::Always => (Fresh::Any, None),
        };
        let queue = match may_wait {
            true => {
                let elsewhere = match upstream.endpoints.len() {
                    1 => 0,
                    _ => upstream.waiting_elsewhere(endpoint),
                };
                Queueing::Allowed {
                    max_pending: settings.max_pending.saturating_sub(elsewhere),
                }
            }
            false => Queueing::Refused,
        };
        let inspect = if unsafe_method {
            Inspect::Socket
        } else {
            Inspect::Seen
        };
        Want {
            fresh,
            queue,
            until: Deadline::after(settings.queue_timeout),
            why,
            inspect,
        }
    }

    async fn attempt(
        &mut self,
        desk: &mut Desk,
        route: &'a Arc<Route>,
        lent: &mut Lent,
        reused: bool,
    ) -> Result<(Answer, Upload), (Broken, Upload)> {
        let nothing_sent = |error| (Broken::Refused(error), Upload::Flowing);
        let removed = attempt::encode_request(
            &mut desk.origin_out,
            (&desk.request, desk.input.held()),
            (self.client, route),
            &self.judged,
            lent.endpoint().host.as_bytes(),
        )
        .map_err(nothing_sent)?;
        account::count_removed(&self.client.listener.metrics, &removed);
        lent.begin_request();
        lent.enter(Phase::Wait);
        self.client.enter(Phase::Wait);
        desk.origin_in = crate::net::buffer::ReadBuffer::lend();
        desk.out.clear();
        let Some(stream) = lent.stream() else {
            return Err(nothing_sent(ProxyError::Internal));
        };
        let proves = reused && self.method == MethodClass::Unsafe;
        let acked_before = if proves { acked(stream) } else { None };
        if !reused && self.method == MethodClass::Unsafe {
            self.content.replay.give_up(); // it will not be sent again whatever happens
        }
        let progress = attempt::progress(&desk.request, desk.input.held(), self.judged.framing);
        let begun = clock::now();
        let settings = &route.upstream.settings;
        let tries = desk.record.attempts;
        let wanted = |status| match RetryStatus::of(status) {
            Some(listed) if is_listed(settings, listed) && tries < settings.retry.attempts => {
                Wanted::TryAgain(listed)
            }
            _ => Wanted::Yes,
        };
        let mut extra = Vec::new();
        if self.client.service.server_timing == super::service::ServerTiming::Sent {
            account::server_timing(&mut extra, &desk.record.timeline);
        }
        let result = Attempt {
            client: self.client,
            route,
            judged: &self.judged,
            origin: stream,
            input: &mut desk.input,
            out: &mut desk.out,
            origin_in: &mut desk.origin_in,
            response: &mut desk.response,
            origin_out: &mut desk.origin_out,
            content: &mut self.content,
            wanted: &wanted,
            extra: &extra,
        }
        .run(&progress)
        .await;
        note_timeline(desk, &progress, begun, route);
        let upload = progress.upload();
        result.map(|answer| (answer, upload)).map_err(|unanswered| {
            let broken = match unanswered {
                Unanswered::Client(failed) => Broken::Client(failed, progress.begun()),
                Unanswered::Origin(NoAnswer::Ended(Ended::Fin)) => {
                    let proof = match (acked_before, acked(stream)) {
                        (Some(before), Some(after)) if before == after => Proof::Unsent,
                        _ => Proof::Unknown,
                    };
                    Broken::Ended(Ended::Fin, proof, progress.begun())
                }
                Unanswered::Origin(NoAnswer::Ended(ended)) => {
                    Broken::Ended(ended, Proof::Unknown, progress.begun())
                }
                Unanswered::Origin(no_answer) => Broken::Origin(no_answer, progress.begun()),
            };
            (broken, upload)
        })
    }

    /// Retires or saves the connection of a failed attempt, and says what follows.
    async fn after_failure(
        &mut self,
        desk: &mut Desk,
        route: &'a Arc<Route>,
        lent: Lent,
        (broken, upload, reused): (Broken, Upload, bool),
    ) -> Next {
        let upstream = &route.upstream;
        match broken {
            Broken::Refused(error) => {
                lent.give_back(Verdict::Reusable);
                Next::Stop(Outcomes::ClientFailed(error))
            }
            Broken::Client(failed, begun) => {
                lent.give_back(Verdict::Retire(CloseReason::ClientUnfinished));
                let error = match failed {
                    ClientFailed::Gone => return Next::Stop(Outcomes::ClientGone),
                    ClientFailed::Slow => ProxyError::RequestTimeout,
                    ClientFailed::TooLarge => ProxyError::BodyTooLarge,
                    ClientFailed::Malformed(error) => error,
                };
                Next::Stop(match begun {
                    Begun::No => Outcomes::ClientFailed(error),
                    Begun::Yes => Outcomes::BrokeOff(error),
                })
            }
            Broken::Ended(ended, proof, begun) => {
                let reason = match ended {
                    Ended::Fin => CloseReason::PeerFin,
                    Ended::Reset => CloseReason::PeerRst,
                };
                lent.give_back(Verdict::Retire(reason));
                let failure = match (begun, reused) {
                    (Begun::Yes, _) => Failure::AfterAnswerBegan,
                    (Begun::No, true) => Failure::ReusedEnded(proof),
                    (Begun::No, false) => Failure::FreshEnded,
                };
                let decision = self.decide(desk, upstream, failure);
                let stale = reused && begun == Begun::No;
                if stale {
                    let found = match upload {
                        Upload::Refused => StaleFound::Write,
                        Upload::Flowing | Upload::Whole(_) => StaleFound::Read,
                    };
                    let result = match decision {
                        Decision::Again(_) => StaleResult::Retried,
                        Decision::NotAgain(_) => StaleResult::Failed,
                    };
                    upstream.metrics.stale.of(found, result).inc();
                }
                let (why, error) = match (stale, proof, ended) {
                    (true, Proof::Unsent, _) => (RetryReason::Unsent, ProxyError::StaleConnection),
                    (true, ..) => (RetryReason::Stale, ProxyError::StaleConnection),
                    (false, _, Ended::Fin) => (RetryReason::Empty, ProxyError::EmptyResponse),
                    (false, _, Ended::Reset) => (RetryReason::Reset, ProxyError::UpstreamReset),
                };
                next(decision, (why, error), begun)
            }
            Broken::Origin(no_answer, begun) => {
                self.after_bad_answer(desk, upstream, lent, (no_answer, begun))
                    .await
            }
        }
    }

    async fn after_bad_answer(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        lent: Lent,
        (no_answer, begun): (NoAnswer, Begun),
    ) -> Next {
        let retire = |lent: Lent, reason| lent.give_back(Verdict::Retire(reason));
        match no_answer {
            NoAnswer::Ended(_) => Next::Stop(Outcomes::Failed(ProxyError::Internal)),
            NoAnswer::TimedOut => {
                retire(lent, CloseReason::Timeout);
                let decision = self.decide(desk, upstream, Failure::HeaderTimeout);
                next(
                    decision,
                    (RetryReason::Timeout, ProxyError::ResponseTimeout),
                    begun,
                )
            }
            NoAnswer::Unwanted(status, framing) => {
                let decision = self.decide(desk, upstream, Failure::Status(status));
                desk.origin_in.consume(desk.response.octets);
                let idle = upstream.settings.body_idle;
                let discarded = match lent.stream() {
                    Some(stream) => {
                        let most = upstream.settings.abort_drain_bytes;
                        origin::discard(stream, &mut desk.origin_in, framing, most, idle).await
                    }
                    None => Err(Stuck::SenderFin),
                };
                let clean = desk.origin_in.unread().is_empty() && framing != Framing::UntilClose;
                lent.give_back(match discarded {
                    Ok(()) if clean => Verdict::Reusable,
                    _ => Verdict::Retire(CloseReason::UnreadBody),
                });
                next(
                    decision,
                    (RetryReason::Status, ProxyError::NoEndpoint),
                    begun,
                )
            }
            NoAnswer::ClientGone => {
                retire(lent, CloseReason::ClientGone);
                Next::Stop(Outcomes::ClientGone)
            }
            NoAnswer::HeadTooLarge => {
                retire(lent, CloseReason::BadResponse);
                Next::Stop(broke(begun, ProxyError::ResponseHeadTooLarge))
            }
            NoAnswer::Malformed(_) | NoAnswer::Unwritable | NoAnswer::HeadCutShort => {
                retire(lent, CloseReason::BadResponse);
                Next::Stop(broke(begun, ProxyError::BadResponse))
            }
            NoAnswer::BrokeOff {
                status,
                framing,
                stuck,
                content,
            } => {
                desk.record.status = Some(status);
                desk.record.bytes_out = content;
                self.after_broken_body(desk, upstream, lent, (framing, stuck, content))
            }
        }
    }

    fn after_broken_body(
        &mut self,
        desk: &mut Desk,
        upstream: &Upstream,
        lent: Lent,
        (framing, stuck, content): (Framing, Stuck, u64),
    ) -> Next {
        let (reason, outcome) = match stuck {
            Stuck::SenderFin | Stuck::SenderBroke(_) => {
                let word = match framing {
                    Framing::Chunked => TruncatedFraming::Chunked,
                    Framing::None | Framing::Length(_) | Framing::UntilClose => {
                        TruncatedFraming::Length
                    }
                };
                upstream.metrics.truncated.of(word).inc();
                (
                    CloseReason::Truncated,
                    Outcomes::BrokeOff(ProxyError::Truncated),
                )
            }
            Stuck::SenderSlow => (
                CloseReason::Timeout,
                Outcomes::BrokeOff(ProxyError::BodyIdle),
            ),
            Stuck::Malformed(_) | Stuck::TooLarge => (
                CloseReason::BadResponse,
                Outcomes::BrokeOff(ProxyError::BadResponse),
            ),
            Stuck::Misfit => (CloseReason::Ours, Outcomes::BrokeOff(ProxyError::Internal)),
            Stuck::Recipient(_) | Stuck::RecipientGone => {
                save(desk, upstream, lent, (framing, content));
                return Next::Stop(Outcomes::ClientGone);
            }
        };
        lent.give_back(Verdict::Retire(reason));
        Next::Stop(outcome)
    }

    fn decide(&self, desk: &Desk, upstream: &Upstream, failure: Failure) -> Decision {
        let request = match self.content.replay.whole() {
            Some(_) => RequestHeld::Replayable,
            None if self.judged.framing == Framing::None => RequestHeld::Replayable,
            None if self.content.count == 0 => RequestHeld::Replayable,
            None => RequestHeld::Forgotten,
        };
        let attempts = desk.record.attempts;
        let failed = Failed {
            failure,
            method: self.method,
            request,
            attempts,
        };
        let settings = &upstream.settings.retry;
        let decision = retry::decide(&failed, settings, &upstream.budget, clock::now());
        if let Decision::NotAgain(why) = decision {
            let word = match why {
                NotAgain::Budget => Some(RetryDenied::Budget),
                NotAgain::UnsafeMethod => Some(RetryDenied::UnsafeMethod),
                NotAgain::BodyNotBuffered => Some(RetryDenied::BodyNotBuffered),
                NotAgain::Attempts => Some(RetryDenied::Attempts),
                NotAgain::AnswerBegan | NotAgain::NotListed => None,
            };
            if let Some(word) = word {
                upstream.metrics.retries_denied.of(word).inc();
            }
        }
        decision
    }

    fn count_retry(
        &self,
        upstream: &Upstream,
        again: Option<(RetryReason, Course)>,
        result: RetryResult,
    ) {
        if let Some((why, _)) = again {
            upstream.metrics.retries.of(why, result).inc();
        }
    }

    /// Awaits `future` as long as the client is there. `None`: it left.
    async fn while_client_stays<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let (stream, gone) = (&self.client.stream, self.judged.asked.gone);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            stream.poll_gone(gone, context).map(|()| None)
        })
        .await
    }
}

impl Exchange<'_> {
    /// Ends the exchange: the rest of the answer, an answer of our own, or an abort.
    async fn conclude(&mut self, desk: &mut Desk, route: &Arc<Route>, outcome: Outcomes) -> After {
        match outcome {
            Outcomes::Answered(answer, lent, upload) => {
                desk.record.status = Some(answer.status);
                account::count_removed(&self.client.listener.metrics, &answer.removed);
                match answer.kind {
                    AnswerKind::Switched => self.tunnel(desk, route, lent).await,
                    AnswerKind::Complete | AnswerKind::UntilClose => {
                        self.complete(desk, route, (answer, lent, upload)).await
                    }
                }
            }
            Outcomes::Failed(error) => self.fail(desk, error).await,
            Outcomes::ClientFailed(error) => {
                desk.record.bytes_in = self.content.count;
                refuse(self.client, desk, (self.began, Some(route)), error).await
            }
            Outcomes::BrokeOff(error) => {
                account::count_error(self.client, Some(route), error);
                desk.record.end = End::Failed(error);
                let reason = match error {
                    ProxyError::RequestTimeout => CloseReason::BodyTimeout,
                    ProxyError::BodyTooLarge => CloseReason::BodyTooLarge,
                    ProxyError::BadRequest => CloseReason::FramingError,
                    _ => CloseReason::Truncated,
                };
                self.account(desk, Some(route), Kept::Closed(reason));
                After::End(Ending::abort(reason))
            }
            Outcomes::ClientGone => {
                account::count_error(self.client, Some(route), ProxyError::ClientGone);
                desk.record.end = End::Failed(ProxyError::ClientGone);
                self.account(desk, Some(route), Kept::Closed(CloseReason::ClientGone));
                After::End(Ending::by_peer(CloseReason::ClientGone))
            }
        }
    }

    /// Gives the origin's connection back, then writes the rest of the answer: the next request
    /// can have the connection while the client still reads.
    async fn complete(
        &mut self,
        desk: &mut Desk,
        route: &Arc<Route>,
        (answer, lent, upload): (Answer, Lent, Upload),
    ) -> After {
        let settings = &route.upstream.settings;
        let allowance = lent.allowance();
        let leftover = desk.origin_in.unread();
        let verdict =
            attempt::verdict_after(&answer, upload, leftover, (settings.reuse, allowance));
        if let Some(hint) = answer.hint {
            take_hint(lent.endpoint(), hint, settings);
        }
        if let Some(origin) = &mut desk.record.origin {
            origin.kept = match verdict {
                Verdict::Reusable => Kept::Persists,
                Verdict::Retire(reason) => Kept::Closed(reason),
            };
        }
        lent.give_back(verdict);
        self.client.enter(Phase::ResponseBody);
        let patience = self.client.listener.settings.write_timeout;
        let flushed = relay::flush(&self.client.stream, &mut desk.out, patience).await;
        desk.record.bytes_out = answer.content;
        if flushed.is_err() {
            desk.record.end = End::Failed(ProxyError::ClientGone);
            account::count_error(self.client, Some(route), ProxyError::ClientGone);
            let ending = match flushed {
                Err(crate::net::stream::Fault::TimedOut) => {
                    Ending::abort(CloseReason::WriteTimeout)
                }
                _ => Ending::by_peer(CloseReason::PeerRst),
            };
            self.account(desk, Some(route), Kept::Closed(ending.reason));
            return After::End(ending);
        }
        let after = self.what_next(desk, answer.client, upload).await;
        let kept = match after {
            After::Next => Kept::Persists,
            After::End(ending) => Kept::Closed(ending.reason),
        };
        self.account(desk, Some(route), kept);
        after
    }

    /// Whether the client's connection goes on, and if not, how it ends.
    async fn what_next(&mut self, desk: &mut Desk, told: Persistence, upload: Upload) -> After {
        match (told, upload) {
            (Persistence::Persist, Upload::Whole(_)) => After::Next,
            // It was promised that the connection goes on, so the rest of the request is read.
            (Persistence::Persist, Upload::Flowing | Upload::Refused) => {
                match self.discard_request(desk).await {
                    Ok(()) => After::Next,
                    Err(_) => After::End(Ending::linger(CloseReason::UnreadBody)),
                }
            }
            // The client said that nothing more comes, so a plain close cannot hurt its answer.
            (Persistence::Close(reason), Upload::Whole(_))
                if reason == CloseReason::ClientCloseHeader && desk.input.unread().is_empty() =>
            {
                After::End(Ending::close(reason))
            }
            (Persistence::Close(reason), _) => After::End(Ending::linger(reason)),
        }
    }

    async fn discard_request(&mut self, desk: &mut Desk) -> Result<(), Stuck> {
        let settings = &self.client.listener.settings;
        let limit = settings.linger_timeout;
        let most = settings.linger_bytes;
        let stream = &self.client.stream;
        let reader = &mut self.content.reader;
        origin::discard_rest(stream, &mut desk.input, reader, most, limit).await
    }

    /// Answers with an error of our own; the connection goes on if the request was read whole.
    async fn fail(&mut self, desk: &mut Desk, error: ProxyError) -> After {
        account::count_error(self.client, self.route.map(|route| &**route), error);
        let whole = self.judged.framing == Framing::None || self.content.reader.is_complete();
        let keeps = match (self.judged.asked.persistence, whole) {
            (Persistence::Persist, true) => Persistence::Persist,
            (Persistence::Persist, false) => Persistence::Close(CloseReason::ErrorAnswer),
            (closes @ Persistence::Close(_), _) => closes,
        };
        let afterwards = match (keeps, self.judged.asked.version) {
            (Persistence::Close(_), _) => Afterwards::Closes,
            (Persistence::Persist, Version::Http10) => Afterwards::PersistsAsAsked,
            (Persistence::Persist, Version::Http11) => Afterwards::Persists,
        };
        let settings = &self.client.listener.settings;
        desk.out.clear();
        let (method, wait) = (self.judged.asked.method, settings.retry_after);
        reply::error(&mut desk.out, error, method, afterwards, wait);
        desk.record.status = Some(error.status());
        desk.record.end = End::Failed(error);
        let patience = settings.write_timeout;
        let written = relay::flush(&self.client.stream, &mut desk.out, patience).await;
        let after = match (written, keeps) {
            (Err(_), _) => After::End(Ending::by_peer(CloseReason::PeerRst)),
            (Ok(()), Persistence::Persist) => After::Next,
            (Ok(()), Persistence::Close(reason)) => After::End(Ending::linger(reason)),
        };
        let kept = match after {
            After::Next => Kept::Persists,
            After::End(ending) => Kept::Closed(ending.reason),
        };
        self.account(desk, self.route.map(|route| &**route), kept);
        after
    }

    /// Carries octets both ways after a 101, until both directions have ended.
    async fn tunnel(&mut self, desk: &mut Desk, route: &Arc<Route>, lent: Lent) -> After {
        use crate::observe::words::ClientState;
        let settings = &route.upstream.settings;
        let patience = self.client.listener.settings.write_timeout;
        if relay::flush(&self.client.stream, &mut desk.out, patience)
            .await
            .is_err()
        {
            lent.give_back(Verdict::Retire(CloseReason::Upgraded));
            self.account(desk, Some(route), Kept::Closed(CloseReason::ClientGone));
            return After::End(Ending::by_peer(CloseReason::ClientGone));
        }
        let open = route.metrics.tunnels.hold();
        route.metrics.tunnels_opened.inc();
        self.client.show(ClientState::Tunnel);
        self.client.enter(Phase::Tunnel);
        lent.enter(Phase::Tunnel);
        let carried = std::cell::Cell::new(tunnel::Carried::default());
        let end = match lent.stream() {
            Some(stream) => {
                let early = (desk.input.unread(), desk.origin_in.unread());
                let idle = settings.tunnel_idle;
                tunnel::tunnel(&self.client.stream, stream, early, idle, &carried).await
            }
            None => tunnel::TunnelEnd::OriginBroke,
        };
        drop(open);
        lent.give_back(Verdict::Retire(CloseReason::Upgraded));
        let tunnel::Carried { up, down } = carried.get();
        self.content.count += up;
        desk.record.bytes_out += down;
        desk.record.end = End::Tunnelled;
        let ending = match end {
            tunnel::TunnelEnd::Finished => Ending::close(CloseReason::Upgraded),
            tunnel::TunnelEnd::Idle => Ending::linger(CloseReason::Timeout),
            tunnel::TunnelEnd::ClientBroke => Ending::by_peer(CloseReason::PeerRst),
            tunnel::TunnelEnd::OriginBroke => Ending::abort(CloseReason::Upgraded),
        };
        self.account(desk, Some(route), Kept::Closed(ending.reason));
        After::End(ending)
    }

    fn account(&self, desk: &mut Desk, route: Option<&Route>, kept: Kept) {
        desk.record.bytes_in = self.content.count;
        account::finish(&mut desk.record, self.client, route, (self.began, kept));
    }
}

/// What went wrong in an attempt.
enum Broken {
    /// The request cannot be passed on.
    Refused(ProxyError),
    /// The client's side failed.
    Client(ClientFailed, Begun),
    /// The origin's connection ended before it answered.
    Ended(Ended, Proof, Begun),
    /// The origin's answer is none.
    Origin(NoAnswer, Begun),
}

/// What follows a failed attempt.
enum Next {
    /// Nothing: this is how it ends.
    Stop(Outcomes),
    /// Another attempt, why and where.
    Again(RetryReason, Course),
}

/// Why no connection was had.
enum NotServed {
    /// The client left.
    ClientGone,
    /// There is none.
    Error(ProxyError),
    /// A connect failed.
    Dial(DialError),
}

fn next(decision: Decision, (why, error): (RetryReason, ProxyError), begun: Begun) -> Next {
    match decision {
        Decision::Again(course) => Next::Again(why, course),
        Decision::NotAgain(_) => Next::Stop(broke(begun, error)),
    }
}

fn broke(begun: Begun, error: ProxyError) -> Outcomes {
    match begun {
        Begun::No => Outcomes::Failed(error),
        Begun::Yes => Outcomes::BrokeOff(error),
    }
}

fn dial_error(error: &DialError) -> ProxyError {
    match error {
        DialError::Refused => ProxyError::ConnectRefused,
        DialError::TimedOut => ProxyError::ConnectTimeout,
        DialError::Unreachable => ProxyError::ConnectUnreachable,
        DialError::NoPort => ProxyError::LocalPorts,
        DialError::NoDescriptor => ProxyError::Descriptors,
        DialError::Io(_) => ProxyError::ConnectFailed,
    }
}

fn is_listed(settings: &crate::proxy::settings::UpstreamSettings, status: RetryStatus) -> bool {
    let on = &settings.retry.on;
    let listed = match status {
        RetryStatus::BadGateway => on.bad_gateway,
        RetryStatus::Unavailable => on.unavailable,
        RetryStatus::GatewayTimeout => on.gateway_timeout,
    };
    listed == retry::Listed::In
}

/// Octets that the origin's TCP has acknowledged.
fn acked(stream: &Stream) -> Option<u64> {
    sys::tcp_info(stream.as_fd()).and_then(|info| info.bytes_acked)
}

fn take_hint(
    endpoint: &Arc<Endpoint>,
    hint: Duration,
    settings: &crate::proxy::settings::UpstreamSettings,
) {
    let hinted = hint.saturating_sub(settings.idle_margin);
    if hinted < settings.idle_timeout {
        endpoint.set_idle_limit(hinted, CloseReason::LearnedIdle);
    } else {
        endpoint.set_idle_limit(settings.idle_timeout, CloseReason::IdleTimeout);
    }
}

fn note_endpoint(desk: &mut Desk, upstream: &Upstream, endpoint: &Arc<Endpoint>) {
    desk.record.origin = Some(OriginRecord {
        upstream: upstream.settings.name.clone(),
        endpoint: Some(endpoint.address),
        conn: None,
        nth: 0,
        outcome: Outcome::Rejected,
        opened: None,
        idle: None,
        kept: Kept::Closed(CloseReason::IoError),
    });
}

fn note_origin(
    desk: &mut Desk,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    acquired: &Acquired,
) {
    upstream.metrics.requests.of(acquired.outcome).inc();
    desk.record.origin = Some(OriginRecord {
        upstream: upstream.settings.name.clone(),
        endpoint: Some(endpoint.address),
        conn: acquired.lent.id(),
        nth: acquired.lent.nth() + 1,
        outcome: acquired.outcome,
        opened: acquired.opened,
        idle: acquired.idle,
        kept: Kept::Persists,
    });
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    desk.record.timeline.queue += micros(acquired.queued);
    desk.record.timeline.connect += micros(acquired.connecting);
}

fn note_timeline(desk: &mut Desk, progress: &Progress, begun: Instant, route: &Route) {
    let micros = |from: Instant, to: Instant| {
        u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
    };
    let now = clock::now();
    let sent = match progress.upload() {
        Upload::Whole(at) => at,
        Upload::Flowing | Upload::Refused => now,
    };
    let timeline = &mut desk.record.timeline;
    timeline.send = micros(begun, sent);
    if let Some(first) = progress.first_octet() {
        timeline.wait = micros(sent, first);
        timeline.body = micros(first, now);
        route
            .upstream
            .metrics
            .first_byte
            .observe_duration(first.saturating_duration_since(sent));
    }
}

/// Reads on what is left of an answer whose client left, if it is little, so that the connection
/// is saved (`abort_drain_bytes`). Runs by itself.
fn save(desk: &mut Desk, upstream: &Upstream, lent: Lent, (framing, read): (Framing, u64)) {
    let most = upstream.settings.abort_drain_bytes;
    let left = match framing {
        Framing::Length(length) => length.saturating_sub(read),
        // How much is left is not known, and where in a chunk we are is not kept.
        Framing::None | Framing::Chunked | Framing::UntilClose => u64::MAX,
    };
    if left > most {
        lent.give_back(Verdict::Retire(CloseReason::ClientGone));
        return;
    }
    let mut input = std::mem::take(&mut desk.origin_in);
    let idle = upstream.settings.body_idle;
    crate::net::worker::spawn(async move {
        let discarded = match lent.stream() {
            Some(stream) => {
                origin::discard(stream, &mut input, Framing::Length(left), most, idle).await
            }
            None => Err(Stuck::SenderFin),
        };
        lent.give_back(match discarded {
            Ok(()) if input.unread().is_empty() => Verdict::Reusable,
            _ => Verdict::Retire(CloseReason::ClientGone),
        });
    });
}

/// The dice of the data plane: quick and good enough to choose among endpoints.
struct Fast;

impl Dice for Fast {
    fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            0
        } else {
            fastrand::u32(..bound)
        }
    }
}
