//! A conversation with a client: exchange after exchange until something ends it.
//!
//! Between exchanges the connection owns nothing but its stream and a small task: the desk is lent
//! when octets come and given back when they are dealt with. What a client sends ahead stays in the
//! desk's buffer and is served in order.

use std::future::Future as _;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;
use crate::h1::head::Parsed;
use crate::net::Deadline;
use crate::net::buffer::Fill;
use crate::net::clock;
use crate::net::reactor::TimedOut;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::worker;
use crate::observe::words::ClientState;
use crate::observe::words::Drained;
use crate::observe::words::PipelineMode;
use crate::proxy::account;
use crate::proxy::beginning::Beginning;
use crate::proxy::beginning::PAUSE;
use crate::proxy::booth;
use crate::proxy::booth::Served;
use crate::proxy::client::Admitted;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::client::Opening;
use crate::proxy::desk::Desk;
use crate::proxy::desk::Lease;
use crate::proxy::draining::Standing;
use crate::proxy::introduce;
use crate::proxy::lent;
use crate::proxy::outlet::Outlet;
use crate::proxy::pipeline;
use crate::proxy::rouse;
use crate::proxy::serve;
use crate::proxy::serve::After;
use crate::proxy::settings::Pipelining;
use crate::proxy::tail::Left;
use crate::proxy::tail::Tail;
use crate::proxy::unfinished;

/// Serves a client until its connection ends.
pub async fn converse(client: Box<Client>) {
    let service = Arc::clone(&client.service);
    let (client, (ending, drained)) = rouse::listed(pin!(exchanges_to_the_end(client))).await;
    if service.standing() != Standing::Serving {
        service.metrics.drain_closed.of(drained).inc();
    }
    Box::pin(client.end(ending)).await;
}

/// How it ends, and as what a drain counts that.
async fn exchanges_to_the_end(mut client: Box<Client>) -> (Box<Client>, (Ending, Drained)) {
    loop {
        if let Err(ending) = introduce::check_peer(&client) {
            return (client, (ending, Drained::Idle));
        }
        let awaited = rouse::unless(|| client.cut.is_due(), pin!(await_octets(&client))).await;
        match awaited {
            Ok(Ok(())) => {}
            Ok(Err(ending)) => return (client, (ending, Drained::Idle)),
            Err(ending) => {
                let drained = drained(client.live.phase());
                return (client, (ending, drained));
            }
        }
        let (served, result) = booth::serve_in(client, serve_what_came).await;
        client = served;
        if let Err(ended) = result {
            return (client, ended);
        }
    }
}

/// Waits, owning nothing, for the next request's first octet.
async fn await_octets(client: &Client) -> Result<(), Ending> {
    if let Some(beginning) = &client.beginning {
        beginning.more(&client.stream).await;
        return Ok(());
    }
    let idle_until = Deadline::after(introduce::patience(client));
    let (stream, service) = (&client.stream, &client.service);
    let (idle_since, mut place) = (Deadline::after(Duration::ZERO), None);
    poll_fn(|context| {
        // Asked anew each time: a drain may have come to the closing, and its deadline is nearer.
        let drain_until = match service.standing() {
            Standing::Serving | Standing::Announced => Deadline::NEVER,
            _ => {
                let place = *place.get_or_insert_with(|| fastrand::u32(0..1000));
                service.draining.idle_deadline(idle_since, place)
            }
        };
        match stream.poll_readable(context, idle_until.min(drain_until)) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(TimedOut)) if drain_until <= idle_until => {
                Poll::Ready(Err(Ending::linger(CloseReason::Drain)))
            }
            Poll::Ready(Err(TimedOut)) => Poll::Ready(Err(introduce::on_silence(client))),
            // At once: a close in stages would keep the descriptor that is wanted.
            Poll::Pending => match service.shed.closes(client.live.since_micros()) {
                Some(reason) => Poll::Ready(Err(Ending::close(reason))),
                None => Poll::Pending,
            },
        }
    })
    .await
}

/// Serves the requests whose octets are at hand, unless it is cut: that drops whatever is
/// under way, wherever it waits.
async fn serve_what_came(mut client: Box<Client>) -> Served {
    let mut lease = Lease::take();
    let Some(desk) = lease.desk() else {
        let ours = Ending::abort(CloseReason::Ours);
        return (client, Err((ours, Drained::Finished)));
    };
    client.show(ClientState::Active);
    client.keep_up();
    let tail = Tail::default();
    let result = match serve_unless_cut(&mut client, desk, &tail).await {
        Ok(result) => result.map_err(|ending| (ending, Drained::Finished)),
        Err(ending) => {
            // What waits was told as answered.
            tail.leave_at_once(&client.stream);
            Err((ending, tell_cut(&client, desk, ending)))
        }
    };
    client.count_octets();
    // What ends here ends in the phase that it was in.
    if result.is_ok() && client.beginning.is_none() {
        client.show(ClientState::Idle);
        client.enter(Phase::Idle);
    }
    (client, result)
}

/// Serves at this desk. `Err`: a drain or an operator cut it, and what it was doing was dropped.
async fn serve_unless_cut(
    client: &mut Client,
    desk: &mut Desk,
    tail: &Tail,
) -> Result<Result<(), Ending>, Ending> {
    let cut = Rc::clone(&client.cut);
    let mut serving = pin!(Some(serve_at(client, desk, tail)));
    let served = poll_fn(|context| match serving.as_mut().as_pin_mut() {
        Some(serving) => serving.poll(context),
        None => Poll::Pending,
    });
    let served = rouse::unless(|| cut.is_due(), pin!(served)).await;
    if let Err(ending) = &served {
        // The origins' connections are in there; it is not the client who gave them up.
        lent::drop_for(ending.reason, || serving.set(None));
    }
    served
}

/// Tells the exchange that was cut, if one was under way at this desk: then its head is held here.
fn tell_cut(client: &Client, desk: &mut Desk, ending: Ending) -> Drained {
    let phase = client.live.phase();
    if !desk.input.held().is_empty() {
        let close = ending.told(phase);
        let told = (close, unfinished::end(close));
        unfinished::tell(client, desk, told, client.reached());
    }
    drained(phase)
}

/// As what a drain counts a connection that it cuts.
const fn drained(phase: Phase) -> Drained {
    match phase {
        Phase::Idle => Drained::Idle,
        _ => Drained::Cut,
    }
}

async fn serve_at(client: &mut Client, desk: &mut Desk, tail: &Tail) -> Result<(), Ending> {
    match client.opening {
        Opening::Past => exchanges(client, desk, tail).await,
        Opening::Due => Box::pin(open(client, desk, tail)).await,
    }
}

/// What comes before the first exchange, and the exchanges whose octets came with it.
async fn open(client: &mut Client, desk: &mut Desk, tail: &Tail) -> Result<(), Ending> {
    introduce::open(client, desk).await?;
    match desk.input.unread().is_empty() {
        true => Ok(()),
        false => exchanges(client, desk, tail).await,
    }
}

/// Exchange after exchange, as long as octets are at hand. Then no answer waits any more.
async fn exchanges(client: &mut Client, desk: &mut Desk, tail: &Tail) -> Result<(), Ending> {
    let ended = exchanges_before(tail, client, desk).await;
    if tail.is_empty() {
        return ended;
    }
    let left = leave(tail, client).await;
    ended.and(left)
}

/// The same; some answers may wait in the tail when it is over.
async fn exchanges_before(tail: &Tail, client: &mut Client, desk: &mut Desk) -> Result<(), Ending> {
    loop {
        let began = read_head(client, desk, tail).await?;
        if let Head::Whole(_) = began {
            let asker = introduce::identify(client, desk);
            if client.admitted == Admitted::Undecided {
                Box::pin(introduce::admit(client, asker.ip())).await?;
            }
        }
        let outlet = match client.listener.settings.pipelining {
            Pipelining::Concurrent { .. } => Outlet::Direct(&client.stream),
            Pipelining::Serial | Pipelining::Close => Outlet::Behind(&client.stream, tail),
        };
        let after = match (began, client.admitted) {
            (Head::Nothing, _) => return Ok(()),
            (Head::Whole(began), Admitted::Yes | Admitted::Undecided) => {
                match client.listener.settings.pipelining {
                    Pipelining::Concurrent { depth } if !desk.input.unread().is_empty() => {
                        Box::pin(pipeline::run(client, desk, began, depth)).await
                    }
                    _ => serve_with((client, outlet), tail, desk, began).await,
                }
            }
            (Head::Whole(began), Admitted::No(error)) => {
                note(client, desk, Legible::Whole);
                Box::pin(serve::refuse((client, outlet), desk, (began, None), error)).await
            }
            (Head::Bad(began, error), _) => {
                Box::pin(serve::refuse((client, outlet), desk, (began, None), error)).await
            }
        };
        desk.input.release();
        skip_empty_line(client, desk);
        match after {
            After::End(ending) => return Err(ending),
            After::Next if desk.input.unread().is_empty() => return Ok(()),
            After::Next => {
                client
                    .listener
                    .metrics
                    .pipelined
                    .of(PipelineMode::Serial)
                    .inc();
                // Requests that we answer ourselves wait for nobody: others get their turn here. Where
                // an answer waits in the tail an origin was waited for already.
                if tail.is_empty() {
                    worker::yield_now().await;
                }
                client.keep_up();
            }
        }
    }
}

/// Serves a request while the answers before it may wait for company.
async fn serve_with(
    (client, outlet): (&Client, Outlet<'_>),
    tail: &Tail,
    desk: &mut Desk,
    began: u64,
) -> After {
    let mut serving = pin!(serve::serve(client, outlet, desk, began));
    poll_fn(|context| {
        let after = serving.as_mut().poll(context);
        if after.is_pending() && tail.leave_in_time(&client.stream, context) == Left::Now {
            client.count_octets(); // what is counted from now on is the next answer's
        }
        after
    })
    .await
}

/// Writes the answers that wait.
async fn leave(tail: &Tail, client: &Client) -> Result<(), Ending> {
    let patience = client.listener.settings.write_timeout;
    let left = tail.leave(&client.stream, patience).await;
    left.map_err(|fault| Ending::unwritten(&fault))
}

enum Head {
    /// Nothing came that begins one, or what came waits with its client for the rest.
    Nothing,
    /// It was read whole, and is held.
    Whole(u64),
    /// It is wrong, or did not come in time.
    Bad(u64, ProxyError),
}

/// Reads a request head into the desk.
async fn read_head(client: &mut Client, desk: &mut Desk, tail: &Tail) -> Result<Head, Ending> {
    desk.request.reset();
    let (mut began, mut deadline) = match client.beginning.take() {
        None => (None, Deadline::NEVER),
        Some(beginning) => (Some(beginning.began), go_on(client, desk, *beginning)),
    };
    loop {
        if began.is_none() && skip_empty_line(client, desk) == Skipped::AllThereWas {
            return Ok(Head::Nothing);
        }
        if !desk.input.unread().is_empty() && began.is_none() {
            began = Some(begin(client, desk));
            deadline = Deadline::after(client.listener.settings.header_timeout);
        }
        let settings = &client.listener.settings;
        let parsed = match desk.input.unread() {
            [] => Ok(Parsed::Partial),
            unread => desk.request.parse(unread, &settings.head),
        };
        match parsed {
            Ok(Parsed::Complete) => {
                desk.input.hold(desk.request.octets);
                return Ok(Head::Whole(began.unwrap_or_else(clock::now_micros)));
            }
            Ok(Parsed::Partial) if began.is_some() => client.stream.more_is_due(),
            Ok(Parsed::Partial) => {}
            Err(error) => return Ok(bad(client, desk, began, error.proxy_error())),
        }
        let most = settings.head.octets.as_len() + HEAD_SLACK_OCTETS;
        // Nobody waits for a request that has yet to come.
        if !tail.is_empty() {
            leave(tail, client).await?;
        }
        // A first read waits for nothing: it was readable a moment ago, and if that was a false alarm
        // the idle deadline rules.
        let at_hand = match began {
            None => desk.input.try_fill(&client.stream, most),
            Some(_) => Ok(None),
        };
        let until = || match began {
            Some(_) => deadline.min(Deadline::after(PAUSE)),
            None => Deadline::after(settings.idle_timeout),
        };
        let read = match at_hand.transpose() {
            Some(read) => read,
            None => desk.input.fill(&client.stream, most, until()).await,
        };
        match read {
            Ok(ReadEnd::Octets(_)) => {}
            Ok(ReadEnd::Fin) if began.is_none() => {
                return Err(Ending::by_peer(CloseReason::PeerFin));
            }
            Ok(ReadEnd::Fin) => return Err(Ending::by_peer(CloseReason::ClientUnfinished)),
            Err(Fill::Full) => return Ok(bad(client, desk, began, ProxyError::HeadTooLarge)),
            Err(Fill::Fault(Fault::TimedOut)) => match began {
                Some(began) if !deadline.passed() => {
                    client.beginning = Some(put_aside(desk, began, deadline));
                    return Ok(Head::Nothing);
                }
                Some(_) => return Ok(bad(client, desk, began, ProxyError::RequestTimeout)),
                None => return Err(Ending::linger(CloseReason::IdleTimeout)),
            },
            Err(Fill::Fault(Fault::Reset)) => return Err(Ending::by_peer(CloseReason::PeerRst)),
            Err(Fill::Fault(Fault::Io(_))) => return Err(Ending::abort(CloseReason::IoError)),
        }
    }
}

/// The first octet of a head is there: from when on its exchange counts.
fn begin(client: &Client, desk: &mut Desk) -> u64 {
    let began = clock::now_micros();
    if client.skipped_before.get() == client.next_nth() {
        desk.request.on_empty_line();
    }
    client.enter(Phase::RequestHead);
    account::begin(&mut desk.record, client, began);
    began
}

/// Takes what came of a head off its desk.
fn put_aside(desk: &mut Desk, began: u64, deadline: Deadline) -> Box<Beginning> {
    Box::new(Beginning {
        octets: desk.input.take_unread(),
        began,
        began_wall: desk.record.began,
        deadline,
    })
}

/// Lays what came of a head on a desk again; answers until when the rest must come.
fn go_on(client: &Client, desk: &mut Desk, beginning: Beginning) -> Deadline {
    desk.input.put_back(beginning.octets);
    if client.skipped_before.get() == NonZeroU64::new(client.nth.get()) {
        desk.request.on_empty_line();
    }
    let began = (beginning.began, beginning.began_wall);
    account::open(&mut desk.record, client, began);
    beginning.deadline
}

/// A head that is not served; what of it was legible is logged.
fn bad(client: &Client, desk: &mut Desk, began: Option<u64>, error: ProxyError) -> Head {
    note(client, desk, Legible::Begun);
    Head::Bad(began.unwrap_or_else(clock::now_micros), error)
}

/// How much of a head was read that is refused.
#[derive(Clone, Copy)]
enum Legible {
    /// All of it, and it is held.
    Whole,
    /// Perhaps its beginning.
    Begun,
}

/// Notes for the log what was legible of a head that is refused.
fn note(client: &Client, desk: &mut Desk, legible: Legible) {
    let octets = match legible {
        Legible::Whole => desk.input.held(),
        Legible::Begun => desk.input.unread(),
    };
    if desk.request.has_request_line() && !client.service.access_log.is_off() {
        account::note_head(&mut desk.record, &desk.request, octets);
    }
}

/// Whether an empty line was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipped {
    Nothing,
    AllThereWas,
}

/// Old clients send an empty line behind a body (RFC 9112 §2.2). If nothing follows it, no request
/// has begun, and the connection idles. One is skipped before each request; another is
/// refused, as it is when both come in one segment.
fn skip_empty_line(client: &Client, desk: &mut Desk) -> Skipped {
    let next = client.next_nth();
    if desk.input.unread() != b"\r\n" || client.skipped_before.replace(next) == next {
        return Skipped::Nothing;
    }
    desk.input.consume(2);
    Skipped::AllThereWas
}

/// Octets beyond the head's own limit that may be read ahead before the parser has had its say.
const HEAD_SLACK_OCTETS: usize = 1024;
