//! `[drain]` to the machine's settings.

use crate::config::settings;
use crate::config::settings::words;
use crate::policy::drain::AtDeadline;
use crate::policy::drain::DrainSettings;
use crate::policy::drain::WebSockets;

/// How a drain goes.
#[must_use]
pub fn settings(drain: &settings::Drain) -> DrainSettings {
    DrainSettings {
        delay: drain.delay,
        idle_grace: drain.idle_grace,
        spread: drain.spread,
        timeout: drain.timeout,
        tunnel_timeout: drain.tunnel_timeout,
        websockets: match drain.websocket_close {
            true => WebSockets::Told,
            false => WebSockets::Untold,
        },
        at_deadline: match drain.at_deadline {
            words::AtDeadline::Reset => AtDeadline::Reset,
            words::AtDeadline::Fin => AtDeadline::Fin,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::settings as read;
    use std::time::Duration;

    #[test]
    fn every_time_of_a_drain_is_the_one_in_the_table() {
        let said = [
            ("DRAIN__DELAY", "1s"),
            ("DRAIN__IDLE_GRACE", "2s"),
            ("DRAIN__SPREAD", "3s"),
            ("DRAIN__TIMEOUT", "4s"),
            ("DRAIN__TUNNEL_TIMEOUT", "5s"),
            ("DRAIN__WEBSOCKET_CLOSE", "false"),
            ("DRAIN__AT_DEADLINE", "fin"),
        ];
        let wanted = DrainSettings {
            delay: Duration::from_secs(1),
            idle_grace: Duration::from_secs(2),
            spread: Duration::from_secs(3),
            timeout: Duration::from_secs(4),
            tunnel_timeout: Duration::from_secs(5),
            websockets: WebSockets::Untold,
            at_deadline: AtDeadline::Fin,
        };
        assert_eq!(settings(&read(&said).drain), wanted);
    }
}
