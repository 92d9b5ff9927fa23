//! The attempts of an exchange: one after the other until an answer, or a reason to stop.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::base::ProxyError;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::h1::framing::Framing;
use crate::net::Stream;
use crate::net::clock;
use crate::net::sys;
use crate::observe::words::ConnectError;
use crate::observe::words::RetryReason;
use crate::observe::words::RetryResult;
use crate::policy::balance::Tried;
use crate::policy::retry::Course;
use crate::policy::retry::Decision;
use crate::policy::retry::Failed;
use crate::policy::retry::Failure;
use crate::policy::retry::MethodClass;
use crate::policy::retry::Proof;
use crate::policy::retry::RequestHeld;
use crate::policy::retry::RetryStatus;
use crate::policy::retry::UnsafeMethods;
use crate::proxy::account;
use crate::proxy::answer::Answer;
use crate::proxy::answer::Ended;
use crate::proxy::answer::NoAnswer;
use crate::proxy::answer::Wanted;
use crate::proxy::attempt;
use crate::proxy::attempt::Attempt;
use crate::proxy::attempt::Unanswered;
use crate::proxy::choose::Fast;
use crate::proxy::choose::NotServed;
use crate::proxy::choose::dial_error;
use crate::proxy::desk::Desk;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Outcomes;
use crate::proxy::failure;
use crate::proxy::failure::Broken;
use crate::proxy::failure::Next;
use crate::proxy::lent::Lent;
use crate::proxy::progress::Progress;
use crate::proxy::progress::Upload;
use crate::proxy::service::Route;
use crate::proxy::upstream::HeldDown;

impl<'a> Exchange<'a> {
    pub(super) async fn attempts(&mut self, desk: &mut Desk, route: &'a Arc<Route>) -> Outcomes {
        let upstream = &route.upstream;
        self.key = upstream.key((&desk.request, desk.input.held()), self.client.address.ip());
        let mut tried = Tried::default();
        let mut again: Option<(RetryReason, Course)> = None;
        let mut last_error = upstream.none_left();
        loop {
            desk.record.attempts += 1;
            // A failed connect sent nothing: after it an idle connection elsewhere will do.
            let fresh = again.is_some_and(|(why, _)| why != RetryReason::Connect);
            let acquired = self.acquire(desk, upstream, &mut tried, fresh).await;
            let (acquired, at, _in_flight) = match acquired {
                Ok(acquired) => acquired,
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
            let reused = matches!(acquired.outcome, Outcome::Reused | Outcome::ReusedAfterWait);
            let mut lent = acquired.lent;
            let tried_once = self.attempt(desk, route, &mut lent, reused).await;
            let (failed, upload) = match tried_once {
                Ok((answer, upload)) => {
                    let timeline = &desk.record.timeline;
                    let took = timeline.send + timeline.wait;
                    lent.endpoint().on_answer(answer.status, took);
                    self.count_retry(upstream, again, RetryResult::Success);
                    return Outcomes::Answered(answer, lent, upload);
                }
                Err(failed) => failed,
            };
            if let Some(symptom) = failure::symptom(&failed, reused) {
                lent.endpoint().on_symptom(symptom);
            }
            self.count_retry(upstream, again, RetryResult::Failure);
            let after = self.after_failure(desk, route, lent, (failed, upload, reused));
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
        let sending = match self.judged.framing {
            Framing::None => Phase::Wait,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Phase::RequestBody,
        };
        lent.enter(sending);
        self.client.enter(sending);
        desk.origin_in.clear();
        desk.out.clear();
        let (client, held) = (self.client, &*lent);
        let phase = |phase| {
            client.enter(phase);
            held.enter(phase);
        };
        let Some(stream) = lent.stream() else {
            return Err(nothing_sent(ProxyError::Internal));
        };
        let proves = reused && self.method == MethodClass::Unsafe;
        let acked_before = if proves { acked(stream) } else { None };
        let repeats_all = route.upstream.settings.retry.unsafe_methods == UnsafeMethods::Always;
        if self.sent == 1 && !reused && self.method == MethodClass::Unsafe && !repeats_all {
            self.content.replay.give_up(); // it will not be sent again whatever happens
        }
        let progress = attempt::progress(
            &desk.request,
            desk.input.held(),
            self.judged.framing,
            route.upstream.settings.response_header,
        );
        let begun = clock::now_micros();
        let held = match self.judged.framing {
            Framing::None => RequestHeld::Replayable,
            Framing::Length(length) if length <= route.upstream.settings.retry_buffer => {
                RequestHeld::Replayable
            }
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => RequestHeld::Forgotten,
        };
        let (method, attempts) = (self.method, self.sent);
        let wanted = |status| {
            let Some(listed) = RetryStatus::of(status) else {
                return Wanted::Yes;
            };
            let failure = Failure::Status(listed);
            let failed = Failed {
                failure,
                method,
                request: held,
                attempts,
            };
            match failure::decision(&failed, &route.upstream) {
                Decision::Again(_) => Wanted::TryAgain,
                Decision::NotAgain(_) => Wanted::Yes,
            }
        };
        let mut extra = Vec::new();
        if self.client.service.server_timing == super::service::ServerTiming::Sent {
            account::server_timing(&mut extra, &desk.record.timeline);
        }
        let result = Attempt {
            client: self.client,
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
            wanted: &wanted,
            extra: &extra,
            phase: &phase,
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
                        (Some(before), Some(after))
                            if before == after && upload != Upload::Refused =>
                        {
                            Proof::Unsent
                        }
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
