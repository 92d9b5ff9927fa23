//! A conversation with a client: exchange after exchange until something ends it.
//!
//! Between exchanges the connection owns nothing but its stream and a small task: the desk is lent
//! when octets come and given back when they are dealt with. What a client sends ahead stays in the
//! desk's buffer and is served in order.

use std::future::poll_fn;
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
use crate::observe::words::PipelineMode;
use crate::proxy::account;
use crate::proxy::client::Admitted;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::client::Opening;
use crate::proxy::desk::Desk;
use crate::proxy::desk::Lease;
use crate::proxy::introduce;
use crate::proxy::outlet::Outlet;
use crate::proxy::pipeline;
use crate::proxy::serve;
use crate::proxy::serve::After;
use crate::proxy::service::Standing;
use crate::proxy::settings::Pipelining;

/// Serves a client until its connection ends.
pub async fn converse(mut client: Client) {
    let ending = loop {
        if let Err(ending) = introduce::check_peer(&client) {
            break ending;
        }
        if let Err(ending) = await_octets(&mut client).await {
            break ending;
        }
        // Boxed: an idle connection then holds the small future of waiting, not the large one of
        // serving.
        if let Err(ending) = Box::pin(serve_what_came(&mut client)).await {
            break ending;
        }
    };
    Box::pin(client.end(ending)).await;
}

/// Waits, owning nothing, for the next request's first octet.
async fn await_octets(client: &mut Client) -> Result<(), Ending> {
    let idle_until = Deadline::after(introduce::patience(client));
    let (stream, service) = (&client.stream, &client.service);
    // A connection that has not been used may have its first request on the way when a drain
    // begins: it gets a grace.
    let grace_until = match client.nth.get() {
        0 => Deadline::after(UNUSED_GRACE),
        _ => Deadline::after(Duration::ZERO),
    };
    poll_fn(|context| {
        // Asked anew each time: a drain may have begun, and its deadline is nearer.
        let standing = service.standing();
        let deadline = match standing {
            Standing::Serving => idle_until,
            Standing::Draining => idle_until.min(grace_until),
        };
        match stream.poll_readable(context, deadline) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(TimedOut)) => Poll::Ready(Err(match standing {
                Standing::Serving => introduce::on_silence(client),
                Standing::Draining => Ending::linger(CloseReason::Drain),
            })),
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
    let result = match client.opening {
        Opening::Past => exchanges(client, desk).await,
        Opening::Due => Box::pin(open(client, desk)).await,
    };
    client.count_octets();
    client.show(ClientState::Idle);
    if result.is_ok() {
        client.enter(Phase::Idle); // at its end it is told in which phase that came
    }
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
    let mut began = None;
    let mut deadline = Deadline::NEVER;
    loop {
        if !desk.input.unread().is_empty() && began.is_none() {
            began = Some(clock::now_micros());
            client.enter(Phase::RequestHead);
            deadline = Deadline::after(client.listener.settings.header_timeout);
            account::begin(&mut desk.record, client);
        }
        let settings = &client.listener.settings;
        match desk.request.parse(desk.input.unread(), &settings.head) {
            Ok(Parsed::Complete) => {
                desk.input.hold(desk.request.octets);
                return Ok(Head::Whole(began.unwrap_or_else(clock::now_micros)));
            }
            Ok(Parsed::Partial) if began.is_some() => client.stream.more_is_due(),
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

/// How long a connection without a request is left alone when a drain begins: as long as
/// `drain.idle_grace` is by default.
const UNUSED_GRACE: Duration = Duration::from_secs(1);

/// Octets beyond the head's own limit that may be read ahead before the parser has had its say.
const HEAD_SLACK_OCTETS: usize = 1024;
