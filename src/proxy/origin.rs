//! The origin's side of one attempt: its answer, from the first octet of the head to the last of
//! the body, on its way to the client.
//!
//! Interim answers are passed on as they come (RFC 9110 §15.2). Nothing of a final answer reaches
//! the client before its head is whole and sound, so until then another attempt may be made.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::base::units::ByteCount;
use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::encode;
use crate::h1::encode::Unwritable;
use crate::h1::error::MessageError;
use crate::h1::exchange::Arrival;
use crate::h1::exchange::Exchange;
use crate::h1::exchange::Expectation;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::head::HeadLimits;
use crate::h1::head::Method;
use crate::h1::head::Parsed;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::persistence::Persistence;
use crate::h1::persistence::keep_alive_hint;
use crate::h1::persistence::response_persistence;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer::Fill;
use crate::net::buffer::ReadBuffer;
use crate::net::clock;
use crate::net::reactor::Gone;
use crate::net::stream::ReadEnd;
use crate::net::worker;
use crate::observe::Counter;
use crate::policy::hops;
use crate::policy::hops::Upgrading;
use crate::proxy::draining::Standing;
use crate::proxy::outlet::Behind;
use crate::proxy::outlet::Outlet;
use crate::proxy::relay;
use crate::proxy::relay::Meter;
use crate::proxy::relay::Patience;
use crate::proxy::relay::Sink;
use crate::proxy::relay::SinkWriter;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;
use crate::proxy::reply;
use crate::proxy::service::Service;
use crate::proxy::settings::KeepAliveField;
use crate::proxy::settings::ListenerSettings;
use crate::proxy::settings::RouteSettings;

/// What the answer's side must know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its version.
    pub version: Version,
    /// Whether it may become a tunnel.
    pub upgrade: Upgrade,
    /// What its head said about the client's connection, our limits considered.
    pub persistence: Persistence,
    /// What counts as the client having left.
    pub gone: Gone,
    /// How many more requests the client's connection may carry.
    pub requests_left: Option<u64>,
}

/// Whether a request may become a tunnel (RFC 9110 §7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It asked for a protocol that the route allows.
    Asked,
    /// It did not.
    No,
}

/// How far the two directions of an attempt are: they run in one task and tell each other here.
pub struct Progress {
    exchange: RefCell<Exchange>,
    upload: Cell<Upload>,
    begun: Cell<Begun>,
    first_octet_micros: Cell<Option<u64>>,
    /// When the answer must have begun: set when the request is sent, not asked anew.
    head_due: Cell<Deadline>,
    response_header: Duration,
    /// Whether the client's FIN was seen, and counted.
    half_closed: Cell<bool>,
}

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// Parts of it have yet to come or go.
    Flowing,
    /// It was sent whole, at this moment, in microseconds since the process began.
    Whole(u64),
    /// The origin takes no more of it; its answer may say why.
    Refused,
}

/// How far the answer is, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing went to the client.
    No,
    /// An interim head went to the client: another attempt is out of the question, an answer of our
    /// own is not.
    Interim,
    /// A final head went to the client, or is on its way.
    Yes,
}

/// A final answer that was passed on, but for what remains in `out`.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// What became of it.
    pub kind: AnswerKind,
    /// What it said about the origin's connection.
    pub origin: Persistence,
    /// Its version.
    pub version: Version,
    /// What the client was told about its own connection.
    pub client: Persistence,
    /// Octets of its content.
    pub content: u64,
    /// The hop-by-hop fields that were removed.
    pub removed: hops::Removed,
    /// The origin's `Keep-Alive` hint.
    pub hint: Option<Duration>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// It ended where its framing said.
    Complete,
    /// It ended with the origin's connection.
    UntilClose,
    /// The protocol was switched; the head waits in `out`.
    Switched,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection ended before any octet of an answer.
    Ended(Ended),
    /// The head did not come in time.
    TimedOut,
    /// The head, or its framing, breaks the rules.
    Malformed(MessageError),
    /// The head is larger than we take.
    HeadTooLarge,
    /// It is one that the upstream wants tried again; its body, so framed, was not read.
    Unwanted(Framing, Persistence),
    /// The client left.
    ClientGone,
    /// The answer began and then broke off.
    BrokeOff {
        /// Its status code.
        status: u16,
        /// How its end was to be known.
        framing: Framing,
        /// How it broke off.
        stuck: Stuck,
        /// Octets of content that came.
        content: u64,
        /// What it said about the origin's connection.
        origin: Persistence,
    },
    /// The head ended with the connection.
    HeadCutShort,
    /// It cannot be written canonically, or its `Connection` field names more than anyone needs.
    Unwritable,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a FIN.
    Fin,
    /// By a reset, or an error of the socket.
    Reset,
}

impl From<Unwritable> for NoAnswer {
    fn from(_: Unwritable) -> Self {
        Self::Unwritable
    }
}

/// Everything that passing an answer on needs.
pub struct Answering<'a> {
    /// The way to the client.
    pub client: Outlet<'a>,
    /// The origin's connection.
    pub origin: &'a Stream,
    /// Octets from the origin.
    pub input: &'a mut ReadBuffer,
    /// The head, as places in them.
    pub head: &'a mut ResponseHead,
    /// Octets for the client.
    pub out: &'a mut Vec<u8>,
    /// What was asked.
    pub asked: Asked,
    /// What the listener says.
    pub listener: &'a ListenerSettings,
    /// What the route says.
    pub route: &'a RouteSettings,
    /// Counts clients that ended their side and still get their answer.
    pub half_closed: Counter,
    /// Whether new work is still taken: the last answer says if not.
    pub service: &'a Service,
    /// How long the body may pause.
    pub body_idle: Duration,
    /// Which answers are wanted.
    pub wanted: &'a dyn Fn(u16) -> Wanted,
    /// A field line to add, pre-encoded.
    pub extra: &'a [u8],
    /// Shows what both connections are doing now.
    pub phase: &'a dyn Fn(Phase),
    /// How far both directions are.
    pub progress: &'a Progress,
}

/// Whether an answer is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is.
    Yes,
    /// It is tried again instead.
    TryAgain,
}

impl Progress {
    /// Nothing was sent, nothing came.
    #[must_use]
    pub fn new(exchange: Exchange, response_header: Duration) -> Self {
        Self {
            exchange: RefCell::new(exchange),
            upload: Cell::new(Upload::Flowing),
            begun: Cell::new(Begun::No),
            first_octet_micros: Cell::new(None),
            // The client's own deadlines rule while it is still sending.
            head_due: Cell::new(Deadline::NEVER),
            response_header,
            half_closed: Cell::new(false),
        }
    }

    /// How far the request is.
    #[must_use]
    pub fn upload(&self) -> Upload {
        self.upload.get()
    }

    /// The request is so far.
    pub fn set_upload(&self, upload: Upload) {
        let mut exchange = self.exchange.borrow_mut();
        match upload {
            Upload::Flowing => return,
            Upload::Whole(_) => exchange.on_request_end(),
            Upload::Refused => exchange.on_request_abandoned(),
        }
        self.head_due.set(Deadline::after(self.response_header));
        self.upload.set(upload);
    }

    /// Whether the client waits for a 100 before it sends its content.
    #[must_use]
    pub fn awaits_continue(&self) -> bool {
        self.exchange.borrow().expectation() == Expectation::AwaitsContinue
    }

    /// The head is sent and nothing more will be until the origin has spoken.
    pub fn expect_answer(&self) {
        self.head_due.set(Deadline::after(self.response_header));
    }

    /// The content comes now; the client's own deadlines rule.
    pub fn expect_content(&self) {
        if self.upload.get() == Upload::Flowing {
            self.head_due.set(Deadline::NEVER);
        }
    }

    /// Content of the request came: its client no longer waits for a 100.
    pub fn on_request_content(&self) {
        self.exchange.borrow_mut().on_request_content();
    }

    /// How far the answer is.
    #[must_use]
    pub fn begun(&self) -> Begun {
        self.begun.get()
    }

    /// When the first octet of the answer came, in microseconds since the process began.
    #[must_use]
    pub fn first_octet_micros(&self) -> Option<u64> {
        self.first_octet_micros.get()
    }
}

/// Passes the origin's answer on. What is left of it waits in `out`.
/// Cancel: the origin's connection is good only for closing, and the client's if it had begun.
///
/// # Errors
/// [`NoAnswer`].
pub async fn answer(with: &mut Answering<'_>) -> Result<Answer, NoAnswer> {
    loop {
        with.read_head().await?;
        let awaited = with.progress.exchange.borrow().expectation();
        let arrival = {
            let mut exchange = with.progress.exchange.borrow_mut();
            exchange.on_response_head(with.head, with.input.unread())
        };
        match arrival.map_err(NoAnswer::Malformed)? {
            Arrival::SwitchingProtocols => return with.switch(),
            Arrival::Withhold { .. } => with.input.consume(with.head.octets),
            // RFC 9110 §10.1.1: a 100 is for who asked, and has not sent its content anyway.
            Arrival::Informational { status: 100 } if awaited == Expectation::Settled => {
                with.input.consume(with.head.octets);
            }
            Arrival::Informational { .. } => {
                with.pass_interim().await?;
                // The request's side may have waited for this.
                worker::yield_now().await;
            }
            Arrival::Final(framing) => {
                if with.progress.begun() == Begun::No
                    && (with.wanted)(with.head.status) == Wanted::TryAgain
                {
                    let origin = response_persistence(with.head, framing, with.input.unread());
                    return Err(NoAnswer::Unwanted(framing, origin));
                }
                return with.pass_final(framing, awaited).await;
            }
        }
    }
}

impl Answering<'_> {
    async fn read_head(&mut self) -> Result<(), NoAnswer> {
        self.head.reset();
        loop {
            match self.head.parse(self.input.unread(), &RESPONSE_HEAD_LIMITS) {
                Ok(Parsed::Complete) => return Ok(()),
                Ok(Parsed::Partial) => self.read_more().await?,
                Err(error) if error.proxy_error() == ProxyError::HeadTooLarge => {
                    return Err(NoAnswer::HeadTooLarge);
                }
                Err(error) => return Err(NoAnswer::Malformed(error)),
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), NoAnswer> {
        let (client, origin, progress) = (self.client.stream(), self.origin, self.progress);
        let gone = self.asked.gone;
        let half_close = || {
            if !progress.half_closed.replace(true) {
                self.half_closed.inc();
            }
        };
        let nothing_yet = self.input.unread().is_empty();
        let read = loop {
            poll_fn(|context| {
                match origin.poll_readable(context, progress.head_due.get()) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(NoAnswer::TimedOut)),
                    Poll::Pending => {}
                }
                if gone == Gone::Reset && client.peer_has_ended() {
                    half_close();
                }
                client
                    .poll_gone(gone, context)
                    .map(|()| Err(NoAnswer::ClientGone))
            })
            .await?;
            match self.input.try_fill(origin, RESPONSE_HEAD_OCTETS_MAX) {
                Ok(None) => {} // a false alarm; wait again, watching
                Ok(Some(end)) => break Ok(end),
                Err(error) => break Err(error),
            }
        };
        match read {
            Ok(ReadEnd::Octets(_)) => {
                if progress.first_octet_micros.get().is_none() {
                    progress.first_octet_micros.set(Some(clock::now_micros()));
                }
                Ok(())
            }
            Ok(ReadEnd::Fin) if nothing_yet => Err(NoAnswer::Ended(Ended::Fin)),
            Err(Fill::Fault(_)) if nothing_yet => Err(NoAnswer::Ended(Ended::Reset)),
            Ok(ReadEnd::Fin) | Err(Fill::Fault(_)) => Err(NoAnswer::HeadCutShort),
            Err(Fill::Full) => Err(NoAnswer::HeadTooLarge),
        }
    }

    async fn pass_interim(&mut self) -> Result<(), NoAnswer> {
        let octets = self.input.unread();
        encode::status_line(self.out, self.head.status, self.head.reason.of(octets))?;
        hops::response_fields(
            self.out,
            self.head,
            octets,
            &self.route.response,
            Upgrading::No,
        )?;
        encode::end_of_head(self.out);
        self.progress.begun.set(Begun::Interim);
        self.input.consume(self.head.octets);
        relay::flush(self.client, self.out, self.listener.write_timeout)
            .await
            .map_err(|_| NoAnswer::ClientGone)
    }

    fn switch(&mut self) -> Result<Answer, NoAnswer> {
        if self.asked.upgrade == Upgrade::No {
            return Err(NoAnswer::Malformed(MessageError::SwitchUnasked));
        }
        let octets = self.input.unread();
        encode::status_line(self.out, 101, self.head.reason.of(octets))?;
        let rules = &self.route.response;
        let removed = hops::response_fields(self.out, self.head, octets, rules, Upgrading::Yes)?;
        encode::end_of_head(self.out);
        self.progress.begun.set(Begun::Yes);
        self.input.consume(self.head.octets);
        let closes = Persistence::Close(CloseReason::Upgraded);
        Ok(self.answered(AnswerKind::Switched, (closes, closes), 0, removed))
    }

    async fn pass_final(
        &mut self,
        framing: Framing,
        awaited: Expectation,
    ) -> Result<Answer, NoAnswer> {
        let octets = self.input.unread();
        let origin = response_persistence(self.head, framing, octets);
        let hint = keep_alive_hint(&self.head.fields, octets).timeout;
        let writer = self.writer(framing);
        let client = self.client_persistence(framing, &writer, awaited);
        let removed = self.encode_head(framing, &writer, client)?;
        self.input.consume(self.head.octets);
        let mut content = 0;
        if framing != Framing::None {
            (self.phase)(Phase::ResponseBody);
            self.progress.begun.set(Begun::Yes);
            let status = self.head.status;
            let passed = self.pass_body(framing, writer, &mut content).await;
            if let Err(stuck) = passed {
                // What arrived is passed on; how it ends then tells the client that it is short.
                relay::flush(self.client, self.out, self.listener.write_timeout)
                    .await
                    .ok();
                return Err(NoAnswer::BrokeOff {
                    status,
                    framing,
                    stuck,
                    content,
                    origin,
                });
            }
        }
        self.progress.exchange.borrow_mut().on_response_end();
        let kind = match framing {
            Framing::UntilClose => AnswerKind::UntilClose,
            Framing::None | Framing::Length(_) | Framing::Chunked => AnswerKind::Complete,
        };
        let mut answer = self.answered(kind, (origin, client), content, removed);
        answer.hint = hint;
        Ok(answer)
    }

    async fn pass_body(
        &mut self,
        framing: Framing,
        writer: BodyWriter,
        content: &mut u64,
    ) -> Result<(), Stuck> {
        let mut reader = BodyReader::new(framing);
        let mut source = Source {
            stream: self.origin,
            buffer: self.input,
            reader: &mut reader,
            patience: Patience::Idle {
                limit: self.body_idle,
                recipient: self.client.stream(),
                gone: self.asked.gone,
            },
        };
        let mut sink = Sink {
            outlet: self.client,
            out: self.out,
            writer: SinkWriter::Framed(writer),
            patience: self.listener.write_timeout,
        };
        let mut meter = Meter {
            count: content,
            limit: None,
            replay: None,
        };
        relay::pass_on(&mut source, &mut sink, &mut meter).await
    }

    /// How the content is framed for the client. What ends with the origin's connection is chunked
    /// for a client that knows chunks, so that its connection persists and it can tell the end.
    fn writer(&self, framing: Framing) -> BodyWriter {
        match (framing, self.asked.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => BodyWriter::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => BodyWriter::UntilClose,
            (Framing::Length(left), _) => BodyWriter::Length { left },
            (Framing::None, _) => BodyWriter::None,
        }
    }

    fn client_persistence(
        &self,
        framing: Framing,
        writer: &BodyWriter,
        awaited: Expectation,
    ) -> Persistence {
        if let Persistence::Close(reason) = self.asked.persistence {
            return Persistence::Close(reason);
        }
        // What is in line behind it was begun already, so the last of the line says it.
        if self.service.standing() != Standing::Serving && self.client.behind() == Behind::Nothing {
            return Persistence::Close(CloseReason::Drain);
        }
        if matches!(writer, BodyWriter::UntilClose) && framing != Framing::None {
            return Persistence::Close(CloseReason::CloseDelimited);
        }
        // An early answer that refuses the request: the rest of it is not worth reading, and a
        // client that still waits for 100 may send it or not, so nobody could tell what follows.
        let refuses = self.head.status >= 400 || awaited == Expectation::AwaitsContinue;
        match self.progress.upload() {
            Upload::Whole(_) => Persistence::Persist,
            Upload::Flowing if !refuses => Persistence::Persist,
            Upload::Flowing | Upload::Refused => Persistence::Close(CloseReason::ClientUnfinished),
        }
    }

    fn encode_head(
        &mut self,
        framing: Framing,
        writer: &BodyWriter,
        client: Persistence,
    ) -> Result<hops::Removed, NoAnswer> {
        let octets = self.input.unread();
        let (head, out) = (&*self.head, &mut *self.out);
        encode::status_line(out, head.status, head.reason.of(octets))?;
        let rules = &self.route.response;
        let removed = hops::response_fields(out, head, octets, rules, Upgrading::No)?;
        // RFC 9110 §6.6.1: a recipient with a clock may add the Date that is missing.
        if !head.fields.has(Field::Date) {
            reply::date(out);
        }
        match (framing, writer) {
            (Framing::Length(length), _) => encode::content_length(out, length),
            (_, BodyWriter::Chunked) => encode::chunked_coding(out),
            // To HEAD and with 304 the length tells what GET would have; 204 has none
            // (RFC 9110 §8.6).
            (Framing::None, _) if head.status != 204 => {
                if let Some(length) = head.fields.first(Field::ContentLength, octets) {
                    encode::field(out, b"Content-Length", length)?;
                }
            }
            _ => {}
        }
        self.encode_connection(client);
        self.out.extend_from_slice(self.extra);
        encode::end_of_head(self.out);
        Ok(removed)
    }

    fn encode_connection(&mut self, client: Persistence) {
        let out = &mut *self.out;
        let told = self.listener.keep_alive_header == KeepAliveField::Sent;
        match client {
            Persistence::Close(_) => out.extend_from_slice(b"Connection: close\r\n"),
            Persistence::Persist => {
                if told || self.asked.version == Version::Http10 {
                    out.extend_from_slice(b"Connection: keep-alive\r\n");
                }
                if told {
                    keep_alive(out, self.listener.idle_timeout, self.asked.requests_left);
                }
            }
        }
    }

    fn answered(
        &self,
        kind: AnswerKind,
        (origin, client): (Persistence, Persistence),
        content: u64,
        removed: hops::Removed,
    ) -> Answer {
        Answer {
            status: self.head.status,
            kind,
            origin,
            version: self.head.version,
            client,
            content,
            removed,
            hint: None,
        }
    }
}

/// Writes `Keep-Alive`: a little less than the true timeout, so that a client which believes it
/// never sends into a closing connection.
fn keep_alive(out: &mut Vec<u8>, idle_timeout: Duration, requests_left: Option<u64>) {
    let seconds = idle_timeout.as_secs().saturating_sub(1);
    if seconds == 0 {
        return;
    }
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"Keep-Alive: timeout=");
    out.extend_from_slice(digits.format(seconds).as_bytes());
    if let Some(left) = requests_left {
        out.extend_from_slice(b", max=");
        out.extend_from_slice(digits.format(left).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads and discards what is left of an answer, up to `most` octets, to keep the connection.
/// Cancel: the connection is good only for closing.
///
/// # Errors
/// [`Stuck`].
pub async fn discard(
    origin: &Stream,
    input: &mut ReadBuffer,
    framing: Framing,
    most: u64,
    idle: Duration,
) -> Result<(), Stuck> {
    discard_rest(origin, input, &mut BodyReader::new(framing), most, idle).await
}

/// The same, of a message whose reading has begun.
///
/// # Errors
/// [`Stuck`].
pub async fn discard_rest(
    origin: &Stream,
    input: &mut ReadBuffer,
    reader: &mut BodyReader,
    most: u64,
    idle: Duration,
) -> Result<(), Stuck> {
    let mut count = 0;
    let mut nowhere = Vec::new();
    let mut source = Source {
        stream: origin,
        buffer: input,
        reader,
        patience: Patience::Idle {
            limit: idle,
            recipient: origin,
            gone: Gone::Reset,
        },
    };
    let mut sink = Sink {
        outlet: Outlet::Direct(origin),
        out: &mut nowhere,
        writer: SinkWriter::Discarded,
        patience: idle,
    };
    let mut meter = Meter {
        count: &mut count,
        limit: Some(most),
        replay: None,
    };
    relay::pass_on(&mut source, &mut sink, &mut meter).await
}

/// Most octets of a response head. Origins are trusted more than clients, who are held to
/// `max_header_bytes`; 64 KiB is twice its default, and what Envoy allows. Beyond: 502.
const RESPONSE_HEAD_OCTETS_MAX: usize = 64 * 1024;

/// The bounds on a response head. 256 fields: twice what clients may send.
const RESPONSE_HEAD_LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(RESPONSE_HEAD_OCTETS_MAX as u64),
    fields: 256,
    target: ByteCount(0),
};
