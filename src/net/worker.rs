//! A worker: one thread, its tasks, and where it sleeps.
//!
//! The thread runs under the runtime's `block_on`, tasks are the runtime's own kind (`async_task`),
//! and the worker itself decides what runs next and parks in its own epoll. Leaving the parking to
//! the runtime costs a second epoll and an eventfd write a turn; the portable form does so, and
//! only there does the future that runs the turns ever wait. Origins' answers run before requests that
//! have yet to begin: with 1,000 busy clients that is a quarter of the CPU.
//!
//! Absent on purpose: work stealing. A connection stays where it was accepted.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use async_task::Runnable;
use futures::FutureExt as _;

use crate::net::clock;
use crate::net::clock::Deadline;
use crate::net::descriptors::Held;
use crate::net::lull;
use crate::net::lull::Brought;
use crate::net::mailbox::Letter;
use crate::net::mailbox::Mailbox;
use crate::net::mailbox::Sleep;
use crate::net::poller::Bell;
use crate::net::poller::Remover;
use crate::net::poller::Socket;
use crate::net::reactor::Key;
use crate::net::reactor::Reactor;
use crate::net::reactor::TimedOut;
use crate::net::reactor::Turn;

/// A worker as other threads see it. Lives as long as the process.
#[derive(Clone, Copy)]
pub struct Address(&'static Shared);

struct Shared {
    index: usize,
    /// Counts the turns, two each: odd while the worker sleeps.
    pulse: AtomicU64,
    mailbox: Mailbox,
    /// By which another worker takes a socket out of this one's reactor.
    remover: Remover,
    /// Its bell, its epoll and the second handle on that.
    _held: Held<3>,
}

struct Local {
    address: Address,
    reactor: Rc<Reactor>,
    ready: RefCell<VecDeque<Runnable>>,
    /// Those that go before them.
    ahead: RefCell<VecDeque<Runnable>>,
    turn_hooks: RefCell<Vec<TurnHook>>,
    stop: Cell<Stop>,
}

/// Called once a turn, before the worker sleeps; answers when it wants to be called again.
type TurnHook = Box<dyn Fn() -> Deadline>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    NotYet,
    Now,
}

thread_local! {
    static HERE: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Who hears of panics.
static ON_PANIC: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

static WORKERS: Mutex<Vec<Address>> = Mutex::new(Vec::new());

/// Runs a worker on this thread until [`stop`] is called on it: `begin` spawns its first tasks.
///
/// # Errors
/// The kernel's, when epoll or eventfd cannot be had.
pub fn run(index: usize, begin: impl FnOnce()) -> io::Result<()> {
    let mailbox = Mailbox::new()?;
    let reactor = Rc::new(Reactor::new(mailbox.bell())?);
    let remover = reactor.remover()?;
    let held = Held::new();
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        index,
        pulse: AtomicU64::new(0),
        mailbox,
        remover,
        _held: held,
    }));
    let address = Address(shared);
    let local = Rc::new(Local {
        address,
        reactor,
        ready: RefCell::default(),
        ahead: RefCell::default(),
        turn_hooks: RefCell::default(),
        stop: Cell::new(Stop::NotYet),
    });
    HERE.set(Some(Rc::clone(&local)));
    INDEX.set(index);
    WORKERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(address);
    clock::begin_batch();
    begin();
    async_std::task::block_on(local.turn_until_stopped());
    Ok(())
}

/// Every worker that has begun.
#[must_use]
pub fn all() -> Vec<Address> {
    WORKERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Which worker this thread is.
#[must_use]
pub fn here() -> Option<Address> {
    HERE.with_borrow(|here| here.as_ref().map(|local| local.address))
}

/// This worker's number; `usize::MAX` on threads that are no workers.
#[must_use]
pub fn index() -> usize {
    INDEX.get()
}

/// This worker's reactor. Errors: the thread is no worker.
pub fn reactor() -> io::Result<Rc<Reactor>> {
    HERE.with_borrow(|here| here.as_ref().map(|local| Rc::clone(&local.reactor)))
        .ok_or_else(|| io::Error::other("not on a worker's thread"))
}

/// This worker, and its reactor. Errors: the thread is no worker.
pub(super) fn home() -> io::Result<(Address, Rc<Reactor>)> {
    HERE.with_borrow(|here| {
        here.as_ref()
            .map(|local| (local.address, Rc::clone(&local.reactor)))
    })
    .ok_or_else(|| io::Error::other("not on a worker's thread"))
}

/// Starts a task on this worker; it runs until it ends. On a thread that is no worker it is dropped.
/// A panic ends the task alone, and is told to whom [`on_panic`] has named.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    HERE.with_borrow(|here| {
        let Some(local) = here else { return };
        let address = local.address;
        // A combinator: an async block that awaits what it captured has room for it twice.
        let future = AssertUnwindSafe(future).catch_unwind().map(|ended| {
            if ended.is_err()
                && let Some(tell) = ON_PANIC.get()
            {
                tell();
            }
        });
        let (runnable, task) =
            async_task::spawn_local(future, move |runnable| schedule(address, runnable));
        runnable.schedule();
        task.detach();
    });
}

/// Has `tell` called, on the worker, whenever one of its tasks has panicked. Once in a process.
pub fn on_panic(tell: impl Fn() + Send + Sync + 'static) {
    // Whoever came first stays: there is one service in a process.
    ON_PANIC.get_or_init(|| Box::new(tell));
}

/// Has `hook` called once a turn, before the worker sleeps; it answers when it wants another call.
pub fn each_turn(hook: impl Fn() -> Deadline + 'static) {
    HERE.with_borrow(|here| {
        if let Some(local) = here {
            local.turn_hooks.borrow_mut().push(Box::new(hook));
        }
    });
}

/// Ends this worker's loop after the turn.
pub fn stop() {
    HERE.with_borrow(|here| {
        if let Some(local) = here {
            local.stop.set(Stop::Now);
        }
    });
}

/// Awaits `future` until `deadline`. Cancel: whatever `future` does when dropped.
///
/// # Errors
/// [`TimedOut`], when the deadline passed first.
pub async fn within<T>(deadline: Deadline, future: impl Future<Output = T>) -> Result<T, TimedOut> {
    let timer = TimerPlace::new(deadline);
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        timer.poll(context).map(|()| Err(TimedOut))
    })
    .await
}

/// Awaits the deadline.
pub async fn sleep_until(deadline: Deadline) {
    let timer = TimerPlace::new(deadline);
    poll_fn(|context| timer.poll(context)).await;
}

/// Lets every other runnable task of this worker run first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The same worker, and not one of the same number.
impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Address {}

impl Address {
    /// Which worker.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index
    }

    /// Its turns so far, two each: odd while it sleeps. One that stays even is at one thing.
    #[must_use]
    pub fn pulse(self) -> u64 {
        self.0.pulse.load(Ordering::Relaxed)
    }

    /// Has the worker do something on its own thread.
    pub fn post(self, work: impl FnOnce() + Send + 'static) {
        self.0.mailbox.post(Letter::Work(Box::new(work)));
    }

    /// Takes a socket out of the worker's reactor, from any thread.
    pub(super) fn release(self, socket: &Socket) {
        self.0.remover.remove(socket);
    }

    /// Has the worker forget a registration whose stream has left it.
    pub(super) fn forget(self, key: Key) {
        if is_here(self) {
            // A thread that ends takes its reactor with it, and its streams perhaps later.
            let _thread_ends = HERE.try_with(|here| {
                if let Some(local) = &*here.borrow() {
                    local.reactor.forget(key);
                }
            });
        } else {
            self.0.mailbox.post(Letter::Forget(key));
        }
    }
}

impl Local {
    async fn turn_until_stopped(&self) {
        let mut letters = Vec::new();
        while self.stop.get() == Stop::NotYet {
            self.run_ready();
            self.read_letters(&mut letters);
            let again_by = self.call_hooks();
            let may_sleep = self.ready.borrow().is_empty() && self.stop.get() == Stop::NotYet;
            let lull_is_awaited = lull::is_awaited();
            let limit = match (may_sleep, self.address.0.mailbox.fall_asleep()) {
                (true, Sleep::Sound) if !lull_is_awaited => until(again_by),
                _ => Some(Duration::ZERO),
            };
            self.beat();
            let bell = self.reactor.wait(limit).await;
            self.beat();
            self.address.0.mailbox.wake_up();
            if bell == Bell::Rang {
                self.address.0.mailbox.still();
            }
            if lull_is_awaited {
                lull::after_turn(self.brought(bell));
            }
        }
    }

    fn brought(&self, bell: Bell) -> Brought {
        let nothing = self.ahead.borrow().is_empty() && self.ready.borrow().is_empty();
        match nothing && bell == Bell::Still {
            true => Brought::Nothing,
            false => Brought::Work,
        }
    }

    /// Only this worker writes it, so a load and a store do.
    fn beat(&self) {
        let pulse = &self.address.0.pulse;
        let next = pulse.load(Ordering::Relaxed).wrapping_add(1);
        pulse.store(next, Ordering::Relaxed);
    }

    /// Runs all that go ahead, which only the reactor's events add to, and then some of the others:
    /// so neither starves the other.
    fn run_ready(&self) {
        while let Some(runnable) = pop(&self.ahead) {
            runnable.run();
        }
        for _ in 0..TASKS_PER_TURN {
            let Some(runnable) = pop(&self.ready) else {
                return;
            };
            runnable.run();
        }
    }

    fn read_letters(&self, letters: &mut Vec<Letter>) {
        self.address.0.mailbox.collect(letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Task(runnable) => self.ready.borrow_mut().push_back(runnable),
                Letter::Forget(key) => self.reactor.forget(key),
                Letter::Work(work) => work(),
            }
        }
    }

    fn call_hooks(&self) -> Deadline {
        let hooks = self.turn_hooks.borrow();
        hooks
            .iter()
            .map(|hook| hook())
            .min()
            .unwrap_or(Deadline::NEVER)
    }
}

/// A place among the reactor's timers, given back when dropped.
struct TimerPlace {
    reactor: Option<Rc<Reactor>>,
    place: usize,
    deadline: Deadline,
}

impl TimerPlace {
    fn new(deadline: Deadline) -> Self {
        match reactor() {
            Ok(reactor) if deadline != Deadline::NEVER => {
                let place = reactor.add_timer(deadline);
                Self {
                    reactor: Some(reactor),
                    place,
                    deadline,
                }
            }
            _ => Self {
                reactor: None,
                place: 0,
                deadline,
            },
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.deadline.passed() {
            return Poll::Ready(());
        }
        if let Some(reactor) = &self.reactor {
            reactor.arm_timer(self.place, context);
        }
        Poll::Pending
    }
}

impl Drop for TimerPlace {
    fn drop(&mut self) {
        if let Some(reactor) = &self.reactor {
            reactor.remove_timer(self.place);
        }
    }
}

/// Whether this thread is that worker. Its number alone does not say so: where workers end and others
/// begin, as in tests, two have the same, and a task must not be run or dropped by the other.
fn is_here(address: Address) -> bool {
    let is_it = |local: &Rc<Local>| local.address == address;
    address.0.index == index()
        && HERE
            .try_with(|here| here.borrow().as_ref().is_some_and(is_it))
            .unwrap_or(false)
}

fn schedule(address: Address, runnable: Runnable) {
    if is_here(address) {
        HERE.with_borrow(|here| {
            if let Some(local) = here {
                let queue = match local.reactor.waking() {
                    Turn::Ahead => &local.ahead,
                    Turn::InLine => &local.ready,
                };
                queue.borrow_mut().push_back(runnable);
            }
        });
    } else {
        address.0.mailbox.post(Letter::Task(runnable));
    }
}

fn pop(queue: &RefCell<VecDeque<Runnable>>) -> Option<Runnable> {
    queue.borrow_mut().pop_front()
}

fn until(deadline: Deadline) -> Option<Duration> {
    (deadline != Deadline::NEVER)
        .then(|| Duration::from_millis(deadline.millis().saturating_sub(clock::now_millis())))
}

/// Tasks run before the next look at the reactor: few, so that an origin's answer is not kept waiting
/// by requests that have yet to begin; enough that the look costs each next to nothing.
const TASKS_PER_TURN: usize = 64;
