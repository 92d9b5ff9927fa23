//! Holdfast, an HTTP/1.1 reverse proxy and load balancer that is exact about connections.
//!
//! This page is the map of the house. What it does for its operator is told in `README.md`.
//!
//! # The floors
//!
//! ```text
//! 6  app                      wiring: start, admin plane, shutdown, the command line
//! 5  proxy         config     the pure floors driven over net  │ text → checked settings
//! 4  net           observe    sockets, workers, the clock      │ records, counters, access log
//! 3  pool                     the ledger of one endpoint's connections        ┐
//! 2  policy                   decisions: hop-by-hop fields, route, balance, … │ pure
//! 1  h1                       octets ↔ messages (RFC 9112)                    │
//! 0  base                     units, names, reasons                           ┘
//! ```
//!
//! A module names only floors below its own, and rooms on one floor do not know each other. Inside a
//! folder a file uses only siblings that `mod.rs` declares above it, so the order of declaration is
//! an order to read in. `tests/tidy.rs` holds both.
//!
//! Calls go down, values come back. The pure floors decide and say why; `proxy` acts, counts and
//! logs. They have no async, no sockets, no clock and no dice of their own: time and chance are
//! arguments, so that their laws can be tested without a socket and without sleeping.
//!
//! # One request's way
//!
//! ```text
//! net/listen            a worker accepts
//!   proxy/accept        limits (policy/admission); a task for the connection
//!     proxy/converse    waits, owning no buffer; octets come, a desk is lent; h1/head
//!       proxy/serve     the whole story of one exchange:
//!         proxy/judge       framing (h1/framing), persistence (h1/persistence), what is refused
//!         policy/route      host and path → route → upstream
//!         proxy/attempts    each attempt:
//!           proxy/choose      an endpoint (policy/balance), a place there or in line
//!             proxy/checkout    the ledger (pool/ledger): reuse, dial (net/dial), wait or refuse
//!           proxy/attempt     the head written afresh (policy/hops, h1/encode); both directions
//!             proxy/origin      the answer, 1xx included (h1/exchange); a listed one is held (proxy/held)
//!             proxy/relay       content in constant memory (h1/body)
//!           proxy/failure     what broke, and whether once more (policy/retry)
//!         pool/verdict      may the connection carry another? proxy/lent parks or closes it
//!         proxy/tunnel      or, after a 101, octets both ways
//!         proxy/reply       or an answer of our own, with its reason
//!         proxy/account     counted (observe/*_metrics) and logged (observe/record)
//!     proxy/converse    the next request, or the end: proxy/client, net/linger
//!       proxy/tail        pipelined answers wait for company while the worker is busy
//! ```
//!
//! How each attempt went is the endpoint's health (`policy/health`, `proxy/condition`,
//! `proxy/heed`); `app/checks` asks endpoints besides. Beside it `proxy/tend` watches the parked
//! connections and takes the pulse of all (`proxy/pulse`), `app/refresh` looks names up,
//! `app/reload` brings another configuration and `proxy/replan` puts what changed into service.
//! `app/shedding` watches how many descriptors are open: `policy/shedding` says what is given up for
//! want of them, and `proxy/shedding` does so. `app/life` lives the process's life: it hears signals,
//! hands the sockets over to a new process (`net/handover`), and drains at the end (`policy/drain`,
//! driven by `app/shutdown`).
//!
//! # What is always true
//!
//! - *One pool an endpoint, exact.* Connecting, lent and idle connections together never exceed
//!   `max_connections`, for all workers together; somebody waits only while nothing idle suits and
//!   no place is free. These are laws (`pool/ledger`), tested over any operations (`pool/laws`).
//! - *Ownership is the state.* A lease is given back once; dropped, its connection is retired. A
//!   permit to connect is used once; dropped, its place is free. So any future may be dropped at any
//!   await: a half-used connection is closed, never reused.
//! - *Reuse is one function* (`pool/verdict`), *framing is one function* (`h1/framing`), each in the
//!   order of RFC 9112. A message that could be understood in two ways is refused; what goes on is
//!   written from what was understood, never copied.
//! - *An answer that was cut looks cut.* The client's connection is aborted, not ended.
//! - *Whatever closes, opens, refuses or repeats has a reason*, from the tables of `base/reason`:
//!   the same word in metrics, log, admin plane and `Proxy-Status`. Each departure counts once, and
//!   is told whole (`base/close`): by whom, how, why, in which phase. `tests/it/reasons` walks them.
//! - *A request goes out again* only while no octet of an answer has reached the client, and if it is
//!   not idempotent, only when none of it can have been acted upon (`policy/retry`).
//! - *Whatever a peer can grow is limited*, and every await on a peer has a deadline. Back-pressure
//!   is by not reading. An idle connection owns no buffer.
//! - *Locks are held for a few instructions*, never across an await; wakers are woken after.
//! - *Storage is lent and used again.* Nothing is allocated for a request, a field, or to count and
//!   log it (`tests/counting.rs`); what a burst needed is let go within seconds (`net/shelf`).
//! - *One home each*: the runtime under `net` alone, the clock in `net/clock`, `unsafe` in `net/sys`.
//! - *Nothing that comes from a network panics.* Should a task do so all the same, its connection
//!   ends, the panic is counted, and the process goes on.

pub mod base;
pub mod h1;
pub mod policy;
pub mod pool;
pub mod net;
pub mod observe;
pub mod proxy;
pub mod config;
pub mod app;
