//! What every form of the reactor must do: the same tests, with the feature `portable` and without.
//!
//! Peers are plain blocking sockets on loopback. Where a test must let time pass, it does so on the
//! worker's own timer.

use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::dial;
use crate::net::dial::DialError;
use crate::net::dial::DialOptions;
use crate::net::dial::Switch;
use crate::net::dial::TcpOptions;
use crate::net::listen;
use crate::net::listen::Accepted;
use crate::net::listen::Beside;
use crate::net::listen::Local;
use crate::net::quickack::QuickAck;
use crate::net::reactor::Gone;
use crate::net::reactor::Initially;
use crate::net::reactor::Seen;
use crate::net::reactor::TimedOut;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use crate::net::splice::Pipe;
use crate::net::stream::Detached;
use crate::net::stream::Fault;
use crate::net::stream::Peeked;
use crate::net::stream::ReadEnd;
use crate::net::stream::reset_on_close;
use crate::net::worker;
use crate::net::worker::Address;

#[test]
fn octets_are_read_once_they_come() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        let mut buffer = Vec::with_capacity(16);
        assert!(matches!(stream.try_read(&mut buffer), Ok(None)));
        for word in [b"one".as_slice(), b"two", b"three"] {
            peer.write_all(word).unwrap();
            buffer.clear();
            let end = stream.read(&mut buffer, soon()).await;
            assert!(matches!(end, Ok(ReadEnd::Octets(count)) if count == word.len()));
            assert_eq!(buffer, word);
        }
        assert_eq!(stream.received(), 11);
    });
}

#[test]
fn octets_behind_a_full_buffer_are_read_without_a_further_event() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        peer.write_all(b"0123456789").unwrap();
        drop(peer);
        let mut all = Vec::new();
        let mut buffer = Vec::with_capacity(4);
        while let ReadEnd::Octets(_) = stream.read(&mut buffer, soon()).await.unwrap() {
            all.append(&mut buffer);
        }
        assert_eq!(all, b"0123456789");
    });
}

#[test]
fn an_origins_answer_goes_before_a_request_that_came_earlier() {
    on_a_worker(|| async {
        let (client, mut asking) = pair_that_is(Initially::Writable);
        let (origin, mut answering) = pair_that_is(Initially::Dialled);
        let heard = Rc::new(RefCell::new(Vec::new()));
        for (what, stream) in [("request", client), ("answer", origin)] {
            let heard = Rc::clone(&heard);
            worker::spawn(async move {
                stream.readable(soon()).await.unwrap();
                heard.borrow_mut().push(what);
            });
        }
        worker::yield_now().await; // both wait by now
        asking.write_all(b"?").unwrap();
        answering.write_all(b"!").unwrap();
        let late = soon();
        while heard.borrow().len() < 2 && !late.passed() {
            worker::yield_now().await;
        }
        let mut heard = heard.borrow_mut();
        if cfg!(any(not(target_os = "linux"), feature = "portable")) {
            // The runtime's reactor is a thread of its own, and may see one before the other is there.
            heard.sort_unstable();
        }
        assert_eq!(*heard, ["answer", "request"]);
    });
}

#[test]
fn a_read_ends_at_its_deadline_and_not_before() {
    on_a_worker(|| async {
        let (stream, _peer) = pair();
        let began = clock::now(); // what the deadline counts from
        let deadline = Deadline::after(Duration::from_millis(50));
        let end = stream.read(&mut Vec::with_capacity(1), deadline).await;
        assert!(matches!(end, Err(Fault::TimedOut)));
        let took = clock::real() - began;
        assert!(took >= Duration::from_millis(50), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

#[test]
fn a_wait_for_anything_ends_at_its_deadline() {
    on_a_worker(|| async {
        let deadline = Deadline::after(Duration::from_millis(20));
        let end = worker::within(deadline, std::future::pending::<()>()).await;
        assert_eq!(end, Err(TimedOut));
    });
}

#[test]
fn a_writer_waits_for_a_slow_reader_and_loses_nothing() {
    on_a_worker(|| async {
        const LENGTH: usize = 8 << 20; // more than loopback's buffers take
        let (stream, mut peer) = pair();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let octets: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        let mut slices = [IoSlice::new(&octets[..10]), IoSlice::new(&octets[10..])];
        stream.write_all(&mut slices, PATIENCE).await.unwrap();
        drop(stream);
        assert!(reader.join().unwrap() == octets);
    });
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn octets_go_from_stream_to_stream_by_a_pipe_and_both_count_them() {
    on_a_worker(|| async {
        let ((from, mut sender), (to, mut recipient)) = (pair(), pair());
        let octets: Vec<u8> = (0..200_000).map(|at| (at % 251) as u8).collect();
        let sent = octets.clone();
        let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
        let reading = std::thread::spawn(move || {
            let mut all = vec![0; 200_000];
            recipient.read_exact(&mut all).unwrap();
            all
        });
        let mut pipe = Pipe::lend().unwrap();
        while to.sent() < 200_000 {
            from.readable(soon()).await.unwrap();
            pipe.fill(&from, 200_000).unwrap();
            while pipe.held() > 0 {
                to.writable(soon()).await.unwrap();
                pipe.drain(&to).unwrap();
            }
        }
        assert_eq!((from.received(), to.sent()), (200_000, 200_000));
        sending.join().unwrap(); // and now its socket is closed
        from.readable(soon()).await.unwrap();
        assert!(matches!(pipe.fill(&from, 1), Ok(Some(ReadEnd::Fin))));
        assert!(reading.join().unwrap() == octets);
    });
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn a_pipe_that_holds_octets_is_never_lent_again() {
    on_a_worker(|| async {
        let ((from, mut sender), (other, mut second)) = (pair(), pair());
        sender.write_all(b"left over").unwrap();
        from.readable(soon()).await.unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert!(matches!(
            pipe.fill(&from, 100),
            Ok(Some(ReadEnd::Octets(9)))
        ));
        drop(pipe);
        let mut pipe = Pipe::lend().unwrap();
        second.write_all(b"new").unwrap();
        other.readable(soon()).await.unwrap();
        assert!(matches!(
            pipe.fill(&other, 100),
            Ok(Some(ReadEnd::Octets(3)))
        ));
        let (to, mut recipient) = pair();
        assert_eq!(pipe.drain(&to).unwrap(), 3);
        let mut octets = [0; 3];
        recipient.read_exact(&mut octets).unwrap();
        assert_eq!(&octets, b"new");
    });
}

#[test]
fn a_write_that_nobody_reads_ends_at_its_deadline() {
    on_a_worker(|| async {
        let (stream, _peer) = pair();
        let octets = vec![0; 32 << 20];
        let patience = Duration::from_millis(30);
        let end = stream
            .write_all(&mut [IoSlice::new(&octets)], patience)
            .await;
        assert!(matches!(end, Err(Fault::TimedOut)));
    });
}

#[test]
fn a_half_close_is_a_goodbye_only_to_those_who_take_it_for_one() {
    on_a_worker(|| async {
        let (stream, peer) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(gone(&stream, Gone::Fin, PATIENCE).await, Ok(()));
        let moment = Duration::from_millis(30);
        assert_eq!(gone(&stream, Gone::Reset, moment).await, Err(TimedOut));
        let end = stream.read(&mut Vec::with_capacity(1), soon()).await;
        assert!(matches!(end, Ok(ReadEnd::Fin)));
    });
}

#[test]
fn a_fin_behind_octets_is_seen_once_they_are_read() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        peer.write_all(b"last").unwrap();
        drop(peer);
        let mut buffer = Vec::with_capacity(4);
        stream.read(&mut buffer, soon()).await.unwrap();
        assert_eq!(gone(&stream, Gone::Fin, PATIENCE).await, Ok(()));
    });
}

#[test]
fn a_reset_is_noticed_and_is_never_read_as_a_fin() {
    on_a_worker(|| async {
        let (stream, peer) = pair();
        reset_on_close(peer.as_fd());
        drop(peer);
        assert_eq!(gone(&stream, Gone::Reset, PATIENCE).await, Ok(()));
        assert_eq!(stream.look(), Seen::Closed);
        let end = stream.read(&mut Vec::with_capacity(1), soon()).await;
        assert!(matches!(end, Err(Fault::Reset)), "{end:?}");
    });
}

#[test]
fn a_quiet_parked_stream_is_used_again() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        let parked = stream.detach();
        assert_eq!(parked.peek(), Peeked::Nothing);
        let stream = parked.attach().unwrap();
        assert_eq!(stream.look(), Seen::Quiet);
        exchange(&stream, &mut peer).await;
    });
}

#[test]
fn a_parked_stream_is_listed_when_its_peer_closes() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        exchange(&stream, &mut peer).await;
        let key = stream.key();
        let parked = stream.detach();
        drop(peer);
        assert_eq!(stirred().await, [key]);
        assert_eq!(parked.peek(), Peeked::Fin);
        assert_eq!(parked.attach().unwrap().look(), Seen::Stirred);
    });
}

#[test]
fn a_parked_stream_is_listed_when_its_peer_resets() {
    on_a_worker(|| async {
        let (stream, peer) = pair();
        let key = stream.key();
        let parked = stream.detach();
        reset_on_close(peer.as_fd());
        drop(peer);
        assert_eq!(stirred().await, [key]);
        assert_eq!(parked.peek(), Peeked::Broken);
        assert_eq!(parked.attach().unwrap().look(), Seen::Closed);
    });
}

#[test]
fn a_parked_stream_is_listed_when_its_peer_speaks_unasked() {
    on_a_worker(|| async {
        let (stream, mut peer) = pair();
        let key = stream.key();
        let parked = stream.detach();
        peer.write_all(b"HTTP/1.1 408").unwrap();
        assert_eq!(stirred().await, [key]);
        assert_eq!(parked.peek(), Peeked::Octets);
    });
}

#[test]
fn a_stream_goes_on_at_another_worker() {
    let here = start_worker();
    let there = start_worker();
    let (done, is_done) = mpsc::channel();
    here.post(move || {
        worker::spawn(async move {
            let (stream, mut peer) = pair();
            exchange(&stream, &mut peer).await;
            hand_over(stream.detach(), peer, there, done);
        });
    });
    let (parked, mut peer) = is_done.recv_timeout(PATIENCE).unwrap();
    assert_eq!(parked.moved(), (8, 8));
    // And home again, so that each worker has been the old one.
    let (done, is_done) = mpsc::channel();
    here.post(move || {
        worker::spawn(async move {
            let stream = parked.attach().unwrap();
            exchange(&stream, &mut peer).await;
            drop(peer);
            assert_eq!(gone(&stream, Gone::Fin, PATIENCE).await, Ok(()));
            done.send(stream.received()).unwrap();
        });
    });
    assert_eq!(is_done.recv_timeout(PATIENCE), Ok(12));
    here.post(worker::stop);
    there.post(worker::stop);
}

#[test]
fn a_detached_stream_dropped_elsewhere_closes_at_once() {
    let home = start_worker();
    let (give, take) = mpsc::channel();
    home.post(move || {
        give.send({
            let (stream, peer) = pair();
            (stream.detach(), peer)
        })
        .unwrap()
    });
    let (parked, mut peer) = take.recv_timeout(PATIENCE).unwrap();
    drop(parked);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    home.post(worker::stop);
}

#[test]
fn a_place_given_back_is_not_mistaken_for_its_former_tenant() {
    on_a_worker(|| async {
        let (first, peer) = pair();
        let former = first.key();
        drop(peer); // its event is under way while the place changes hands
        drop(first);
        let (second, mut peer) = pair();
        assert_eq!(second.key().place(), former.place());
        assert_ne!(second.key(), former);
        assert_eq!(second.look(), Seen::Quiet);
        exchange(&second, &mut peer).await;
    });
}

#[test]
fn a_letter_wakes_a_worker_that_sleeps_without_a_deadline() {
    let sleeper = start_worker();
    for _ in 0..100 {
        let (done, is_done) = mpsc::channel();
        sleeper.post(move || done.send(worker::index()).unwrap());
        assert_eq!(is_done.recv_timeout(PATIENCE), Ok(sleeper.index()));
    }
    sleeper.post(worker::stop);
}

#[test]
fn every_connection_reaches_one_of_the_workers_that_share_an_address() {
    const COUNT: usize = 40;
    let (tell, told) = mpsc::channel();
    let sockets = listen::bind(loopback(), 2, (128, &options().tcp), Beside::Nobody).unwrap();
    let Local::Ip(address) = sockets[0].local.clone() else {
        panic!("it was bound to an address");
    };
    let workers: Vec<Address> = sockets
        .into_iter()
        .map(|bound| {
            let tell = tell.clone();
            let address = start_worker();
            address.post(move || {
                worker::spawn(async move {
                    let mut listener = bound.attach().unwrap();
                    loop {
                        listener
                            .accept(|accepted| match accepted {
                                Accepted::Connection(socket, peer) => {
                                    let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
                                    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
                                    tell.send(peer).unwrap();
                                }
                                Accepted::Trouble(trouble) => panic!("{trouble:?}"),
                            })
                            .await;
                    }
                });
            });
            address
        })
        .collect();
    let clients: Vec<_> = (0..COUNT)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut want: Vec<_> = clients.iter().map(|it| it.local_addr().unwrap()).collect();
    let mut have: Vec<_> = (0..COUNT)
        .map(|_| told.recv_timeout(PATIENCE).unwrap())
        .collect();
    want.sort();
    have.sort();
    assert_eq!(want, have);
    for address in workers {
        address.post(worker::stop);
    }
}

#[test]
fn an_address_in_use_is_an_error() {
    let taken = TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    assert!(listen::bind(address, 2, (128, &options().tcp), Beside::Nobody).is_err());
}

#[test]
fn a_dialled_stream_carries_an_exchange() {
    on_a_worker(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        let to = listener.local_addr().unwrap();
        let stream = dial::dial(to, &options(), None, soon()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        exchange(&stream, &mut peer).await;
    });
}

#[test]
fn a_refused_dial_says_so() {
    on_a_worker(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        let end = dial::dial(to, &options(), None, soon()).await;
        assert!(matches!(end, Err(DialError::Refused)));
    });
}

/// Gives the stream to `there`, has it carry an exchange there, and hands it back.
fn hand_over(
    parked: Detached,
    mut peer: TcpStream,
    there: Address,
    done: mpsc::Sender<(Detached, TcpStream)>,
) {
    there.post(move || {
        worker::spawn(async move {
            let stream = parked.attach().unwrap();
            exchange(&stream, &mut peer).await;
            done.send((stream.detach(), peer)).unwrap();
        });
    });
}

/// Four octets each way.
async fn exchange(stream: &Stream, peer: &mut TcpStream) {
    stream
        .write_all(&mut [IoSlice::new(b"ping")], PATIENCE)
        .await
        .unwrap();
    let mut octets = [0; 4];
    peer.read_exact(&mut octets).unwrap();
    assert_eq!(&octets, b"ping");
    let answer = peer.try_clone().unwrap();
    std::thread::spawn(move || (&answer).write_all(b"pong").unwrap());
    let mut buffer = Vec::with_capacity(64);
    while buffer.len() < 4 {
        stream.read(&mut buffer, soon()).await.unwrap();
    }
    assert_eq!(buffer, b"pong");
}

async fn gone(stream: &Stream, gone: Gone, patience: Duration) -> Result<(), TimedOut> {
    let wait = poll_fn(|context| stream.poll_gone(gone, context));
    worker::within(Deadline::after(patience), wait).await
}

async fn stirred() -> Vec<crate::net::reactor::Key> {
    let reactor = worker::reactor().unwrap();
    let mut keys = Vec::new();
    let wait = poll_fn(|context| reactor.poll_stirred(&mut keys, context));
    worker::within(soon(), wait).await.unwrap();
    keys
}

/// Runs a scene on a worker of its own.
fn on_a_worker<F: Future<Output = ()> + 'static>(scene: impl FnOnce() -> F + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let address = start_worker();
    address.post(move || {
        worker::spawn(async move {
            scene().await;
            done.send(()).unwrap();
        });
    });
    is_done.recv_timeout(PATIENCE * 3).unwrap();
    address.post(worker::stop);
}

fn start_worker() -> Address {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = NEXT.fetch_add(1, Ordering::SeqCst);
    let (begun, has_begun) = mpsc::channel();
    std::thread::spawn(move || {
        worker::run(index, || begun.send(worker::here().unwrap()).unwrap()).unwrap();
    });
    has_begun.recv_timeout(PATIENCE).unwrap()
}

/// A stream of this worker and its blocking peer.
fn pair() -> (Stream, TcpStream) {
    pair_that_is(Initially::Writable)
}

fn pair_that_is(initially: Initially) -> (Stream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    peer.set_nodelay(true).unwrap();
    let stream = Stream::new(OwnedFd::from(socket), initially).unwrap();
    (stream, peer)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

fn options() -> DialOptions {
    DialOptions {
        tcp: TcpOptions {
            nodelay: Switch::On,
            keepalive_time: None,
            keepalive_interval: Duration::from_secs(10),
            keepalive_retries: 3,
            user_timeout: None,
            quickack: QuickAck::Auto,
        },
        sources: Vec::new(),
        bind_no_port: Switch::Off,
    }
}

/// Longer than any of these takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
