//! A conversation with a client: exchange after exchange until something ends it.
//!
//! Between exchanges the connection owns nothing but its stream and a small task: the desk is lent
//! when octets come and given back when they are dealt with. What a client sends ahead stays in the
//! desk's buffer and is served in order.

use std::future::poll_fn;
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
use crate::proxy::client::Admitted;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::client::Opening;
use crate::proxy::desk::Desk;
use crate::proxy::desk::Lease;
use crate::proxy::draining::Standing;
use crate::proxy::introduce;
use crate::proxy::outlet::Outlet;
use crate::proxy::pipeline;
use crate::proxy::rouse;
use crate::proxy::serve;
use crate::proxy::serve::After;
use crate::proxy::settings::Pipelining;

/// Serves a client until its connection ends.
pub async fn converse(mut client: Client) {
    let (service, live) = (Arc::clone(&client.service), client.live.shared());
    // A cut drops whatever is under way, wherever it waits.
    let cut = || match service.standing() {
        Standing::Ended => Some(()),
        Standing::Tunnels if live.phase() != Phase::Tunnel => Some(()),
        _ => None,
    };
    let (ending, drained) = match rouse::unless(cut, exchanges_to_the_end(&mut client)).await {
        Ok(ended) => ended,
        Err(()) => {
            let drained = match live.phase() {
                Phase::Idle => Drained::Idle,
                _ => Drained::Cut,
            };
            (Ending::cut(service.draining.at_deadline()), drained)
        }
    };
    if service.standing() != Standing::Serving {
        service.metrics.drain_closed.of(drained).inc();
    }
    Box::pin(client.end(ending)).await;
}

/// How it ends, and as what a drain counts that.
async fn exchanges_to_the_end(client: &mut Client) -> (Ending, Drained) {
    loop {
        if let Err(ending) = introduce::check_peer(client) {
            return (ending, Drained::Idle);
        }
        if let Err(ending) = await_octets(client).await {
            return (ending, Drained::Idle);
        }
        // Boxed: an idle connection then holds the small future of waiting, not the large one of
        // serving.
        if let Err(ending) = Box::pin(serve_what_came(client)).await {
            return (ending, Drained::Finished);
        }
    }
}

/// Waits, owning nothing, for the next request's first octet.
async fn await_octets(client: &mut Client) -> Result<(), Ending> {
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
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn serve_what_came(client: &mut Client) -> Result<(), Ending> {
    let mut lease = Lease::take();
    let Some(desk) = lease.desk() else {
        return Err(Ending::abort(CloseReason::Ours));
    };
    client.show(ClientState::Active);
    client.keep_up();
    let result = match client.opening {
        Opening::Past => exchanges(client, desk).await,
        Opening::Due => Box::pin(open(client, desk)).await,
    };
    client.count_octets();
    client.show(ClientState::Idle);
    client.enter(Phase::Idle);
    result
}

/// What comes before the first exchange, and the exchanges whose octets came with it.
async fn open(client: &mut Client, desk: &mut Desk) -> Result<(), Ending> {
    introduce::open(client, desk).await?;
    match desk.input.unread().is_empty() {
        true => Ok(()),
        false => exchanges(client, desk).await,
    }
}

/// Exchange after exchange, as long as octets are at hand.
async fn exchanges(client: &mut Client, desk: &mut Desk) -> Result<(), Ending> {
    loop {
        let began = read_head(client, desk).await?;
        if let Head::Whole(_) = began {
            let asker = introduce::identify(client, desk);
            if client.admitted == Admitted::Undecided {
                Box::pin(introduce::admit(client, asker.ip())).await?;
            }
        }
        let outlet = Outlet::Direct(&client.stream);
        let after = match (began, client.admitted) {
            (Head::Whole(began), Admitted::Yes | Admitted::Undecided) => {
                match client.listener.settings.pipelining {
                    Pipelining::Concurrent { depth } if !desk.input.unread().is_empty() => {
                        Box::pin(pipeline::run(client, desk, began, depth)).await
                    }
                    _ => serve::serve(client, outlet, desk, began).await,
                }
            }
            (Head::Whole(began), Admitted::No(error)) | (Head::Bad(began, error), _) => {
                Box::pin(serve::refuse((client, outlet), desk, (began, None), error)).await
            }
        };
        desk.input.release();
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
                // Requests that we answer ourselves wait for nobody: others get their turn here.
                worker::yield_now().await;
                client.keep_up();
            }
        }
    }
}

enum Head {
    /// It was read whole, and is held.
    Whole(u64),
    /// It is wrong, or did not come in time.
    Bad(u64, ProxyError),
}

/// Reads a request head into the desk.
async fn read_head(client: &mut Client, desk: &mut Desk) -> Result<Head, Ending> {
    desk.request.reset();
    client.enter(Phase::RequestHead);
    let mut began = None;
    let mut deadline = Deadline::NEVER;
    loop {
        if !desk.input.unread().is_empty() && began.is_none() {
            began = Some(clock::now_micros());
            deadline = Deadline::after(client.listener.settings.header_timeout);
            account::begin(&mut desk.record, client);
        }
        let settings = &client.listener.settings;
        match desk.request.parse(desk.input.unread(), &settings.head) {
            Ok(Parsed::Complete) => {
                desk.input.hold(desk.request.octets);
                return Ok(Head::Whole(began.unwrap_or_else(clock::now_micros)));
            }
            Ok(Parsed::Partial) => {}
            Err(error) => {
                let began = began.unwrap_or_else(clock::now_micros);
                return Ok(Head::Bad(began, error.proxy_error()));
            }
        }
        let most = settings.head.octets.as_len() + HEAD_SLACK_OCTETS;
        // A first read without a deadline: it was readable a moment ago, and if that was a false
        // alarm the idle deadline rules.
        let until = match began {
            Some(_) => deadline,
            None => Deadline::after(settings.idle_timeout),
        };
        match desk.input.fill(&client.stream, most, until).await {
            Ok(ReadEnd::Octets(_)) => {}
            Ok(ReadEnd::Fin) if began.is_none() => {
                return Err(Ending::by_peer(CloseReason::PeerFin));
            }
            Ok(ReadEnd::Fin) => return Err(Ending::by_peer(CloseReason::ClientUnfinished)),
            Err(Fill::Full) => {
                let began = began.unwrap_or_else(clock::now_micros);
                return Ok(Head::Bad(began, ProxyError::HeadTooLarge));
            }
            Err(Fill::Fault(Fault::TimedOut)) => match began {
                Some(began) => return Ok(Head::Bad(began, ProxyError::RequestTimeout)),
                None => return Err(Ending::linger(CloseReason::IdleTimeout)),
            },
            Err(Fill::Fault(Fault::Reset)) => return Err(Ending::by_peer(CloseReason::PeerRst)),
            Err(Fill::Fault(Fault::Io(_))) => return Err(Ending::abort(CloseReason::IoError)),
        }
    }
}

/// Octets beyond the head's own limit that may be read ahead before the parser has had its say.
const HEAD_SLACK_OCTETS: usize = 1024;
