//! `/connections`: every connection as JSON, newest knowledge without stopping one.

use http_types::Url;
use serde_json::Value;
use serde_json::json;

use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::observe::LiveTable;
use crate::observe::live::LiveView;

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    side: Option<Side>,
    phase: Option<Phase>,
    limit: usize,
}

impl Filter {
    /// Reads `?side=…&phase=…&limit=…`.
    ///
    /// # Errors
    /// What is wrong with the query, as a clause. A filter that is misspelt must not show everything.
    pub fn parse(url: &Url) -> Result<Self, String> {
        let mut filter = Self {
            side: None,
            phase: None,
            limit: LIMIT_DEFAULT,
        };
        for (key, value) in url.query_pairs() {
            match &*key {
                "side" => filter.side = Some(side(&value)?),
                "phase" => filter.phase = Some(phase(&value)?),
                "limit" => filter.limit = limit(&value)?,
                _ => return Err("only side, phase and limit can be asked for".to_owned()),
            }
        }
        Ok(filter)
    }

    fn wants(self, view: &LiveView) -> bool {
        self.side.is_none_or(|side| side == view.facts.side)
            && self.phase.is_none_or(|phase| phase == view.phase)
    }
}

/// The connections of a filter. `now_micros` is on the clock of the views.
#[must_use]
pub fn list(live: &LiveTable, filter: Filter, now_micros: u64) -> Value {
    let views = live.snapshot(usize::MAX);
    let wanted: Vec<_> = views.iter().filter(|view| filter.wants(view)).collect();
    let shown: Vec<_> = wanted
        .iter()
        .take(filter.limit)
        .map(|view| show(view, now_micros))
        .collect();
    json!({ "open": views.len(), "matching": wanted.len(), "connections": shown })
}

fn show(view: &LiveView, now_micros: u64) -> Value {
    let facts = &view.facts;
    let name = match facts.side {
        Side::Client => "listener",
        Side::Upstream => "upstream",
    };
    json!({
        "id": facts.id.0,
        "side": facts.side.label(),
        name: facts.name.as_str(),
        "peer": facts.peer.to_string(),
        "local": facts.local.map(|local| local.to_string()),
        "phase": view.phase.label(),
        "phase_ms": now_micros.saturating_sub(view.since_micros) / 1000,
        "age_ms": now_micros.saturating_sub(facts.opened_micros) / 1000,
        "requests": view.nth,
        "rx": view.rx,
        "tx": view.tx,
    })
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
    use crate::base::ConnId;
    use crate::base::names::Name;
    use crate::observe::live::LiveFacts;

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
}
