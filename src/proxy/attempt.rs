//! One attempt: a request over one connection, its content and the answer flowing at the same time.

use std::future::Future as _;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::encode;
use crate::h1::exchange::Exchange;
use crate::h1::framing::Framing;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::persistence::Persistence;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::buffer::ReadBuffer;
use crate::net::clock;
use crate::net::reactor::Seen;
use crate::observe::words::HalfClose;
use crate::policy::body_rate::BodyRate;
use crate::policy::forwarded::Scheme;
use crate::policy::hops;
use crate::policy::hops::Announce;
use crate::policy::hops::HopContext;
use crate::policy::hops::Removed;
use crate::policy::hops::Upgrading;
use crate::pool::Verdict;
use crate::pool::lease::Allowance;
use crate::pool::verdict;
use crate::proxy::answer::Answer;
use crate::proxy::answer::AnswerKind;
use crate::proxy::answer::Answering;
use crate::proxy::answer::NoAnswer;
use crate::proxy::answer::Upgrade;
use crate::proxy::client::Client;
use crate::proxy::held::Holding;
use crate::proxy::judge::Judged;
use crate::proxy::lent::Lent;
use crate::proxy::origin;
use crate::proxy::outlet::Outlet;
use crate::proxy::progress::Begun;
use crate::proxy::progress::Progress;
use crate::proxy::progress::Upload;
use crate::proxy::relay;
use crate::proxy::relay::Meter;
use crate::proxy::relay::Patience;
use crate::proxy::relay::Sink;
use crate::proxy::relay::SinkWriter;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;
use crate::proxy::replay::Replay;
use crate::proxy::service::Route;
use crate::proxy::settings::PreserveHost;
use crate::proxy::settings::Reuse;

/// A request's content, and how far it is: it outlives an attempt.
pub struct Content {
    /// Its framing, and how much of it was read.
    pub reader: BodyReader,
    /// What was sent of it, should it have to be sent again.
    pub replay: Replay,
    /// How fast it comes.
    pub rate: BodyRate,
}

/// Why the client's side ended an attempt.
#[derive(Debug)]
pub enum ClientFailed {
    /// It closed, or reset, before its request was whole.
    Gone(CloseReason),
    /// It sent too slowly.
    Slow,
    /// It sent more than it may.
    TooLarge,
    /// It broke the framing.
    Malformed(ProxyError),
}

/// Why an attempt brought no whole answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The client's doing.
    Client(ClientFailed),
    /// The origin's.
    Origin(NoAnswer),
}

/// What one attempt works with.
pub struct Attempt<'a> {
    /// The client.
    pub client: &'a Client,
    /// The answer's way to it.
    pub outlet: Outlet<'a>,
    /// The route.
    pub route: &'a Route,
    /// What is asked.
    pub judged: &'a Judged,
    /// The origin's connection.
    pub origin: &'a Stream,
    /// Octets from the client; the head is held in it.
    pub input: &'a mut ReadBuffer,
    /// Octets for the client.
    pub out: &'a mut Vec<u8>,
    /// Octets from the origin.
    pub origin_in: &'a mut ReadBuffer,
    /// The response head.
    pub response: &'a mut ResponseHead,
    /// Octets for the origin; the request's head waits in it.
    pub origin_out: &'a mut Vec<u8>,
    /// The request's content.
    pub content: &'a mut Content,
    /// Octets of it so far, and of the answer's, on the account of the exchange: it is told also
    /// when the exchange is dropped.
    pub counts: (&'a mut u64, &'a mut u64),
    /// Which answers are held back for another attempt.
    pub holding: &'a Holding<'a>,
    /// A field line to add to the answer.
    pub extra: &'a [u8],
    /// Shows what both connections are doing now.
    pub phase: &'a dyn Fn(Phase),
}

impl Attempt<'_> {
    /// Sends the request and passes the answer on; what is left of the answer waits in `out`.
    /// Cancel: the origin's connection is good only for closing.
    ///
    /// # Errors
    /// [`Unanswered`]; `progress` tells how far both directions were.
    pub async fn run(&mut self, progress: &Progress) -> Result<Answer, Unanswered> {
        let upstream = &self.route.upstream.settings;
        let listener = &self.client.listener.settings;
        let mut answering = Answering {
            client: self.outlet,
            origin: self.origin,
            input: self.origin_in,
            count: self.counts.1,
            head: self.response,
            out: self.out,
            asked: self.judged.asked,
            listener,
            route: &self.route.settings,
            half_closed: *self
                .client
                .listener
                .metrics
                .half_closed
                .of(HalfClose::Finish),
            service: &self.client.service,
            body_idle: upstream.body_idle,
            holding: self.holding,
            extra: self.extra,
            phase: self.phase,
            progress,
        };
        if self.judged.framing == Framing::None {
            let outlet = Outlet::Direct(self.origin);
            let sent = match relay::flush_at_once(outlet, self.origin_out) {
                Some(sent) => sent,
                None => relay::flush(outlet, self.origin_out, upstream.body_idle).await,
            };
            // Another attempt encodes it afresh; this one may wait long.
            buffer::give_back(std::mem::take(self.origin_out));
            progress.set_upload(match sent {
                Ok(()) => Upload::Whole(clock::now_micros()),
                // It may have said why before it closed.
                Err(_) => Upload::Refused,
            });
            return answer_alone(&mut answering, self.input).await;
        }
        let mut upload = Sending {
            client: &self.client.stream,
            origin: self.origin,
            input: self.input,
            out: self.origin_out,
            content: self.content,
            count: self.counts.0,
            body_timeout: listener.body_timeout,
            patience: upstream.body_idle,
            limit: listener.max_body_bytes,
            framing: self.judged.framing,
            progress,
        };
        both(&mut upload, &mut answering, (progress, self.phase)).await
    }
}

/// Passes on the answer to a request without content.
async fn answer_alone(
    answering: &mut Answering<'_>,
    input: &mut ReadBuffer,
) -> Result<Answer, Unanswered> {
    let progress = answering.progress;
    let mut answer = pin!(origin::answer(answering));
    poll_fn(|context| {
        let answered = answer.as_mut().poll(context);
        if answered.is_pending() && progress.begun() == Begun::Yes {
            // Its client has a part of it, and perhaps takes long for the rest: the request will not
            // be sent again, and waits in little.
            input.stow_small();
        }
        answered.map_err(Unanswered::Origin)
    })
    .await
}

/// Runs the two directions in one task, each at its own pace. The answer decides the attempt; the
/// request's end only tells the answer's deadline when to begin.
async fn both(
    upload: &mut Sending<'_>,
    answering: &mut Answering<'_>,
    (progress, phase): (&Progress, &dyn Fn(Phase)),
) -> Result<Answer, Unanswered> {
    let mut upload = pin!(upload.run());
    let mut answer = pin!(answer_at_once(answering));
    let mut answered = None;
    poll_fn(|context| {
        if progress.upload() == Upload::Flowing
            && let Poll::Ready(sent) = upload.as_mut().poll(context)
        {
            match (uploaded(sent), answered.take()) {
                (Ok(upload), None) => {
                    progress.set_upload(upload);
                    if progress.begun() != Begun::Yes {
                        phase(Phase::Wait);
                    }
                }
                (Ok(upload), Some(early)) => {
                    progress.set_upload(match upload {
                        Upload::Whole(_) | Upload::Behind => Upload::Behind,
                        Upload::Flowing | Upload::Refused => Upload::Refused,
                    });
                    answered = Some(early);
                }
                (Err(failed), None) => return Poll::Ready(Err(Unanswered::Client(failed))),
                // The answer is whole and gone; what follows on this connection is in doubt.
                (Err(_), Some(early)) => return Poll::Ready(Ok(unfinished(early))),
            }
        }
        if answered.is_none() {
            match answer.as_mut().poll(context) {
                Poll::Ready(Ok(whole)) => answered = Some(whole),
                Poll::Ready(Err(failed)) => return Poll::Ready(Err(Unanswered::Origin(failed))),
                Poll::Pending => return Poll::Pending,
            }
        }
        match answered.take() {
            Some(early) if waits_for_the_rest(&early, progress) => {
                answered = Some(early);
                Poll::Pending
            }
            Some(whole) => Poll::Ready(Ok(whole)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Passes the answer on. What is left of one that came early does not wait for its request's end.
async fn answer_at_once(answering: &mut Answering<'_>) -> Result<Answer, NoAnswer> {
    let answer = origin::answer(answering).await?;
    if waits_for_the_rest(&answer, answering.progress) {
        let patience = answering.listener.write_timeout;
        let flushed = relay::flush(answering.client, answering.out, patience).await;
        flushed.map_err(NoAnswer::of_client)?;
    }
    Ok(answer)
}

/// Whether the rest of the request still goes to the origin although its answer is whole. An origin
/// that answers early and neither refuses nor closes goes on reading (RFC 9112 §9.5 has a client
/// stop only then): what it was answered for and never got would be lost. Its connection is not used
/// again, for an origin that does not go on reading takes the rest for the next request.
fn waits_for_the_rest(answer: &Answer, progress: &Progress) -> bool {
    progress.upload() == Upload::Flowing
        && answer.kind == AnswerKind::Complete
        && answer.client == Persistence::Persist
        && answer.origin == Persistence::Persist
}

/// How far a request came, or what its client did wrong.
fn uploaded(sent: Result<(), Stuck>) -> Result<Upload, ClientFailed> {
    match sent {
        Ok(()) => Ok(Upload::Whole(clock::now_micros())),
        Err(Stuck::Recipient(_) | Stuck::RecipientGone | Stuck::Misfit) => Ok(Upload::Refused),
        Err(Stuck::SenderFin) => Err(ClientFailed::Gone(CloseReason::ClientGone)),
        Err(Stuck::SenderBroke(_)) => Err(ClientFailed::Gone(CloseReason::PeerRst)),
        Err(Stuck::SenderSlow) => Err(ClientFailed::Slow),
        Err(Stuck::TooLarge) => Err(ClientFailed::TooLarge),
        Err(Stuck::Malformed(error)) => Err(ClientFailed::Malformed(error.proxy_error())),
    }
}

/// An answer whose request will not end: neither connection carries another.
fn unfinished(mut answer: Answer) -> Answer {
    answer.client = Persistence::Close(CloseReason::ClientUnfinished);
    answer
}

/// The request's way to the origin.
struct Sending<'a> {
    client: &'a Stream,
    origin: &'a Stream,
    input: &'a mut ReadBuffer,
    out: &'a mut Vec<u8>,
    content: &'a mut Content,
    count: &'a mut u64,
    body_timeout: Duration,
    patience: Duration,
    limit: Option<u64>,
    framing: Framing,
    progress: &'a Progress,
}

impl Sending<'_> {
    async fn run(&mut self) -> Result<(), Stuck> {
        let mut writer = match self.framing {
            Framing::None => BodyWriter::None,
            Framing::Length(left) => BodyWriter::Length { left },
            Framing::Chunked | Framing::UntilClose => BodyWriter::Chunked,
        };
        // What an earlier attempt had already taken from the client goes first.
        if self.content.replay.is_in_place() {
            self.input.keep_consumed();
        }
        if let Some(sent) = self.content.replay.whole(self.input)
            && !sent.is_empty()
        {
            writer
                .chunk_head(self.out, sent.len())
                .map_err(|_| Stuck::Misfit)?;
            self.out.extend_from_slice(sent);
            writer.chunk_end(self.out, sent.len());
        }
        if self.content.reader.received() > 0 || !self.input.unread().is_empty() {
            self.progress.on_request_content();
        }
        self.await_continue().await?;
        let mut source = Source {
            stream: self.client,
            buffer: self.input,
            reader: &mut self.content.reader,
            patience: Patience::Rate {
                limit: self.body_timeout,
                rate: &mut self.content.rate,
            },
        };
        let mut sink = Sink {
            outlet: Outlet::Direct(self.origin),
            out: self.out,
            writer: SinkWriter::Framed(writer),
            patience: self.patience,
        };
        let mut meter = Meter {
            count: self.count,
            limit: self.limit,
            replay: Some(&mut self.content.replay),
        };
        relay::pass_on(&mut source, &mut sink, &mut meter).await?;
        relay::flush(Outlet::Direct(self.origin), sink.out, self.patience)
            .await
            .map_err(Stuck::Recipient)
    }
}

impl Sending<'_> {
    /// While the client waits for a 100 it is the origin whom time runs against, not the client
    /// (RFC 9110 §10.1.1).
    async fn await_continue(&mut self) -> Result<(), Stuck> {
        if !self.progress.awaits_continue() {
            return Ok(());
        }
        relay::flush(Outlet::Direct(self.origin), self.out, self.patience)
            .await
            .map_err(Stuck::Recipient)?;
        self.progress.expect_answer();
        poll_fn(|context| {
            if !self.progress.awaits_continue() {
                return Poll::Ready(());
            }
            self.client
                .poll_readable(context, Deadline::NEVER)
                .map(|_| ())
        })
        .await;
        self.progress.expect_content();
        Ok(())
    }
}

/// Writes the request's head for the origin, canonical and afresh.
///
/// # Errors
/// [`ProxyError::BadRequest`] where its fields cannot be passed on; `Internal` for a fault of ours.
pub fn encode_request(
    out: &mut Vec<u8>,
    (head, octets): (&RequestHead, &[u8]),
    (client, route): (&Client, &Route),
    judged: &Judged,
    lent: &Lent,
) -> Result<Removed, ProxyError> {
    out.clear();
    buffer::furnish(out);
    let target = head.target.to_origin(octets);
    encode::request_line(out, head.method_octets.of(octets), &target)
        .map_err(|_| ProxyError::Internal)?;
    let upgrading = match judged.asked.upgrade {
        Upgrade::Asked => Upgrading::Yes,
        Upgrade::No => Upgrading::No,
    };
    // Who means to close says so with the last request (RFC 9112 §9.6): the origin can close first.
    // A tunnel is none, and not every origin finds `Upgrade` beside another option.
    let announce = match (route.upstream.settings.reuse, upgrading) {
        (Reuse::Never, _) => Announce::Close,
        (Reuse::Safe | Reuse::Always, Upgrading::No) if lent.has_one_left() => Announce::Close,
        (Reuse::Safe | Reuse::Always, _) => Announce::Nothing,
    };
    // An HTTP/1.0 request may come without a host; ours has to have one (RFC 9112 §3.2).
    let keeps = route.settings.preserve_host == PreserveHost::Kept && !head.host(octets).is_empty();
    let context = HopContext {
        client: client.address.ip(),
        trust: client.trust,
        scheme: Scheme::Http,
        host_to_origin: match keeps {
            true => None,
            false => Some(lent.endpoint().host.as_bytes()),
        },
        upgrading,
        protocols: &route.settings.upgrade,
        announce,
        max_forwards: judged.max_forwards,
    };
    let removed = hops::request_fields(out, head, octets, &route.settings.request, &context)
        .map_err(|_| ProxyError::BadRequest)?;
    match judged.framing {
        Framing::None => {}
        Framing::Length(length) => encode::content_length(out, length),
        Framing::Chunked | Framing::UntilClose => encode::chunked_coding(out),
    }
    encode::end_of_head(out);
    Ok(removed)
}

/// What is to become of the origin's connection after a whole answer.
#[must_use]
pub fn verdict_after(
    (persistence, kind): (Persistence, AnswerKind),
    upload: Upload,
    (leftover, wire): (&[u8], verdict::Wire),
    (reuse, allowance): (Reuse, Allowance),
) -> Verdict {
    let persistence = match persistence {
        Persistence::Persist => verdict::AnswerPersistence::Persist,
        Persistence::Close(CloseReason::Http10) => verdict::AnswerPersistence::Http10,
        // How the answer ended says this better.
        Persistence::Close(CloseReason::CloseDelimited) => verdict::AnswerPersistence::Persist,
        Persistence::Close(_) => verdict::AnswerPersistence::Close,
    };
    verdict::verdict(&verdict::Seen {
        wire,
        answer: match kind {
            AnswerKind::Complete | AnswerKind::Switched => verdict::AnswerEnd::Complete,
            AnswerKind::UntilClose => verdict::AnswerEnd::UntilClose,
        },
        persistence,
        request: match upload {
            Upload::Whole(_) => verdict::RequestSent::Whole,
            // An origin that answered before may have taken the rest for the next request.
            Upload::Flowing | Upload::Refused | Upload::Behind => verdict::RequestSent::Partly,
        },
        leftover: if leftover.is_empty() {
            verdict::Leftover::Empty
        } else {
            verdict::Leftover::ExtraOctets
        },
        reuse: if reuse == Reuse::Never {
            verdict::Reuse::Off
        } else {
            verdict::Reuse::On
        },
        allowance,
    })
}

/// What the socket has said by now.
#[must_use]
pub fn wire(stream: Option<&Stream>) -> verdict::Wire {
    match stream {
        None => verdict::Wire::Failed,
        Some(stream) if stream.look() == Seen::Closed => verdict::Wire::Rst,
        Some(stream) if stream.peer_has_ended() => verdict::Wire::Fin,
        Some(_) => verdict::Wire::Open,
    }
}

/// A content that has not begun. Inlined, as the exchange is that it is made in.
#[must_use]
#[inline(always)]
pub fn content(framing: Framing, rate: Option<u64>, replay: usize) -> Content {
    // The clock of its rate runs only while we read it.
    let mut pace = BodyRate::new(rate, clock::now());
    pace.on_pause(clock::now());
    Content {
        reader: BodyReader::new(framing),
        replay: Replay::of(framing, replay),
        rate: pace,
    }
}

/// A new exchange machine for an attempt.
#[must_use]
pub fn progress(
    head: &RequestHead,
    octets: &[u8],
    framing: Framing,
    response_header: Duration,
) -> Progress {
    Progress::new(Exchange::new(head, framing, octets), response_header)
}
