//! `/connections`: every connection as JSON, newest knowledge without stopping one; and with
//! `?closed`, the last ones that closed, the last first, each with by whom, how, why and when.

use std::net::SocketAddr;

use http_types::Url;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::base::ConnId;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::h1::octets;
use crate::observe::LiveTable;
use crate::observe::live::ClosedConn;
use crate::observe::live::LiveFacts;
use crate::observe::live::LiveView;

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    of: Of,
    side: Option<Side>,
    phase: Option<Phase>,
    limit: usize,
}

impl Filter {
    /// Reads `?closed&side=…&phase=…&limit=…`.
    ///
    /// # Errors
    /// What is wrong with the query, as a clause. A filter that is misspelt must not show everything.
    pub fn parse(url: &Url) -> Result<Self, String> {
        let mut filter = Self {
            of: Of::Open,
            side: None,
            phase: None,
            limit: LIMIT_DEFAULT,
        };
        for (key, value) in url.query_pairs() {
            match &*key {
                "closed" if value.is_empty() => filter.of = Of::Closed,
                "side" => filter.side = Some(side(&value)?),
                "phase" => filter.phase = Some(phase(&value)?),
                "limit" => filter.limit = limit(&value)?,
                _ => return Err("only closed, side, phase and limit can be asked for".to_owned()),
            }
        }
        Ok(filter)
    }

    fn wants(self, side: Side, phase: Phase) -> bool {
        self.side.is_none_or(|wanted| wanted == side)
            && self.phase.is_none_or(|wanted| wanted == phase)
    }
}

/// Which connection is to be closed: `?id=…`.
///
/// # Errors
/// What is wrong with the query, as a clause.
pub fn id(url: &Url) -> Result<ConnId, String> {
    let mut pairs = url.query_pairs();
    match (pairs.next(), pairs.next()) {
        (Some((key, value)), None) if key == "id" => octets::decimal(value.as_bytes()).map(ConnId),
        _ => None,
    }
    .ok_or_else(|| "say which: ?id=NUMBER, as /connections shows it".to_owned())
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Open,
    Closed,
}

/// The connections of a filter. `now_micros` is on the clock of the views.
#[must_use]
pub fn list(live: &LiveTable, filter: Filter, now_micros: u64) -> Value {
    if filter.of == Of::Closed {
        return list_closed(live, filter, now_micros);
    }
    let views = live.snapshot(usize::MAX);
    let wants = |view: &&LiveView| filter.wants(view.facts.side, view.phase);
    let wanted: Vec<_> = views.iter().filter(wants).collect();
    let shown: Vec<_> = wanted
        .iter()
        .take(filter.limit)
        .map(|view| show(view, now_micros))
        .collect();
    json!({ "open": views.len(), "matching": wanted.len(), "connections": shown })
}

fn list_closed(live: &LiveTable, filter: Filter, now_micros: u64) -> Value {
    let closed = live.closed();
    let wants = |conn: &&ClosedConn| filter.wants(conn.facts.side, conn.close.phase);
    let wanted: Vec<_> = closed.iter().filter(wants).collect();
    let shown: Vec<_> = wanted
        .iter()
        .take(filter.limit)
        .map(|conn| show_closed(conn, now_micros))
        .collect();
    json!({ "closed": closed.len(), "matching": wanted.len(), "connections": shown })
}

fn show(view: &LiveView, now_micros: u64) -> Value {
    let mut shown = who(&view.facts, view.client);
    shown.extend(fields([
        ("phase", json!(view.phase.label())),
        ("phase_ms", millis(view.since_micros, now_micros)),
        ("age_ms", millis(view.facts.opened_micros, now_micros)),
        ("requests", json!(view.nth)),
        ("rx", json!(view.rx)),
        ("tx", json!(view.tx)),
    ]));
    Value::Object(shown)
}

fn show_closed(conn: &ClosedConn, now_micros: u64) -> Value {
    let mut shown = who(&conn.facts, conn.client);
    shown.extend(fields([
        ("by", json!(conn.close.by.label())),
        ("how", json!(conn.close.how.label())),
        ("reason", json!(conn.close.reason.label())),
        ("phase", json!(conn.close.phase.label())),
        ("closed_ms_ago", millis(conn.closed_micros, now_micros)),
        (
            "age_ms",
            millis(conn.facts.opened_micros, conn.closed_micros),
        ),
        ("requests", json!(conn.nth)),
        ("rx", json!(conn.rx)),
        ("tx", json!(conn.tx)),
    ]));
    Value::Object(shown)
}

/// Which connection it is. `client` is there where the peer said that it stands for another.
fn who(facts: &LiveFacts, client: Option<SocketAddr>) -> Map<String, Value> {
    let name = match facts.side {
        Side::Client => "listener",
        Side::Upstream => "upstream",
    };
    let text = |address: SocketAddr| json!(address.to_string());
    let mut who = fields([
        ("id", json!(facts.id.0)),
        ("side", json!(facts.side.label())),
        (name, json!(facts.name.as_str())),
        ("peer", text(facts.peer)),
        ("local", facts.local.map_or(Value::Null, text)),
    ]);
    who.extend(client.map(|client| ("client".to_owned(), text(client))));
    who
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn millis(since_micros: u64, until_micros: u64) -> Value {
    json!(until_micros.saturating_sub(since_micros) / 1000)
}

fn side(word: &str) -> Result<Side, String> {
    let side = Side::ALL.iter().find(|side| side.label() == word);
    side.copied()
        .ok_or_else(|| "side is client or upstream".to_owned())
}

fn phase(word: &str) -> Result<Phase, String> {
    let phase = Phase::ALL.iter().find(|phase| phase.label() == word);
    phase.copied().ok_or_else(|| {
        let words: Vec<_> = Phase::ALL.iter().map(|phase| phase.label()).collect();
        format!("phase is one of {}", words.join(", "))
    })
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("limit is 1 to {LIMIT_MAX}"))
}

/// Shown when no limit is asked for: some 300 KiB of JSON.
const LIMIT_DEFAULT: usize = 1000;

/// Most that may be asked for: some 25 MiB, which a deliberate request may cost.
const LIMIT_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CloseReason;
    use crate::base::ConnId;
    use crate::base::close::Close;
    use crate::base::close::Heard;
    use crate::base::names::Name;
    use std::time::UNIX_EPOCH;

    fn filter(query: &str) -> Result<Filter, String> {
        Filter::parse(&Url::parse(&format!("http://a/connections{query}")).unwrap())
    }

    #[test]
    fn a_misspelt_filter_is_refused_with_what_would_be_right() {
        assert!(
            filter("?phase=asleep")
                .unwrap_err()
                .contains("idle, request_head")
        );
        assert!(filter("?side=left").is_err() && filter("?sied=client").is_err());
        assert!(filter("?closed=yes").is_err());
        assert!(filter("?limit=0").is_err() && filter("?limit=-1").is_err());
        assert!(filter(&format!("?limit={}", LIMIT_MAX + 1)).is_err());
        assert!(filter(&format!("?limit={LIMIT_MAX}")).is_ok());
    }

    #[test]
    fn a_connection_tells_its_side_its_phase_and_its_age() {
        let live = LiveTable::new(1);
        let facts = |id, side| LiveFacts {
            id: ConnId(id),
            side,
            peer: "127.0.0.1:4000".parse().unwrap(),
            local: "127.0.0.1:80".parse().ok(),
            name: Name::parse("main").unwrap(),
            opened_micros: 1_000_000,
        };
        let client = live.open(facts(1, Side::Client), Phase::Idle);
        let upstream = live.open(facts(2, Side::Upstream), Phase::Connect);
        client.enter(Phase::Wait, 2_500_000);
        let all = list(&live, filter("").unwrap(), 3_000_000);
        assert_eq!(all["matching"], 2);
        let value = list(&live, filter("?side=client&phase=wait").unwrap(), 3_000_000);
        let expected = json!({
            "id": 1, "side": "client", "listener": "main", "peer": "127.0.0.1:4000",
            "local": "127.0.0.1:80", "phase": "wait", "phase_ms": 500, "age_ms": 2000,
            "requests": 0, "rx": 0, "tx": 0,
        });
        assert_eq!(
            value,
            json!({ "open": 2, "matching": 1, "connections": [expected] })
        );
        drop(upstream);
    }

    #[test]
    fn a_connection_that_closed_tells_by_whom_how_why_and_in_which_phase() {
        let live = LiveTable::new(1);
        let conn = live.open(
            LiveFacts {
                id: ConnId(7),
                side: Side::Upstream,
                peer: "127.0.0.1:4000".parse().unwrap(),
                local: None,
                name: Name::parse("app").unwrap(),
                opened_micros: 1_000_000,
            },
            Phase::Wait,
        );
        conn.begin_request(3);
        let close = Close::of_origin(CloseReason::PeerRst, Heard::Rst, Phase::Wait);
        conn.close(close, (3_000_000, UNIX_EPOCH));
        drop(conn);
        let expected = json!({
            "id": 7, "side": "upstream", "upstream": "app", "peer": "127.0.0.1:4000",
            "local": null, "by": "peer", "how": "rst", "reason": "peer_rst", "phase": "wait",
            "closed_ms_ago": 500, "age_ms": 2000, "requests": 3, "rx": 0, "tx": 0,
        });
        let all = list(&live, filter("?closed").unwrap(), 3_500_000);
        assert_eq!(
            all,
            json!({ "closed": 1, "matching": 1, "connections": [expected] })
        );
        let none = list(&live, filter("?closed&side=client").unwrap(), 3_500_000);
        assert_eq!(none["matching"], 0);
    }
}
