//! The head of a final answer, written afresh for the client: its fields, its framing, and what
//! becomes of the client's connection.

use std::time::Duration;

use crate::base::CloseReason;
use crate::h1::body::BodyWriter;
use crate::h1::encode;
use crate::h1::exchange::Expectation;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::head::Version;
use crate::h1::persistence::Persistence;
use crate::net::buffer;
use crate::policy::hops;
use crate::policy::hops::Upgrading;
use crate::proxy::answer::Answering;
use crate::proxy::answer::NoAnswer;
use crate::proxy::draining::Standing;
use crate::proxy::outlet::Behind;
use crate::proxy::progress::Upload;
use crate::proxy::reply;
use crate::proxy::settings::KeepAliveField;

impl Answering<'_> {
    /// How the content is framed for the client. What ends with the origin's connection is chunked
    /// for a client that knows chunks, so that its connection persists and it can tell the end.
    pub(super) fn writer(&self, framing: Framing) -> BodyWriter {
        match (framing, self.asked.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => BodyWriter::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => BodyWriter::UntilClose,
            (Framing::Length(left), _) => BodyWriter::Length { left },
            (Framing::None, _) => BodyWriter::None,
        }
    }

    pub(super) fn client_persistence(
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
            Upload::Whole(_) | Upload::Behind => Persistence::Persist,
            Upload::Flowing if !refuses => Persistence::Persist,
            Upload::Flowing | Upload::Refused => Persistence::Close(CloseReason::ClientUnfinished),
        }
    }

    pub(super) fn encode_head(
        &mut self,
        framing: Framing,
        writer: &BodyWriter,
        client: Persistence,
    ) -> Result<hops::Removed, NoAnswer> {
        let octets = self.input.unread();
        let (head, out) = (&*self.head, &mut *self.out);
        buffer::furnish(out);
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
