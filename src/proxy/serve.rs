//! One exchange, top to bottom: the only file with the whole story.
//!
//! ```text
//! read the head ─► judge it ─► route ─► attempts ─► the rest of the answer ─► what next
//!                                        │ pick an endpoint, take a connection,
//!                                        │ send the request, pass the answer on,
//!                                        │ give the connection back
//!                                        └ on failure: policy/retry says whether once more
//! ```
//! Whatever ends the exchange early has a name and becomes an answer of our own, or, where the
//! client has part of an answer already, an abort that it can see.

use std::future::poll_fn;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::h1::body::BodyReader;
use crate::h1::encode;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::framing::request_framing;
use crate::h1::head::Method;
use crate::h1::head::Version;
use crate::h1::octets;
use crate::h1::persistence::Persistence;
use crate::h1::persistence::request_persistence;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::dial::DialError;
use crate::net::reactor::Gone;
use crate::net::stream::Fault;
use crate::net::sys;
use crate::net::worker;
use crate::observe::record::End;
use crate::observe::record::Kept;
use crate::observe::record::OriginRecord;
use crate::observe::words::CodeClass;
use crate::observe::words::QueueReject;
use crate::observe::words::RetryResult;
use crate::observe::words::StaleFound;
use crate::observe::words::StaleResult;
use crate::observe::words::TruncatedFraming;
use crate::policy::balance::Dice;
use crate::policy::balance::Tried;
use crate::policy::hops;
use crate::policy::retry;
use crate::policy::retry::Course;
use crate::policy::retry::Decision;
use crate::policy::retry::Failed;
use crate::policy::retry::Failure;
use crate::policy::retry::Proof;
use crate::policy::retry::RequestHeld;
use crate::policy::retry::RetryStatus;
use crate::policy::timeouts::BodyRate;
use crate::pool::Verdict;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Queueing;
use crate::pool::verdict;
use crate::proxy::checkout::Acquired;
use crate::proxy::checkout::Inspect;
use crate::proxy::checkout::Lent;
use crate::proxy::checkout::NotAcquired;
use crate::proxy::checkout::Want;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::desk::Desk;
use crate::proxy::origin;
use crate::proxy::origin::Answer;
use crate::proxy::origin::AnswerKind;
use crate::proxy::origin::Answering;
use crate::proxy::origin::Asked;
use crate::proxy::origin::Begun;
use crate::proxy::origin::Ended;
use crate::proxy::origin::Expect;
use crate::proxy::origin::NoAnswer;
use crate::proxy::origin::Progress;
use crate::proxy::origin::Upgrade;
use crate::proxy::origin::Upload;
use crate::proxy::origin::Wanted;
use crate::proxy::relay;
use crate::proxy::relay::Form;
use crate::proxy::relay::Meter;
use crate::proxy::relay::Patience;
use crate::proxy::relay::Sink;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;
use crate::proxy::replay::Replay;
use crate::proxy::service::Route;
use crate::proxy::settings::HalfClose;
use crate::proxy::settings::Http10;
use crate::proxy::settings::Reuse;
use crate::proxy::tunnel;
use crate::proxy::upstream::Endpoint;
use crate::proxy::upstream::InFlight;
use crate::proxy::upstream::Upstream;
