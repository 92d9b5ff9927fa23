//! Safe requests that came together, served at once, each over an origin's connection of its own;
//! their answers leave in order (RFC 9112 §9.3.2).
//!
//! ```text
//! unread heads ─► desks, at most `pipeline_depth` ─► serve, serve, serve, all in this task
//!                                                      │      └──────┴─ held back by their outlets
//!                                                      └ whose turn it is: straight to the client
//! ```
//! The run ends before the first request that is unsafe, has content, or is not wholly here; that
//! one is served alone, when every answer before it was sent. One task, so that they share the
//! wakers of the client's stream; it polls all it has whenever it wakes, which `pipeline_depth`
//! bounds. Absent on purpose: reading from the client, which only `converse` does.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use crate::base::CloseReason;
use crate::base::reason::By;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::head::Method;
use crate::h1::head::Parsed;
use crate::h1::head::RequestHead;
use crate::h1::head::Version;
use crate::h1::persistence::Persistence;
use crate::net::buffer::ReadBuffer;
use crate::net::clock;
use crate::observe::words::PipelineMode;
use crate::proxy::account;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::client::Leave;
use crate::proxy::desk::Desk;
use crate::proxy::desk::Lease;
use crate::proxy::introduce;
use crate::proxy::judge;
use crate::proxy::outlet::Flow;
use crate::proxy::outlet::Outlet;
use crate::proxy::outlet::Place;
use crate::proxy::serve;
use crate::proxy::serve::After;
use crate::proxy::unfinished;

/// Serves the request that is held in the desk's input, and with it those unread behind it that
/// may run at the same time, at most `depth`.
/// Cancel: the origins' connections retire; what was not answered is told to the access log.
pub(super) async fn run(client: &Client, desk: &mut Desk, began: u64, depth: u32) -> After {
    let nth = desk.record.client_nth;
    if joins((client, nth), &desk.request, desk.input.held()) != Joins::AndMore {
        return serve::serve(client, Outlet::Direct(&client.stream), desk, began).await;
    }
    let mut line = Line {
        client,
        input: &mut desk.input,
        depth: usize::try_from(depth).unwrap_or(usize::MAX),
        more: More::Perhaps,
        exchanges: VecDeque::new(),
    };
    let mut lease = Lease::take();
    if let Some(first) = lease.desk() {
        // The head's places count from its own beginning, so they hold for the copy.
        std::mem::swap(&mut first.request, &mut desk.request);
        std::mem::swap(&mut first.record, &mut desk.record);
        take_head(first, line.input.held());
    }
    line.input.release();
    line.add(lease);
    poll_fn(|context| line.poll(context)).await
}

/// Exchanges in the order of their requests.
struct Line<'a> {
    client: &'a Client,
    /// What was read ahead.
    input: &'a mut ReadBuffer,
    depth: usize,
    more: More,
    exchanges: VecDeque<InLine<'a>>,
}

/// Whether requests that are unread may still join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Perhaps,
    No,
}

/// An exchange in line.
struct InLine<'a> {
    place: Rc<Place>,
    serving: Pin<Box<dyn Future<Output = After> + 'a>>,
    after: Option<After>,
}

/// Whether a request joins the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// It does, and others may behind it.
    AndMore,
    /// It does, and the connection ends with its answer.
    AsLast,
    /// It is served alone.
    Not,
}

impl Line<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<After> {
        loop {
            self.let_join();
            let Some(first) = self.exchanges.front_mut() else {
                return Poll::Ready(After::Next);
            };
            // It is asked before its turn too: what it gives up by now need not go out.
            let mut after = first.poll(context);
            if after.is_none() && first.place.flow() == Flow::Later {
                let patience = self.client.listener.settings.write_timeout;
                // While what was held is written, it reads on, and sees its client leave.
                let _emptied = first
                    .place
                    .poll_flow((&self.client.stream, patience), context);
                after = first.poll(context);
            }
            match after {
                Some(After::Next) => {
                    self.exchanges.pop_front();
                }
                Some(After::End(ending)) => {
                    self.exchanges.pop_front();
                    return Poll::Ready(After::End(self.cut(ending)));
                }
                None => break,
            }
        }
        for behind in self.exchanges.iter_mut().skip(1) {
            behind.poll(context);
        }
        Poll::Pending
    }

    /// Takes in what may run beside what runs.
    fn let_join(&mut self) {
        while self.more == More::Perhaps && self.exchanges.len() < self.depth {
            match self.next_head() {
                Some(lease) => self.add(lease),
                None => self.more = More::No,
            }
        }
    }

    /// The next unread head on a desk of its own, if it is whole and may join.
    fn next_head(&mut self) -> Option<Lease> {
        let client = self.client;
        let unread = self.input.unread();
        if unread.is_empty() {
            return None;
        }
        let mut lease = Lease::take();
        let desk = lease.desk()?;
        desk.request.reset();
        // A head that is wrong or not whole is for `converse`, when its turn comes.
        let parsed = desk.request.parse(unread, &client.listener.settings.head);
        let Ok(Parsed::Complete) = parsed else {
            return None;
        };
        let count = desk.request.octets;
        let octets = unread.get(..count)?;
        match joins((client, client.nth.get() + 1), &desk.request, octets) {
            Joins::AndMore => {}
            Joins::AsLast => self.more = More::No,
            Joins::Not => return None,
        }
        account::begin(&mut desk.record, client, clock::now_micros());
        take_head(desk, octets);
        introduce::identify(client, desk);
        self.input.consume(count);
        let metrics = &client.listener.metrics;
        metrics.pipelined.of(PipelineMode::Concurrent).inc();
        Some(lease)
    }

    fn add(&mut self, lease: Lease) {
        if let Some(last) = self.exchanges.back() {
            last.place.on_another();
        }
        let place = Rc::new(Place::default());
        let exchange = serve_in_line(self.client, Rc::clone(&place), lease);
        self.exchanges.push_back(InLine {
            place,
            serving: Box::pin(exchange),
            after: None,
        });
    }

    /// The connection ends, and with it what is still in line: nothing of it is repeated.
    fn cut(&mut self, ending: Ending) -> Ending {
        let close = ending.told(self.client.live.phase());
        for exchange in self.exchanges.drain(..) {
            exchange.place.on_cut(close);
        }
        // A plain close is for when nothing more came.
        if ending.leave == Leave::Close
            && ending.by == By::Holdfast
            && !self.input.unread().is_empty()
        {
            return Ending::linger(ending.reason);
        }
        ending
    }
}

impl InLine<'_> {
    /// What follows, once that is known.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<After> {
        if self.after.is_none()
            && let Poll::Ready(after) = self.serving.as_mut().poll(context)
        {
            self.after = Some(after);
        }
        self.after
    }
}

async fn serve_in_line(client: &Client, place: Rc<Place>, lease: Lease) -> After {
    let mut telling = Telling {
        client,
        place,
        lease,
        told: Told::NotYet,
    };
    let outlet = Outlet::InLine(&client.stream, &telling.place);
    let after = match telling.lease.desk() {
        Some(desk) => {
            let began = desk.record.since;
            serve::serve(client, outlet, desk, began).await
        }
        None => After::End(Ending::abort(CloseReason::Ours)),
    };
    telling.told = Told::Whole;
    after
}

/// Sees to it that each exchange is told once, however it ends.
struct Telling<'a> {
    client: &'a Client,
    place: Rc<Place>,
    lease: Lease,
    told: Told,
}

/// Whether an exchange told its own story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    NotYet,
    Whole,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let (client, Some(desk)) = (self.client, self.lease.desk()) else {
            return;
        };
        if self.told == Told::Whole {
            return;
        }
        let close = self.place.cut().unwrap_or_else(|| {
            // Nothing in line ended it: a drain did, or the client left.
            let gone = || Ending::by_peer(CloseReason::ClientGone);
            let ending = client.cut.is_due().unwrap_or_else(gone);
            ending.told(client.live.phase())
        });
        let end = unfinished::unanswered(close.reason);
        unfinished::tell(client, desk, (close, end), self.place.reached());
    }
}

fn joins(whose: (&Client, u64), head: &RequestHead, octets: &[u8]) -> Joins {
    let safe = matches!(head.method, Method::Get | Method::Head | Method::Options);
    let plain = !head.fields.has(Field::Upgrade) && !head.fields.has(Field::Expect);
    if !safe || !plain || head.version != Version::Http11 {
        return Joins::Not;
    }
    match judge::judge(whose, head, octets, &[]) {
        Ok(judged) if judged.framing == Framing::None => match judged.asked.persistence {
            Persistence::Persist => Joins::AndMore,
            Persistence::Close(_) => Joins::AsLast,
        },
        Ok(_) | Err(_) => Joins::Not,
    }
}

fn take_head(desk: &mut Desk, octets: &[u8]) {
    desk.input.put(octets);
    desk.input.hold(octets.len());
}
