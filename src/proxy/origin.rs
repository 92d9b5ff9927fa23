//! The origin's side of one attempt: its answer, from the first octet of the head to the last of
//! the body, on its way to the client.
//!
//! Interim answers are passed on as they come (RFC 9110 §15.2). Nothing of a final answer reaches
//! the client before its head is whole and sound, so until then another attempt may be made.

use std::future::poll_fn;
use std::task::Poll;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::base::units::ByteCount;
use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::encode;
use crate::h1::error::MessageError;
use crate::h1::exchange::Arrival;
use crate::h1::exchange::Expectation;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::head::HeadLimits;
use crate::h1::head::Parsed;
use crate::h1::octets;
use crate::h1::persistence::KeepAliveHint;
use crate::h1::persistence::Persistence;
use crate::h1::persistence::keep_alive_hint;
use crate::h1::persistence::response_persistence;
use crate::net::buffer;
use crate::net::buffer::Fill;
use crate::net::clock;
use crate::net::reactor::Gone;
use crate::net::splice::WORTH_OCTETS;
use crate::net::stream::Fault;
use crate::net::stream::FirstRead;
use crate::net::stream::ReadEnd;
use crate::net::worker;
use crate::policy::hops;
use crate::policy::hops::Upgrading;
use crate::proxy::answer::Answer;
use crate::proxy::answer::AnswerKind;
use crate::proxy::answer::Answering;
use crate::proxy::answer::Ended;
use crate::proxy::answer::NoAnswer;
use crate::proxy::answer::Upgrade;
use crate::proxy::held::Held;
use crate::proxy::held::Worth;
use crate::proxy::outlet::Reached;
use crate::proxy::progress::Begun;
use crate::proxy::relay;
use crate::proxy::relay::Meter;
use crate::proxy::relay::Patience;
use crate::proxy::relay::Sink;
use crate::proxy::relay::SinkWriter;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;

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
            // RFC 9110 §10.1.1: a 100 is for who asked, once.
            Arrival::Informational { status: 100 } if awaited == Expectation::Settled => {
                with.input.consume(with.head.octets);
            }
            Arrival::Informational { .. } => {
                with.pass_interim().await?;
                // The request's side may have waited for this.
                worker::yield_now().await;
            }
            Arrival::Final(framing) => {
                return with.pass_final(framing, awaited).await;
            }
        }
    }
}

impl<'a> Answering<'a> {
    async fn read_head(&mut self) -> Result<(), NoAnswer> {
        self.head.reset();
        if self.input.unread().is_empty() {
            self.read_more().await?;
        }
        loop {
            match self.head.parse(self.input.unread(), &RESPONSE_HEAD_LIMITS) {
                Ok(Parsed::Complete) => return Ok(()),
                Ok(Parsed::Partial) => {
                    if !self.input.unread().is_empty() {
                        (self.phase)(Phase::ResponseHead);
                        self.origin.more_is_due();
                    }
                    self.read_more().await?;
                }
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
                if client.poll_gone(gone, context).is_ready() {
                    return Poll::Ready(Err(NoAnswer::ClientGone));
                }
                // Asked second: who resets has not ended its side only.
                if gone == Gone::Reset && client.peer_has_ended() {
                    half_close();
                }
                Poll::Pending
            })
            .await?;
            let filled = match origin.first_read() {
                FirstRead::Much => self.input.try_fill(origin, RESPONSE_HEAD_OCTETS_MAX),
                FirstRead::Little => self.input.try_fill_little(origin, RESPONSE_HEAD_OCTETS_MAX),
            };
            match filled {
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
            Err(Fill::Fault(Fault::TimedOut)) if nothing_yet => {
                Err(NoAnswer::Ended(Ended::Silence))
            }
            Err(Fill::Fault(_)) if nothing_yet => Err(NoAnswer::Ended(Ended::Reset)),
            Ok(ReadEnd::Fin) => Err(NoAnswer::HeadCutShort(Ended::Fin)),
            Err(Fill::Fault(_)) => Err(NoAnswer::HeadCutShort(Ended::Reset)),
            Err(Fill::Full) => Err(NoAnswer::HeadTooLarge),
        }
    }

    async fn pass_interim(&mut self) -> Result<(), NoAnswer> {
        buffer::furnish(self.out);
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
            .map_err(NoAnswer::of_client)
    }

    fn switch(&mut self) -> Result<Answer, NoAnswer> {
        if self.asked.upgrade == Upgrade::No {
            return Err(NoAnswer::Malformed(MessageError::SwitchUnasked));
        }
        let head = self.input.unread();
        // Of what the client asked for, this is what the origin was offered.
        let offered = |chosen: &[u8]| {
            let protocols = &self.route.upgrade;
            protocols.iter().any(|p| octets::eq_ignore_case(p, chosen))
        };
        if !self.head.fields.list(Field::Upgrade, head).all(offered) {
            return Err(NoAnswer::Malformed(MessageError::SwitchUnasked));
        }
        buffer::furnish(self.out);
        encode::status_line(self.out, 101, self.head.reason.of(head))?;
        let rules = &self.route.response;
        let removed = hops::response_fields(self.out, self.head, head, rules, Upgrading::Yes)?;
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
        let hint = keep_alive_hint(&self.head.fields, octets);
        let writer = self.writer(framing);
        let client = self.client_persistence(framing, &writer, awaited);
        let removed = self.encode_head(framing, &writer, client)?;
        self.input.consume(self.head.octets);
        self.origin.set_first_read(first_read(framing));
        let mut body = (BodyReader::new(framing), writer);
        let mut content = 0;
        let held = match self.worth(framing) {
            Worth::PassingOn => Held::Partly,
            // Boxed: the usual way does not come by.
            Worth::AnotherTry => Box::pin(self.hold(framing, &mut body, &mut content)).await?,
        };
        if held == Held::Partly && framing != Framing::None {
            (self.phase)(Phase::ResponseBody);
            let (begun, sent) = (self.progress.begun(), self.client.stream().sent());
            self.progress.begun.set(Begun::Yes);
            let status = self.head.status;
            *self.count = content;
            let passed = self.pass_body(&mut body).await;
            content = *self.count;
            // Nobody has seen anything of it yet: it is a bad answer, and no cut one.
            if let Err(Stuck::Malformed(error)) = passed
                && self.client.take_back(sent) == Reached::Nobody
            {
                self.progress.begun.set(begun);
                *self.count = 0;
                return Err(NoAnswer::Malformed(error));
            }
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
        let kind = match framing {
            Framing::UntilClose => AnswerKind::UntilClose,
            Framing::None | Framing::Length(_) | Framing::Chunked => AnswerKind::Complete,
        };
        let mut answer = self.answered(kind, (origin, client), content, removed);
        answer.hint = hint;
        match held {
            Held::Partly => Ok(answer),
            Held::Whole => Err(NoAnswer::Unwanted(Box::new(answer))),
        }
    }

    /// Whether this answer is held back: not once an interim one went to the client, which has
    /// heard of this attempt then.
    fn worth(&self, framing: Framing) -> Worth {
        match self.progress.begun() {
            Begun::No => self.holding.begins(self.head.status, framing),
            Begun::Interim | Begun::Yes => Worth::PassingOn,
        }
    }

    async fn hold(
        &mut self,
        framing: Framing,
        (reader, writer): &mut (BodyReader, BodyWriter),
        content: &mut u64,
    ) -> Result<Held, NoAnswer> {
        let patience = self.patience();
        let mut source = Source {
            stream: self.origin,
            buffer: self.input,
            reader,
            patience,
        };
        let held = self
            .holding
            .gather(&mut source, (self.out, writer), content)
            .await;
        held.map_err(|stuck| NoAnswer::UnwantedBrokeOff {
            status: self.head.status,
            framing,
            stuck,
        })
    }

    async fn pass_body(
        &mut self,
        (reader, writer): &mut (BodyReader, BodyWriter),
    ) -> Result<(), Stuck> {
        let patience = self.patience();
        let mut source = Source {
            stream: self.origin,
            buffer: self.input,
            reader,
            patience,
        };
        let mut sink = Sink {
            outlet: self.client,
            out: self.out,
            writer: SinkWriter::Framed(*writer),
            patience: self.listener.write_timeout,
        };
        let mut meter = Meter {
            count: self.count,
            limit: None,
            replay: None,
        };
        relay::pass_on(&mut source, &mut sink, &mut meter).await
    }

    /// How long the content may pause: nobody waits for it once the client has left.
    fn patience(&self) -> Patience<'a> {
        Patience::Idle {
            limit: self.body_idle,
            recipient: self.client.stream(),
            gone: self.asked.gone,
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
            hint: KeepAliveHint::default(),
        }
    }
}

/// How much to read at first of the next answer, by the framing of this one: answers of one
/// connection are much alike, and content that is read with its head can only be copied.
fn first_read(framing: Framing) -> FirstRead {
    let worth =
        |octets| WORTH_OCTETS.is_some_and(|least| octets >= least + buffer::SMALL_OCTETS as u64);
    match framing {
        Framing::Length(octets @ ..=HEAD_ALONE_MAX) if worth(octets) => FirstRead::Little,
        Framing::Length(_) | Framing::Chunked | Framing::UntilClose | Framing::None => {
            FirstRead::Much
        }
    }
}

/// Octets of content up to which an answer's head is read alone. Beyond, what is copied of it is a
/// small part, and the sizes of the sends cost more: over loopback, where BBR paces them by timers,
/// 1 MiB took 295 µs of CPU time with its head read alone, 183 µs as it is, and 80 µs either way
/// under CUBIC.
const HEAD_ALONE_MAX: u64 = 64 * 1024;

/// Most octets of a response head. Origins are trusted more than clients, who are held to
/// `max_header_bytes`; 64 KiB is twice its default, and what Envoy allows. Beyond: 502.
const RESPONSE_HEAD_OCTETS_MAX: usize = 64 * 1024;

/// The bounds on a response head. 256 fields: twice what clients may send.
const RESPONSE_HEAD_LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(RESPONSE_HEAD_OCTETS_MAX as u64),
    fields: 256,
    target: ByteCount(0),
};
