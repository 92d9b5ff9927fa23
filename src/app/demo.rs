//! `holdfast demo`: a proxy, two small origins and the admin page, in one process.

use std::io::Write as _;

use crate::app::cli::Demo;
use crate::app::run;
use crate::app::run::Listening;
use crate::config;
use crate::config::Sources;
use crate::config::source::Flag;
use crate::config::source::Given;
use crate::net::control;
use crate::net::demo_origin::DemoOrigin;

/// Starts two origins, and serves for them until told to stop.
///
/// # Errors
/// What keeps it from starting, or from going on.
pub fn demo(demo: Demo) -> Result<(), String> {
    let mut servers = Vec::new();
    for name in ["one", "two"] {
        let origin = DemoOrigin::bind(name).map_err(|error| format!("origin {name}: {error}"))?;
        servers.push(origin.address.to_string());
        // On the control plane's runtime, which outlives this call.
        control::run(async { origin.start() });
    }
    let sources = sources(demo, servers);
    let loaded = config::load(&sources).map_err(|complaints| complaints.to_string())?;
    run::run(loaded, sources, |listening| {
        let mut out = std::io::stdout().lock();
        // Who does not read it can still be served.
        out.write_all(greeting(listening).as_bytes())
            .and_then(|()| out.flush())
            .ok();
    })
}

/// The demo's settings. What is only taste gives way to the environment.
fn sources(demo: Demo, servers: Vec<String>) -> Sources {
    let Demo {
        listen,
        admin,
        mut variables,
    } = demo;
    for (variable, value) in TASTE {
        if !variables.iter().any(|(name, _)| name == variable) {
            variables.push((variable.to_owned(), value.to_owned()));
        }
    }
    let flags = vec![
        Flag {
            flag: "--listen",
            key: "listeners.demo.bind",
            given: Given::Once(listen),
        },
        Flag {
            flag: "--admin",
            key: "admin.bind",
            given: Given::Once(admin),
        },
        Flag {
            flag: "demo",
            key: "upstreams.demo.servers",
            given: Given::Each(servers),
        },
    ];
    Sources {
        file: None,
        variables,
        flags,
    }
}

/// Lines for eyes rather than programs, without those that say what the greeting says. A limit, so
/// that a dashboard has something to compare with. The origins close connections that are idle for
/// 60 s; we close earlier, so that no request meets that.
const TASTE: [(&str, &str); 5] = [
    ("HOLDFAST_LOG__FORMAT", "logfmt"),
    ("HOLDFAST_LOG__LEVEL", "warn"),
    ("HOLDFAST_DRAIN__DELAY", "0s"), // no balancer needs to hear of it
    ("HOLDFAST_LISTENERS__DEMO__MAX_CONNECTIONS", "1000"),
    ("HOLDFAST_UPSTREAMS__DEMO__POOL__IDLE_TIMEOUT", "45s"),
];

/// What is printed when everything listens. Programs read the first two lines.
fn greeting(listening: &Listening) -> String {
    let mut text = String::new();
    let proxies: Vec<String> = listening
        .listeners
        .iter()
        .map(|(_, address)| format!("http://{address}"))
        .collect();
    let proxy = proxies.first().map_or("", String::as_str);
    text.push_str(&format!("proxy {proxy}\n"));
    let admin = listening.admin.map(|address| format!("http://{address}"));
    if let Some(admin) = &admin {
        text.push_str(&format!("admin {admin}\n"));
    }
    text.push_str(&format!(
        "
Two small origins are behind the proxy. From another terminal:

    curl -i {proxy}/                      an answer from one of them, and what it saw
    curl -i -d hello {proxy}/             with content
    curl -i '{proxy}/slow?ms=2000'        an answer that takes its time
    curl -i {proxy}/status/503            an answer that says no
    curl -so /dev/null {proxy}/bytes/100000000
"
    ));
    if let Some(admin) = &admin {
        text.push_str(&format!(
            "
    curl -s {admin}/connections           every connection, and what it is doing now
    curl -s {admin}/upstreams             every pool against its limit
    curl -s {admin}/metrics | grep upstream_requests_total     reused, new, or after a wait

The page is at {admin}/
"
        ));
    }
    text.push_str(
        "Ctrl-C ends it. Each request is a line below; HOLDFAST_LOG__ACCESS=off is without.\n\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Name;
    use crate::config::settings::words::LogFormat;
    use crate::config::source::Variables;
    use crate::net::listen::Local;

    fn settings(variables: Variables) -> config::Settings {
        let demo = Demo {
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            variables,
        };
        let servers = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        config::load(&sources(demo, servers)).unwrap().settings
    }

    #[test]
    fn the_demo_serves_for_two_origins() {
        let settings = settings(Vec::new());
        assert_eq!(settings.upstreams[0].servers.len(), 2);
        assert_eq!(settings.routes[0].upstream, settings.upstreams[0].name);
        assert_eq!(settings.log.format, LogFormat::Logfmt);
    }

    #[test]
    fn the_environment_is_over_what_is_only_taste() {
        let variables = vec![("HOLDFAST_LOG__FORMAT".to_owned(), "json".to_owned())];
        assert_eq!(settings(variables).log.format, LogFormat::Json);
    }

    #[test]
    fn the_first_two_lines_say_where_the_proxy_and_the_admin_page_are() {
        let listening = Listening {
            listeners: vec![(
                Name::parse("demo").unwrap(),
                Local::Ip("127.0.0.1:8080".parse().unwrap()),
            )],
            admin: Some("127.0.0.1:9901".parse().unwrap()),
        };
        let text = greeting(&listening);
        assert!(
            text.starts_with("proxy http://127.0.0.1:8080\nadmin http://127.0.0.1:9901\n"),
            "{text}"
        );
    }
}
