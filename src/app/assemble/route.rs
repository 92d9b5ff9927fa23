//! `[routes.NAME]` to a route and the rule that finds it.

use crate::config::settings;
use crate::config::settings::values::HostPattern;
use crate::config::settings::values::SetField;
use crate::config::settings::values::Token;
use crate::config::settings::words;
use crate::policy::forwarded::ForwardedStyle;
use crate::policy::header_rules::HeaderRules;

use crate::policy::hops::RequestRules;
use crate::policy::hops::ResponseRules;
use crate::policy::hops::Via;
use crate::policy::route::RouteRule;
use crate::proxy::settings::PreserveHost;
use crate::proxy::settings::RouteSettings;

/// Which requests the route is for.
#[must_use]
pub fn rule(settings: &settings::Route) -> RouteRule {
    let host = |host: &HostPattern| match host {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Exact(host) => host.clone(),
    };
    RouteRule {
        hosts: settings.hosts.iter().map(host).collect(),
        path_prefix: settings.path_prefix.clone(),
        priority: i64::from(settings.priority),
        name: settings.name.to_string(),
    }
}

/// What the route does with them.
///
/// # Errors
/// A clause that names the route and the key whose fields cannot be encoded.
pub fn settings(settings: &settings::Route) -> Result<RouteSettings, String> {
    let wrong = |key: &'static str| {
        move |clause: String| format!("routes.{}.{key}: {clause}", settings.name)
    };
    let via = match &settings.via {
        Some(name) => Via::new(name.as_str()).map_err(wrong("via"))?,
        None => Via::off(),
    };
    let request = rules(
        &settings.set_request_headers,
        &settings.remove_request_headers,
    )
    .map_err(wrong("set_request_headers"))?;
    let response = rules(
        &settings.set_response_headers,
        &settings.remove_response_headers,
    )
    .map_err(wrong("set_response_headers"))?;
    Ok(RouteSettings {
        name: settings.name.clone(),
        preserve_host: match settings.preserve_host {
            true => PreserveHost::Kept,
            false => PreserveHost::Replaced,
        },
        upgrade: settings
            .upgrade
            .iter()
            .map(|token| token.as_str().to_ascii_lowercase().into_bytes())
            .collect(),
        request: RequestRules {
            via: via.clone(),
            forwarded: match settings.forwarded {
                words::Forwarded::XForwarded => ForwardedStyle::XForwarded,
                words::Forwarded::Forwarded => ForwardedStyle::Forwarded,
                words::Forwarded::Both => ForwardedStyle::Both,
                words::Forwarded::Off => ForwardedStyle::Off,
            },
            headers: request,
        },
        response: ResponseRules {
            via,
            headers: response,
        },
    })
}

fn rules(set: &[SetField], remove: &[Token]) -> Result<HeaderRules, String> {
    let set: Vec<_> = set
        .iter()
        .map(|field| {
            (
                field.name.as_str().to_owned(),
                field.value.as_str().to_owned(),
            )
        })
        .collect();
    let remove: Vec<_> = remove.iter().map(|name| name.as_str().to_owned()).collect();
    HeaderRules::new(&set, &remove)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use crate::app::assemble::tests::settings;

    #[test]
    fn a_route_is_found_by_what_its_table_says() {
        let settings = settings(&[
            ("ROUTES__MAIN__HOSTS", "[\"*\", \"A.example\"]"),
            ("ROUTES__MAIN__PATH_PREFIX", "/x"),
            ("ROUTES__MAIN__PRIORITY", "-3"),
            ("ROUTES__MAIN__UPSTREAM", "app"),
        ]);
        let wanted = RouteRule {
            hosts: vec!["*".to_owned(), "a.example".to_owned()],
            path_prefix: "/x".to_owned(),
            priority: -3,
            name: "main".to_owned(),
        };
        assert_eq!(rule(&settings.routes[0]), wanted);
    }

    #[test]
    fn a_route_says_about_its_requests_what_its_table_says() {
        let said = [
            ("ROUTES__MAIN__UPSTREAM", "app"),
            ("ROUTES__MAIN__PRESERVE_HOST", "false"),
            ("ROUTES__MAIN__FORWARDED", "both"),
            ("ROUTES__MAIN__UPGRADE", "[\"WebSocket\"]"),
            ("ROUTES__MAIN__VIA", "edge"),
        ];
        let plan = assembled(&said).unwrap().service.plan();
        let route = &plan.routes[0].settings;
        assert_eq!(route.preserve_host, PreserveHost::Replaced);
        assert_eq!(route.request.forwarded, ForwardedStyle::Both);
        assert_eq!(route.upgrade, [b"websocket".to_vec()]);
        assert!(format!("{:?}", route.response.via).contains(&format!("{:?}", b'e')));
    }
}
