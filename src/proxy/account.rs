//! The account of an exchange: what is counted and what the access log is told when it is over.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::SystemTime;

use crate::base::ProxyError;
use crate::h1::fields::Field;
use crate::h1::head::RequestHead;
use crate::h1::head::Version;
use crate::net::clock;
use crate::observe::ExchangeRecord;
use crate::observe::ListenerMetrics;
use crate::observe::record::End;
use crate::observe::record::Kept;
use crate::observe::record::Timeline;
use crate::observe::words::CodeClass;
use crate::observe::words::HopField;
use crate::policy::hops::Removed;
use crate::proxy::client::Client;
use crate::proxy::lent;
use crate::proxy::service::Route;
use crate::proxy::service::Service;

/// Awaits `future`; `tell` is called each time it has to wait.
/// Cancel: whatever `future` does when dropped.
pub async fn telling<T>(mut future: Pin<&mut impl Future<Output = T>>, tell: impl Fn()) -> T {
    poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            tell();
        }
        polled
    })
    .await
}

/// Begins the account of a client's next request.
pub fn begin(record: &mut ExchangeRecord, client: &Client, since: u64) {
    let nth = client.nth.get() + 1;
    client.nth.set(nth);
    client.live.begin_request(nth);
    let began = match client.service.access_log.is_off() {
        true => SystemTime::UNIX_EPOCH, // nobody will read it
        false => clock::wall(),
    };
    open(record, client, (since, began));
}

/// Opens the account of the request that has begun, on whichever desk it is now.
pub fn open(record: &mut ExchangeRecord, client: &Client, (since, began): (u64, SystemTime)) {
    record.client_conn = client.live.facts().id;
    record.client = client.address;
    if record.listener.is_none() && !client.service.access_log.is_off() {
        record.listener = Some(client.listener.settings.name.clone());
    }
    record.restart(client.nth.get(), began);
    record.since = since;
}

/// Notes what was asked.
pub fn note_head(record: &mut ExchangeRecord, head: &RequestHead, octets: &[u8]) {
    record.method.set(head.method_octets.of(octets));
    record.target.set(head.target.whole.of(octets));
    record.host.set(head.host(octets));
    record.minor_version = match head.version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    };
    record.user_agent.set(
        head.fields
            .first(Field::UserAgent, octets)
            .unwrap_or_default(),
    );
    record.referer.set(
        head.fields
            .first(Field::Referer, octets)
            .unwrap_or_default(),
    );
}

/// Counts hop-by-hop fields that were taken out.
pub fn count_removed(metrics: &ListenerMetrics, removed: &Removed) {
    let table = &metrics.hop_by_hop_removed;
    for (field, count) in [
        (HopField::Connection, removed.connection),
        (HopField::KeepAlive, removed.keep_alive),
        (HopField::ProxyConnection, removed.proxy_connection),
        (HopField::Te, removed.te),
        (HopField::Named, removed.named),
    ] {
        if count > 0 {
            table.of(field).add(u64::from(count));
        }
    }
}

/// Counts the exchange and tells it to the access log.
pub fn finish(
    record: &mut ExchangeRecord,
    client: &Client,
    route: Option<&Route>,
    (began, kept): (u64, Kept),
) {
    let metrics = &client.service.metrics;
    let of_route = route.map_or(&*metrics.no_route, |route| &*route.metrics);
    let total = clock::now_micros().saturating_sub(began);
    if let Some(status) = record.status {
        of_route.requests.of(CodeClass::of(status)).inc();
    }
    of_route.duration.observe(total);
    if record.client_nth > 1 {
        client.listener.metrics.keepalive_requests.inc();
    }
    client.count_octets();
    record.timeline.total = total;
    record.client_kept = kept;
    client.service.access_log.record(record);
}

/// Notes how the origin's connection retired, if that was because the exchange was dropped.
pub fn note_dropped(record: &mut ExchangeRecord) {
    if let Some(origin) = &mut record.origin
        && let Some(close) = origin.conn.and_then(lent::how_dropped)
    {
        origin.kept = Kept::Closed(close);
    }
}

/// Counts an error of the proxy's own, under the upstream if one was chosen.
pub fn count_error(client: &Client, route: Option<&Route>, error: ProxyError) {
    let errors = match route {
        Some(route) => &route.upstream.metrics.proxy_errors,
        None => &client.service.metrics.no_upstream,
    };
    errors.of(error).inc();
}

/// Counts a connection that was refused before it said anything.
pub fn count_rejected(service: &Service, error: ProxyError) {
    service.metrics.no_upstream.of(error).inc();
}

/// Writes the timeline so far as a `Server-Timing` field, for debugging.
pub fn server_timing(out: &mut Vec<u8>, timeline: &Timeline) {
    out.extend_from_slice(b"Server-Timing: ");
    let parts = [("queue", timeline.queue), ("connect", timeline.connect)];
    for (at, (name, micros)) in parts.into_iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let text = format!("{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of an exchange that failed so.
#[must_use]
pub const fn failed(error: ProxyError) -> End {
    End::Failed(error)
}
