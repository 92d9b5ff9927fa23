//! The attempts of an exchange: one after the other until an answer, or a reason to stop.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;

use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::h1::framing::Framing;
use crate::net::Stream;
use crate::net::clock;
use crate::net::sys;
use crate::observe::words::ConnectError;
use crate::observe::words::RetryDenied;
use crate::observe::words::RetryReason;
use crate::observe::words::RetryResult;
use crate::policy::balance::Tried;
use crate::policy::retry::Course;
use crate::policy::retry::Decision;
use crate::policy::retry::Failed;
use crate::policy::retry::Failure;
use crate::policy::retry::Listed;
use crate::policy::retry::MethodClass;
use crate::policy::retry::Proof;
use crate::policy::retry::RequestHeld;
use crate::policy::retry::RetryStatus;
use crate::policy::retry::UnsafeMethods;
use crate::proxy::account;
use crate::proxy::answer::Answer;
use crate::proxy::answer::Ended;
use crate::proxy::answer::NoAnswer;
use crate::proxy::attempt;
use crate::proxy::attempt::Attempt;
use crate::proxy::attempt::Unanswered;
use crate::proxy::choose::Fast;
use crate::proxy::choose::NotServed;
use crate::proxy::choose::Occasion;
use crate::proxy::choose::dial_error;
use crate::proxy::desk::Desk;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Outcomes;
use crate::proxy::failure;
use crate::proxy::failure::Broken;
use crate::proxy::failure::Next;
use crate::proxy::held::Holding;
use crate::proxy::held::Worth;
use crate::proxy::lent::Lent;
use crate::proxy::lent::Wear;
use crate::proxy::progress::Begun;
use crate::proxy::progress::Progress;
use crate::proxy::progress::Upload;
use crate::proxy::service::Route;
use crate::proxy::upstream::HeldDown;
use crate::proxy::upstream::Upstream;

impl<'a> Exchange<'a> {
    pub(super) async fn attempts(&mut self, desk: &mut Desk, route: &'a Arc<Route>) -> Outcomes {
        let upstream = &route.upstream;
        self.key = upstream.key((&desk.request, desk.input.held()), &self.client.address);
        let mut tried = Tried::default();
        let mut again: Option<(RetryReason, Course)> = None;
        let mut last_error = upstream.none_left();
        loop {
            desk.record.attempts += 1;
            // A failed connect sent nothing: after it an idle connection elsewhere will do.
            let occasion = match again {
                None | Some((RetryReason::Connect, _)) => Occasion::First,
                Some(_) => Occasion::Retry,
            };
            let chosen = match self.reuse(desk, upstream, &tried, occasion) {
                Ok(chosen) => Ok(chosen),
                Err(at) => {
                    self.client.enter(Phase::Wait);
                    // Boxed: the usual way does not come by.
                    Box::pin(self.acquire(desk, upstream, &mut tried, (occasion, at))).await
                }
            };
            let chosen = match chosen {
                Ok(chosen) => chosen,
                Err(NotServed::ClientGone) => {
                    return Outcomes::ClientGone(self.client.gone_reason());
                }
                Err(NotServed::Error(error)) => {
                    self.count_retry(upstream, again, RetryResult::Failure);
                    return Outcomes::Failed(error);
                }
                // Every endpoint has been tried: what the last one said is the answer.
                Err(NotServed::NoneLeft) => {
                    if last_error == ProxyError::Dns {
                        upstream.metrics.connect_errors.of(ConnectError::Dns).inc();
                    }
                    return Outcomes::Failed(last_error);
                }
                Err(NotServed::Dial(error)) => {
                    self.count_retry(upstream, again, RetryResult::Failure);
                    last_error = dial_error(&error);
                    if upstream
                        .pick(&tried, HeldDown::RatherThanNone, self.key, &mut Fast)
                        .is_none()
                    {
                        return Outcomes::Failed(last_error);
                    }
                    match self.decide(upstream, Failure::Connect) {
                        Decision::Again(course) => {
                            again = Some((RetryReason::Connect, course));
                            desk.record.retry = Some(RetryReason::Connect);
                            continue;
                        }
                        Decision::NotAgain(_) => return Outcomes::Failed(last_error),
                    }
                }
            };
            self.sent += 1;
            let (wear, at) = (chosen.wear, chosen.at);
            let mut lent = chosen.lent;
            let tried_once = self.attempt(desk, route, (&mut lent, wear)).await;
            let broken = match tried_once {
                Ok((answer, upload)) => {
                    let timeline = &desk.record.timeline;
                    let took = upstream.measures(timeline.send + timeline.wait);
                    lent.endpoint().on_answer(answer.status, took);
                    self.count_retry(upstream, again, result(answer.status, upstream));
                    return Outcomes::Answered(answer, lent, upload);
                }
                Err(broken) => broken,
            };
            if let Some(symptom) = failure::symptom(&broken.0, wear) {
                lent.endpoint().on_symptom(symptom);
            }
            self.count_retry(upstream, again, RetryResult::Failure);
            let after = self.after_failure(desk, route, (lent, wear), broken);
            match Box::pin(after).await {
                Next::Stop(outcome) => return outcome,
                Next::Again(why, course) => {
                    if course == Course::NextEndpoint {
                        tried.note(at);
                        // Where there is no other, the same one is better than none.
                        if upstream
                            .pick(&tried, HeldDown::RatherThanNone, self.key, &mut Fast)
                            .is_none()
                        {
                            tried = Tried::default();
                        }
                    }
                    desk.record.retry = Some(why);
                    again = Some((why, course));
                }
            }
        }
    }

    /// One attempt over one connection: send, pass on or hold back, and say what broke.
    async fn attempt(
        &mut self,
        desk: &mut Desk,
        route: &'a Arc<Route>,
        (lent, wear): (&mut Lent, Wear),
    ) -> Result<(Answer, Upload), (Broken, Upload)> {
        let nothing_sent = |error| (Broken::Refused(error), Upload::Flowing);
        self.prepare(desk, route, lent).map_err(nothing_sent)?;
        let (lent, client, upstream) = (&*lent, self.client, &route.upstream);
        let Some(stream) = lent.stream() else {
            return Err(nothing_sent(ProxyError::Internal));
        };
        let acked_before = match (wear, self.method) {
            (Wear::Reused, MethodClass::Unsafe) => acked(stream),
            (Wear::Fresh, _) | (_, MethodClass::Idempotent) => None,
        };
        self.forget_what_is_not_repeated(route, wear);
        let (request, framing) = (&desk.request, self.judged.framing);
        let patience = upstream.settings.response_header;
        let progress = attempt::progress(request, desk.input.held(), framing, patience);
        let asked = (self.method, framing, self.sent);
        let holding = Holding {
            worth: &|status| worth(asked, status, upstream),
            most: upstream.settings.retry_buffer,
            too_long: *upstream
                .metrics
                .retries_denied
                .of(RetryDenied::BodyNotBuffered),
        };
        let mut extra = Vec::new();
        if client.service.server_timing == super::service::ServerTiming::Sent {
            account::server_timing(&mut extra, &desk.record.timeline);
        }
        let begun = clock::now_micros();
        // Content may flow for hours: whoever looks while it pauses sees how much there was.
        let tell = || {
            if flows(&progress) {
                client.tell_octets();
                lent.tell_octets();
            }
        };
        let phase = |phase| {
            client.enter(phase);
            lent.enter(phase);
        };
        let mut attempt = Attempt {
            client,
            outlet: self.outlet,
            route,
            judged: &self.judged,
            origin: stream,
            input: &mut desk.input,
            out: &mut desk.out,
            origin_in: &mut desk.origin_in,
            response: &mut desk.response,
            origin_out: &mut desk.origin_out,
            content: &mut self.content,
            counts: (&mut desk.record.bytes_in, &mut desk.record.bytes_out),
            holding: &holding,
            extra: &extra,
            phase: &phase,
        };
        let result = account::telling(pin!(attempt.run(&progress)), tell).await;
        note_timeline(desk, &progress, begun, route);
        let upload = progress.upload();
        result.map(|answer| (answer, upload)).map_err(|unanswered| {
            let proof = proof((acked_before, stream), upload);
            (broken(unanswered, proof, progress.begun()), upload)
        })
    }

    /// Writes the request's head, and shows what begins.
    fn prepare(&self, desk: &mut Desk, route: &Route, lent: &mut Lent) -> Result<(), ProxyError> {
        let removed = attempt::encode_request(
            &mut desk.origin_out,
            (&desk.request, desk.input.held()),
            (self.client, route),
            &self.judged,
            lent,
        )?;
        // Sent again, it is still the one request that its client wrote.
        if self.sent == 1 {
            account::count_removed(&self.client.listener.metrics, &removed);
        }
        lent.begin_request();
        let sending = match self.judged.framing {
            Framing::None => Phase::Wait,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Phase::RequestBody,
        };
        lent.enter(sending);
        self.client.enter(sending);
        desk.origin_in.clear();
        desk.out.clear();
        desk.record.bytes_out = 0;
        Ok(())
    }

    /// A request that will not be sent again whatever happens need not be kept.
    fn forget_what_is_not_repeated(&mut self, route: &Route, wear: Wear) {
        let repeats_all = route.upstream.settings.retry.unsafe_methods == UnsafeMethods::Always;
        let first = self.sent == 1 && wear == Wear::Fresh;
        if first && self.method == MethodClass::Unsafe && !repeats_all {
            self.content.replay.give_up();
        }
    }
}

/// Whether an answer with this status to such a request is held for another attempt.
fn worth(
    (method, framing, attempts): (MethodClass, Framing, u32),
    status: u16,
    upstream: &Upstream,
) -> Worth {
    let Some(listed) = RetryStatus::of(status) else {
        return Worth::PassingOn;
    };
    let failed = Failed {
        failure: Failure::Status(listed),
        method,
        request: held(framing, upstream.settings.retry_buffer),
        attempts,
    };
    failure::worth(&failed, upstream)
}

/// Whether a request so framed can be kept whole, as far as its head tells.
fn held(framing: Framing, buffer: u64) -> RequestHeld {
    match framing {
        Framing::Length(length) if length > buffer => RequestHeld::Forgotten,
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
            RequestHeld::Replayable
        }
    }
}

/// What an attempt without a whole answer broke on.
/// Whether content is on its way, in either direction.
fn flows(progress: &Progress) -> bool {
    progress.begun() == Begun::Yes || progress.upload() == Upload::Flowing
}

fn broken(unanswered: Unanswered, proof: Proof, begun: Begun) -> Broken {
    match unanswered {
        Unanswered::Client(failed) => Broken::Client(failed, begun),
        Unanswered::Origin(NoAnswer::Ended(Ended::Fin)) => Broken::Ended(Ended::Fin, proof, begun),
        Unanswered::Origin(NoAnswer::Ended(ended @ (Ended::Reset | Ended::Silence))) => {
            Broken::Ended(ended, Proof::Unknown, begun)
        }
        Unanswered::Origin(no_answer) => Broken::Origin(no_answer, begun),
    }
}

/// What is known of a request whose connection ended by a FIN: unsent, if the origin's TCP has not
/// acknowledged an octet since before it went out.
fn proof((before, stream): (Option<u64>, &Stream), upload: Upload) -> Proof {
    match (before, upload) {
        (Some(_), Upload::Flowing | Upload::Whole(_) | Upload::Behind)
            if acked(stream) == before =>
        {
            Proof::Unsent
        }
        (Some(_) | None, _) => Proof::Unknown,
    }
}

/// What a retry came to that was answered so: a listed status is one more failure.
fn result(status: u16, upstream: &Upstream) -> RetryResult {
    match RetryStatus::of(status).map(|listed| upstream.settings.retry.on.has(listed)) {
        Some(Listed::In) => RetryResult::Failure,
        Some(Listed::Out) | None => RetryResult::Success,
    }
}

/// Octets that the origin's TCP has acknowledged.
fn acked(stream: &Stream) -> Option<u64> {
    sys::tcp_info(stream.as_fd()).and_then(|info| info.bytes_acked)
}

fn note_timeline(desk: &mut Desk, progress: &Progress, begun: u64, route: &Route) {
    let now = clock::now_micros();
    let sent = match progress.upload() {
        Upload::Whole(at) => at,
        Upload::Flowing | Upload::Refused | Upload::Behind => now,
    };
    let timeline = &mut desk.record.timeline;
    timeline.send = sent.saturating_sub(begun);
    if let Some(first) = progress.first_octet_micros() {
        timeline.wait = first.saturating_sub(sent);
        timeline.body = now.saturating_sub(first);
        route.upstream.metrics.first_byte.observe(timeline.wait);
    }
}
