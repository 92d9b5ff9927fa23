//! `[….tcp]` to socket options.

use crate::config::settings::listener::Tcp;
use crate::config::settings::words;
use crate::net::dial::Switch;
use crate::net::dial::TcpOptions;
use crate::net::quickack::QuickAck;

/// The options of one side's sockets.
#[must_use]
pub fn options(tcp: &Tcp) -> TcpOptions {
    TcpOptions {
        nodelay: switch(tcp.nodelay),
        keepalive_time: tcp.keepalive_time.value(),
        keepalive_interval: tcp.keepalive_interval,
        keepalive_retries: tcp.keepalive_retries,
        user_timeout: tcp.user_timeout.value(),
        quickack: match tcp.quickack {
            words::QuickAck::Auto => QuickAck::Auto,
            words::QuickAck::On => QuickAck::On,
            words::QuickAck::Off => QuickAck::Off,
        },
    }
}

/// `true` and `false` are words of the file only.
#[must_use]
pub const fn switch(on: bool) -> Switch {
    if on { Switch::On } else { Switch::Off }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::settings;
    use std::time::Duration;

    #[test]
    fn every_option_of_a_socket_is_the_one_in_the_table() {
        let said = [
            ("LISTENERS__WEB__TCP__NODELAY", "false"),
            ("LISTENERS__WEB__TCP__KEEPALIVE_TIME", "7s"),
            ("LISTENERS__WEB__TCP__KEEPALIVE_INTERVAL", "8s"),
            ("LISTENERS__WEB__TCP__KEEPALIVE_RETRIES", "9"),
            ("LISTENERS__WEB__TCP__USER_TIMEOUT", "off"),
            ("LISTENERS__WEB__TCP__QUICKACK", "on"),
        ];
        let wanted = TcpOptions {
            nodelay: Switch::Off,
            keepalive_time: Some(Duration::from_secs(7)),
            keepalive_interval: Duration::from_secs(8),
            keepalive_retries: 9,
            user_timeout: None,
            quickack: QuickAck::On,
        };
        assert_eq!(options(&settings(&said).listeners[0].tcp), wanted);
    }
}
