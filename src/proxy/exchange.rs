//! An exchange under way: who asks, what, and what is left of the request.
//!
//! Its story is told in `serve`; the files between take their turns at it.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::net::buffer;
use crate::observe::record::Kept;
use crate::observe::record::OriginRecord;
use crate::policy::retry::MethodClass;
use crate::pool::Verdict;
use crate::proxy::account;
use crate::proxy::answer::Answer;
use crate::proxy::attempt;
use crate::proxy::attempt::Content;
use crate::proxy::client::Client;
use crate::proxy::desk::Desk;
use crate::proxy::judge::Judged;
use crate::proxy::lent::Lent;
use crate::proxy::outlet::Outlet;
use crate::proxy::progress::Upload;
use crate::proxy::service::Route;
use crate::proxy::settings::Reuse;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// An exchange under way.
pub struct Exchange<'a> {
    /// The client.
    pub client: &'a Client,
    /// The answer's way to it.
    pub outlet: Outlet<'a>,
    /// The route, if one matched.
    pub route: Option<&'a Arc<Route>>,
    /// What is asked.
    pub judged: Judged,
    /// When its first octet came.
    pub began: u64,
    /// The request's content.
    pub content: Content,
    /// Whether doing it twice is as good as once.
    pub method: MethodClass,
    /// How often it was sent, or begun to be.
    pub sent: u32,
    /// What it is balanced by, where that is its key.
    pub key: Option<u64>,
    /// The last real answer that was to be tried again: if all fails, it is the client's.
    pub last: Option<Box<LastAnswer>>,
}

/// An answer that was held back whole while its request was tried again.
pub struct LastAnswer {
    /// What is known of it.
    pub answer: Answer,
    /// How far the request was when it came.
    pub upload: Upload,
    /// Its octets, framed for the client. Lent by the worker.
    pub octets: Vec<u8>,
    /// Who gave it, for the log.
    pub origin: Option<OriginRecord>,
}

impl Drop for LastAnswer {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.octets));
    }
}

/// How the attempts ended.
pub enum Outcomes {
    /// With an answer, of which the rest waits in `out`.
    Answered(Answer, Lent, Upload),
    /// With an answer that was held back, and whose connection was given back.
    Held(Box<LastAnswer>),
    /// With none in the last attempt; nothing went to the client.
    Failed(ProxyError),
    /// In the middle of an answer.
    BrokeOff(ProxyError),
    /// The client left: by FIN, or by a reset.
    ClientGone(CloseReason),
    /// The client took nothing for too long.
    ClientStalled,
    /// The client's request failed; nothing went to the client.
    ClientFailed(ProxyError, CloseReason),
}

impl<'a> Exchange<'a> {
    /// An exchange whose head was judged. Inlined, so that it is made where it stays: it is large.
    #[must_use]
    #[inline(always)]
    pub fn new(
        (client, outlet): (&'a Client, Outlet<'a>),
        route: Option<&'a Arc<Route>>,
        judged: Judged,
        began: u64,
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
            outlet,
            route,
            judged,
            began,
            content,
            method,
            sent: 0,
            key: None,
            last: None,
        }
    }
}

impl Exchange<'_> {
    /// Awaits `future` as long as the client is there. `None`: it left. Pinned by the caller, since
    /// it would be copied otherwise.
    pub async fn while_client_stays<T>(
        &self,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let (stream, gone) = (&self.client.stream, self.judged.asked.gone);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            stream.poll_gone(gone, context).map(|()| None)
        })
        .await
    }

    /// Counts the exchange and tells the access log.
    pub fn account(&self, desk: &mut Desk, route: Option<&Route>, kept: Kept) {
        account::finish(&mut desk.record, self.client, route, (self.began, kept));
    }
}

/// Gives back the connection of an answer that came whole.
pub(super) fn settle(
    desk: &mut Desk,
    mut lent: Lent,
    (answer, upload): (&Answer, Upload),
    reuse: Reuse,
) {
    lent.on_hint(answer.hint);
    let verdict = attempt::verdict_after(
        (answer.origin, answer.kind),
        upload,
        (desk.origin_in.unread(), attempt::wire(lent.stream())),
        (reuse, lent.allowance()),
    );
    if let Verdict::Retire(_) = verdict {
        lent.enter(Phase::Idle); // the exchange is over: it closes between two
    }
    desk.record.note_kept(lent.give_back(verdict));
}
