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

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason;
use crate::base::reason::Phase;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::head::Version;
use crate::h1::octets;
use crate::h1::persistence::Persistence;
use crate::net::Deadline;
use crate::net::reactor::Gone;
use crate::net::reactor::Seen;
use crate::net::stream::Fault;
use crate::net::stream::First;
use crate::observe::record::End;
use crate::observe::record::Kept;
use crate::observe::words::HalfClose;
use crate::pool::Verdict;
use crate::proxy::account;
use crate::proxy::answer::Answer;
use crate::proxy::answer::AnswerKind;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::desk::Desk;
use crate::proxy::discard;
use crate::proxy::draining::Standing;
use crate::proxy::exchange;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::LastAnswer;
use crate::proxy::exchange::Outcomes;
use crate::proxy::fault;
use crate::proxy::fault::Where;
use crate::proxy::judge;
use crate::proxy::judge::Recipient;
use crate::proxy::lent;
use crate::proxy::lent::Lent;
use crate::proxy::outlet::Behind;
use crate::proxy::outlet::Outlet;
use crate::proxy::outlet::Reached;
use crate::proxy::progress::Upload;
use crate::proxy::relay;
use crate::proxy::relay::Stuck;
use crate::proxy::reply;
use crate::proxy::reply::Afterwards;
use crate::proxy::service::Route;
use crate::proxy::tail::Waits;
use crate::proxy::tunnel;
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// What follows an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next one, on the same connection.
    Next,
    /// The end of the connection.
    End(Ending),
}

/// Serves the request whose head was read whole and is held in the desk's input.
pub async fn serve(client: &Client, outlet: Outlet<'_>, desk: &mut Desk, began: u64) -> After {
    let logged = !client.service.access_log.is_off();
    if logged {
        account::note_head(&mut desk.record, &desk.request, desk.input.held());
    }
    fault::on_demand(Where::Head, desk);
    let (octets, unread) = desk.input.split();
    let mut judged = match judge::judge(
        (client, desk.record.client_nth),
        &desk.request,
        octets,
        unread,
    ) {
        Ok(judged) => judged,
        Err(error) => return Box::pin(refuse((client, outlet), desk, (began, None), error)).await,
    };
    if judged.recipient == Recipient::Us {
        let mut exchange = Exchange::new((client, outlet), None, judged, began);
        return Box::pin(exchange.answer_options(desk)).await;
    }
    let plan = client.service.plan_here();
    let path = desk.request.target.path(octets);
    let found = plan.table.find(desk.request.host(octets), path);
    let Some(route) = found.and_then(|at| plan.routes.get(at)) else {
        let mut exchange = Exchange::new((client, outlet), None, judged, began);
        return Box::pin(exchange.fail(desk, ProxyError::NoRoute)).await;
    };
    judged.asked.upgrade = judge::upgrade(&desk.request, octets, &route.settings);
    if logged {
        desk.record.route = Some(route.settings.name.clone());
    }
    let _in_flight = route.metrics.in_flight.hold();
    route.upstream.budget.on_request();
    let mut exchange = Exchange::new((client, outlet), Some(route), judged, began);
    match route.upstream.settings.request {
        None => exchange.run(desk).await,
        Some(limit) => Box::pin(exchange.run_within(desk, limit)).await,
    }
}

/// Refuses a request whose head is wrong: nothing that follows it can be trusted.
pub async fn refuse(
    (client, outlet): (&Client, Outlet<'_>),
    desk: &mut Desk,
    (began, route): (u64, Option<&Route>),
    error: ProxyError,
) -> After {
    let reason = match error {
        ProxyError::HeadTooLarge | ProxyError::UriTooLong => CloseReason::HeadTooLarge,
        ProxyError::BodyTooLarge => CloseReason::BodyTooLarge,
        ProxyError::RequestTimeout => CloseReason::HeaderTimeout,
        ProxyError::ClientLimit => CloseReason::ClientLimit,
        ProxyError::BadRequest => CloseReason::FramingError,
        // Nothing is wrong with its framing, but what follows was not looked at.
        _ => CloseReason::ErrorAnswer,
    };
    refuse_for((client, outlet), desk, (began, route), (error, reason)).await
}

/// The same, for a given reason.
async fn refuse_for(
    (client, outlet): (&Client, Outlet<'_>),
    desk: &mut Desk,
    (began, route): (u64, Option<&Route>),
    (error, reason): (ProxyError, CloseReason),
) -> After {
    account::count_error(client, route, error);
    desk.out.clear();
    let settings = &client.listener.settings;
    let (method, wait) = (desk.request.method, settings.retry_after);
    reply::error(&mut desk.out, error, method, Afterwards::Closes, wait);
    desk.record.status = Some(error.status());
    desk.record.bytes_out = reply::content_length(error, method);
    desk.record.end = account::failed(error);
    let written = conclude(outlet, &mut desk.out, settings.write_timeout).await;
    let ending = match written {
        Ok(()) => Ending::linger(reason),
        Err(fault) => Ending::unwritten(&fault),
    };
    let kept = client.closes(ending);
    account::finish(&mut desk.record, client, route, (began, kept));
    After::End(ending)
}

impl Exchange<'_> {
    async fn run(&mut self, desk: &mut Desk) -> After {
        let Some(route) = self.route else {
            return Box::pin(self.fail(desk, ProxyError::NoRoute)).await;
        };
        match self.attempts(desk, route).await {
            Outcomes::Answered(answer, lent, upload) if answer.kind != AnswerKind::Switched => {
                self.settle(desk, route, lent, (&answer, upload));
                self.write_rest(desk, route, (&answer, upload)).await
            }
            // Boxed: the usual way does not come by.
            outcome => Box::pin(self.conclude(desk, route, outcome)).await,
        }
    }

    /// The same, with a limit on the whole.
    async fn run_within(&mut self, desk: &mut Desk, limit: Duration) -> After {
        let Some(route) = self.route else {
            return Box::pin(self.fail(desk, ProxyError::NoRoute)).await;
        };
        let deadline = Deadline::after(limit);
        let patience = self.client.listener.settings.write_timeout;
        if let Err(fault) = self.outlet.begin(patience).await {
            return self.ends(desk, Some(route), Ending::unwritten(&fault));
        }
        let sent_before = self.client.stream.sent();
        let outcome = {
            let mut attempts = Box::pin(self.attempts(desk, route));
            let within = crate::net::worker::within(deadline, attempts.as_mut()).await;
            // The origin's connection is in there; it is not the client who gave it up.
            lent::drop_for(CloseReason::Timeout, || drop(attempts));
            within
        };
        if outcome.is_err() {
            account::note_dropped(&mut desk.record);
        }
        let outcome = outcome.unwrap_or_else(|_| match self.outlet.take_back(sent_before) {
            Reached::Nobody => Outcomes::Failed(ProxyError::RequestDeadline),
            Reached::Client => {
                // The client saw this status, if its head was the last one.
                let status = Some(desk.response.status).filter(|status| *status >= 200);
                desk.record.status = status;
                Outcomes::BrokeOff(ProxyError::RequestDeadline)
            }
        });
        self.conclude(desk, route, outcome).await
    }

    /// Ends the exchange: the rest of the answer, an answer of our own, or an abort.
    async fn conclude(&mut self, desk: &mut Desk, route: &Arc<Route>, outcome: Outcomes) -> After {
        match outcome {
            Outcomes::Answered(answer, lent, upload) => match answer.kind {
                AnswerKind::Switched => {
                    self.note_answer(desk, &answer);
                    Box::pin(self.tunnel(desk, route, lent)).await
                }
                AnswerKind::Complete | AnswerKind::UntilClose => {
                    self.settle(desk, route, lent, (&answer, upload));
                    self.write_rest(desk, route, (&answer, upload)).await
                }
            },
            Outcomes::Held(last) => Box::pin(self.answer_held(desk, route, *last)).await,
            Outcomes::Failed(error) => match self.last.take() {
                Some(last) => Box::pin(self.answer_held(desk, route, *last)).await,
                None => Box::pin(self.fail(desk, error)).await,
            },
            Outcomes::ClientFailed(error, reason) => {
                Box::pin(refuse_for(
                    (self.client, self.outlet),
                    desk,
                    (self.began, Some(route)),
                    (error, reason),
                ))
                .await
            }
            Outcomes::BrokeOff(error) => {
                // What was held of it goes out in its turn; a fault shows in the abort.
                self.outlet.turn().await.ok();
                if self.client.live.phase() == Phase::Idle {
                    // The answer before this one in a pipeline has left it so.
                    self.client.enter(Phase::ResponseBody);
                }
                account::count_error(self.client, Some(route), error);
                desk.record.end = End::Failed(error);
                let reason = match error {
                    ProxyError::RequestTimeout => CloseReason::BodyTimeout,
                    ProxyError::BodyTooLarge => CloseReason::BodyTooLarge,
                    ProxyError::BadRequest => CloseReason::FramingError,
                    _ => CloseReason::Truncated,
                };
                self.ends(desk, Some(route), Ending::abort(reason))
            }
            Outcomes::ClientStalled => {
                account::count_error(self.client, Some(route), ProxyError::ClientGone);
                desk.record.end = End::Failed(ProxyError::ClientGone);
                let ending = Ending::unwritten(&Fault::TimedOut);
                self.ends(desk, Some(route), ending)
            }
            Outcomes::ClientGone(reason) => {
                if self.client.stream.peer_has_ended() && self.judged.asked.gone == Gone::Fin {
                    self.client
                        .listener
                        .metrics
                        .half_closed
                        .of(HalfClose::Abort)
                        .inc();
                }
                account::count_error(self.client, Some(route), ProxyError::ClientGone);
                desk.record.end = End::Failed(ProxyError::ClientGone);
                self.ends(desk, Some(route), Ending::by_peer(reason))
            }
        }
    }

    /// Gives the origin's connection back before the rest of its answer is written: the next request
    /// can have the connection while the client still reads.
    fn settle(
        &self,
        desk: &mut Desk,
        route: &Route,
        lent: Lent,
        (answer, upload): (&Answer, Upload),
    ) {
        self.note_answer(desk, answer);
        fault::on_demand(Where::Lent, desk);
        exchange::settle(desk, lent, (answer, upload), route.upstream.settings.reuse);
    }

    fn note_answer(&self, desk: &mut Desk, answer: &Answer) {
        desk.record.status = Some(answer.status);
        account::count_removed(&self.client.listener.metrics, &answer.removed);
    }

    /// All further attempts failed: the last real answer is the client's after all.
    async fn answer_held(
        &mut self,
        desk: &mut Desk,
        route: &Arc<Route>,
        mut last: LastAnswer,
    ) -> After {
        std::mem::swap(&mut desk.out, &mut last.octets);
        desk.record.origin = last.origin.take();
        self.note_answer(desk, &last.answer);
        let LastAnswer { answer, upload, .. } = &last;
        self.write_rest(desk, route, (answer, *upload)).await
    }

    /// Writes what is left of an answer, and ends the exchange.
    async fn write_rest(
        &mut self,
        desk: &mut Desk,
        route: &Arc<Route>,
        (answer, upload): (&Answer, Upload),
    ) -> After {
        self.client.enter(Phase::ResponseBody);
        let patience = self.client.listener.settings.write_timeout;
        let flushed = match self.may_wait(desk, (answer, upload)) {
            Waits::ForCompany => Ok(()),
            Waits::ForNothing => match relay::flush_at_once(self.outlet, &mut desk.out) {
                Some(written) => written,
                None => conclude(self.outlet, &mut desk.out, patience).await,
            },
        };
        desk.record.bytes_out = answer.content;
        if let Err(fault) = flushed {
            desk.record.end = End::Failed(ProxyError::ClientGone);
            account::count_error(self.client, Some(route), ProxyError::ClientGone);
            return self.ends(desk, Some(route), Ending::unwritten(&fault));
        }
        self.client.enter(Phase::Idle);
        match self.what_next(desk, answer.client, upload).await {
            After::Next => {
                self.account(desk, Some(route), Kept::Persists);
                After::Next
            }
            After::End(ending) => self.ends(desk, Some(route), ending),
        }
    }

    /// Lets the rest of the answer wait for the next one, if the request to that is at hand.
    fn may_wait(&self, desk: &mut Desk, (answer, upload): (&Answer, Upload)) -> Waits {
        match (answer.client, upload) {
            (Persistence::Persist, Upload::Whole(_)) if !desk.input.unread().is_empty() => {
                self.outlet.hold(&mut desk.out)
            }
            (Persistence::Persist | Persistence::Close(_), _) => Waits::ForNothing,
        }
    }

    /// Accounts for the exchange as the last one of its connection, which ends so.
    fn ends(&self, desk: &mut Desk, route: Option<&Route>, ending: Ending) -> After {
        self.account(desk, route, self.client.closes(ending));
        After::End(ending)
    }

    /// Whether the client's connection goes on, and if not, how it ends.
    async fn what_next(&mut self, desk: &mut Desk, told: Persistence, upload: Upload) -> After {
        match (told, upload) {
            (Persistence::Persist, Upload::Whole(_) | Upload::Behind) => After::Next,
            // It was promised that the connection goes on, so the rest of the request is read.
            (Persistence::Persist, Upload::Flowing | Upload::Refused) => {
                match Box::pin(self.discard_request(desk)).await {
                    Ok(()) => After::Next,
                    Err(_) => After::End(Ending::linger(CloseReason::UnreadBody)),
                }
            }
            (Persistence::Close(reason), Upload::Whole(_))
                if reason == CloseReason::ClientCloseHeader
                    && desk.input.unread().is_empty()
                    && self.is_taken(desk.record.bytes_out) =>
            {
                After::End(Ending::close(reason))
            }
            (Persistence::Close(reason), _) => After::End(Ending::linger(reason)),
        }
    }

    /// Whether a plain close cannot hurt an answer of this size to a client that said that nothing
    /// more comes. One that sends on nevertheless would lose by a reset what it has not read of its
    /// answer (RFC 9112 §9.6): what has come already is seen for nothing, and of what comes later a
    /// large answer is in danger for as long as it is under way.
    fn is_taken(&self, content: u64) -> bool {
        let stream = &self.client.stream;
        stream.look() == Seen::Quiet && (content <= SOON_TAKEN || stream.is_sent_out())
    }

    async fn discard_request(&mut self, desk: &mut Desk) -> Result<(), Stuck> {
        let settings = &self.client.listener.settings;
        let limit = settings.linger_timeout;
        let most = settings.linger_bytes;
        let stream = &self.client.stream;
        let reader = &mut self.content.reader;
        let rest = discard::discard_rest(stream, &mut desk.input, reader, most, limit);
        let whole = crate::net::worker::within(Deadline::after(limit), rest);
        whole.await.unwrap_or(Err(Stuck::SenderSlow))
    }

    /// Answers with an error of our own; the connection goes on if the request was read whole.
    async fn fail(&mut self, desk: &mut Desk, error: ProxyError) -> After {
        account::count_error(self.client, self.route.map(|route| &**route), error);
        // Content that is here already costs nothing to discard, and saves its client a connection.
        // After a fault of the client's own nobody trusts what stands behind it.
        if error.fault() != reason::Fault::Client || error == ProxyError::NoRoute {
            discard::discard_at_hand(&mut desk.input, &mut self.content.reader);
        }
        let (keeps, afterwards) = self.afterwards();
        let settings = &self.client.listener.settings;
        desk.out.clear();
        let (method, wait) = (self.judged.asked.method, settings.retry_after);
        reply::error(&mut desk.out, error, method, afterwards, wait);
        desk.record.status = Some(error.status());
        desk.record.bytes_out = reply::content_length(error, method);
        desk.record.end = End::Failed(error);
        self.send_own(desk, keeps).await
    }

    /// Answers an OPTIONS request that may go no further (RFC 9110 §7.6.2, §9.3.7).
    async fn answer_options(&mut self, desk: &mut Desk) -> After {
        let (keeps, afterwards) = self.afterwards();
        desk.out.clear();
        reply::options(&mut desk.out, afterwards);
        desk.record.status = Some(200);
        self.send_own(desk, keeps).await
    }

    /// Whether the connection outlives an answer of our own: only if the request was read whole.
    fn afterwards(&self) -> (Persistence, Afterwards) {
        let whole = self.judged.framing == Framing::None || self.content.reader.is_complete();
        let keeps = match (self.judged.asked.persistence, whole) {
            // A drain may have begun since the request was judged: this is the last answer then.
            (Persistence::Persist, true)
                if self.client.service.standing() != Standing::Serving
                    && self.outlet.behind() == Behind::Nothing =>
            {
                Persistence::Close(CloseReason::Drain)
            }
            (Persistence::Persist, true) => Persistence::Persist,
            (Persistence::Persist, false) => Persistence::Close(CloseReason::ErrorAnswer),
            (closes @ Persistence::Close(_), _) => closes,
        };
        let afterwards = match (keeps, self.judged.asked.version) {
            (Persistence::Close(_), _) => Afterwards::Closes,
            (Persistence::Persist, Version::Http10) => Afterwards::PersistsAsAsked,
            (Persistence::Persist, Version::Http11) => Afterwards::Persists,
        };
        (keeps, afterwards)
    }

    async fn send_own(&mut self, desk: &mut Desk, keeps: Persistence) -> After {
        let patience = self.client.listener.settings.write_timeout;
        let written = conclude(self.outlet, &mut desk.out, patience).await;
        let route = self.route.map(|route| &**route);
        match (written, keeps) {
            (Err(fault), _) => self.ends(desk, route, Ending::unwritten(&fault)),
            (Ok(()), Persistence::Persist) => {
                self.account(desk, route, Kept::Persists);
                After::Next
            }
            (Ok(()), Persistence::Close(reason)) => {
                self.client.enter(Phase::Idle);
                self.ends(desk, route, Ending::linger(reason))
            }
        }
    }

    /// Carries octets both ways after a 101, until both directions have ended.
    async fn tunnel(&mut self, desk: &mut Desk, route: &Arc<Route>, lent: Lent) -> After {
        use crate::observe::words::ClientState;
        let settings = &route.upstream.settings;
        let patience = self.client.listener.settings.write_timeout;
        if let Err(fault) = conclude(self.outlet, &mut desk.out, patience).await {
            let retires = Verdict::Retire(CloseReason::ClientGone);
            desk.record.note_kept(lent.give_back(retires));
            return self.ends(desk, Some(route), Ending::unwritten(&fault));
        }
        let open = route.metrics.tunnels.hold();
        route.metrics.tunnels_opened.inc();
        self.client.show(ClientState::Tunnel);
        self.client.enter(Phase::Tunnel);
        lent.enter(Phase::Tunnel);
        let protocol = protocol(desk);
        let record = &mut desk.record;
        let (up, down) = (&mut record.bytes_in, &mut record.bytes_out);
        let carried = (Cell::from_mut(up), Cell::from_mut(down));
        let end = match lent.stream() {
            Some(stream) => {
                let early = (desk.input.unread(), desk.origin_in.unread());
                let terms = tunnel::Terms {
                    idle: settings.tunnel_idle,
                    protocol,
                    draining: &self.client.service.draining,
                };
                let client = self.client;
                let tell = || {
                    client.tell_octets();
                    lent.tell_octets();
                };
                let tunnel = tunnel::tunnel(&client.stream, stream, early, terms, carried);
                account::telling(pin!(tunnel), tell).await
            }
            None => tunnel::TunnelEnd::OriginBroke,
        };
        drop(open);
        let reason = match end {
            tunnel::TunnelEnd::Finished => CloseReason::Upgraded,
            tunnel::TunnelEnd::GoneAway => CloseReason::Drain,
            tunnel::TunnelEnd::Idle => CloseReason::Timeout,
            tunnel::TunnelEnd::ClientBroke => CloseReason::ClientGone,
            tunnel::TunnelEnd::OriginReset => CloseReason::PeerRst,
            tunnel::TunnelEnd::OriginBroke => CloseReason::IoError,
        };
        desk.record
            .note_kept(lent.give_back(Verdict::Retire(reason)));
        desk.record.end = End::Tunnelled;
        let ending = match end {
            tunnel::TunnelEnd::Finished => match self.client.stream.ended_first() {
                First::Ours => Ending::close(CloseReason::Upgraded),
                First::Peer => Ending::by_peer(CloseReason::Upgraded),
            },
            tunnel::TunnelEnd::GoneAway => Ending::linger(CloseReason::Drain),
            tunnel::TunnelEnd::Idle => Ending::linger(CloseReason::Timeout),
            tunnel::TunnelEnd::ClientBroke => Ending::by_peer(CloseReason::PeerRst),
            tunnel::TunnelEnd::OriginReset | tunnel::TunnelEnd::OriginBroke => {
                Ending::abort(CloseReason::Upgraded)
            }
        };
        self.ends(desk, Some(route), ending)
    }
}

/// What was switched to: one of what was asked for (RFC 9110 §7.8), so it is known if only one was.
fn protocol(desk: &Desk) -> tunnel::Protocol {
    let octets = desk.input.held();
    let mut asked = desk.request.fields.list(Field::Upgrade, octets);
    match (asked.next(), asked.next()) {
        (Some(only), None) if octets::eq_ignore_case(only, b"websocket") => {
            tunnel::Protocol::WebSocket
        }
        _ => tunnel::Protocol::Opaque,
    }
}

/// Octets of an answer that a client has at once or never: a first flight holds 14 KiB (RFC 6928).
const SOON_TAKEN: u64 = 14 * 1024;

/// Writes the rest of an answer, in its turn.
async fn conclude(outlet: Outlet<'_>, out: &mut Vec<u8>, patience: Duration) -> Result<(), Fault> {
    outlet.turn().await?;
    relay::flush(outlet, out, patience).await
}
