//! Configuration and command line: mistakes end with exit code 2 and every complaint at once.

use std::net::TcpListener;

use crate::support::proxy;
use crate::support::proxy::Proxy;
use crate::support::proxy::Refusal;

const GOOD: &str = r#"
[admin]
bind = "off"
[listeners.web]
bind = "127.0.0.1:0"
[upstreams.app]
servers = ["127.0.0.1:1"]
"#;

#[track_caller]
fn refused(text: &str, words: &[&str]) -> Refusal {
    let refusal = Proxy::refuses(text);
    assert_eq!(refusal.code, Some(2), "{}", refusal.stderr);
    for word in words {
        assert!(
            refusal.stderr.contains(word),
            "`{word}` is not in:\n{}",
            refusal.stderr
        );
    }
    refusal
}

#[test]
fn every_complaint_comes_at_once_with_key_value_range_and_line() {
    let text = format!(
        "{GOOD}
[upstreams.app.pool]
idle_timeout = 5
max_connections = 0
[listeners.web.tcp]
nodelay = \"maybe\"
[log]
format = \"xml\"
"
    );
    let line = |key: &str| text.lines().position(|l| l.starts_with(key)).unwrap() + 1;
    let idle = format!("line {}", line("idle_timeout"));
    let cap = format!("line {}", line("max_connections"));
    let words = [
        "idle_timeout",
        "`5`",
        "5s",
        "max_connections",
        "nodelay",
        "maybe",
        "xml",
        "logfmt",
    ];
    refused(&text, &words);
    refused(&text, &[&idle, &cap]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    refused(
        &format!("{GOOD}[log]\nformatt = \"json\"\n"),
        &["formatt", "format"],
    );
    refused(
        &format!("{GOOD}[upstreams.app.pool]\nmax_connection = 5\n"),
        &["max_connections"],
    );
    refused(
        &format!("{GOOD}[listener.web]\nbind = \"127.0.0.1:0\"\n"),
        &["listeners"],
    );
}

#[test]
fn a_number_where_a_unit_belongs_is_refused() {
    for key in ["header_timeout", "idle_timeout", "linger_timeout"] {
        let text = GOOD.replace("[upstreams.app]", &format!("{key} = 10\n[upstreams.app]"));
        refused(&text, &[key, "10", "10s"]);
    }
    let text = GOOD.replace(
        "[upstreams.app]",
        "max_header_bytes = 1024\n[upstreams.app]",
    );
    refused(&text, &["max_header_bytes", "1024"]);
}

#[test]
fn nought_never_means_unlimited() {
    let text = GOOD.replace("[upstreams.app]", "max_connections = 0\n[upstreams.app]");
    refused(&text, &["listeners.web.max_connections"]);
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    refused(
        &format!("{GOOD}[upstreams.app.retry]\nattempts = 1000\n"),
        &["attempts", "1000", "10"],
    );
    let text = format!("{GOOD}[upstreams.app.retry]\nbudget_ratio = 1.5\n");
    refused(&text, &["budget_ratio", "1.5"]);
}

#[test]
fn a_route_to_nowhere_is_refused() {
    refused(
        &format!("{GOOD}[routes.main]\nupstream = \"ap\"\n"),
        &["ap", "app"],
    );
}

#[test]
fn no_listener_and_no_upstream_is_refused() {
    refused("[admin]\nbind = \"off\"\n", &["listeners", "upstreams"]);
}

#[test]
fn an_upstream_without_servers_is_refused() {
    refused(&GOOD.replace("servers", "# servers"), &["servers"]);
}

#[test]
fn several_upstreams_need_routes() {
    let text = format!("{GOOD}[upstreams.other]\nservers = [\"127.0.0.1:2\"]\n");
    refused(&text, &["routes"]);
}

#[test]
fn a_bad_name_is_refused() {
    refused(&GOOD.replace("listeners.web", "listeners.Web"), &["Web"]);
    refused(&GOOD.replace("upstreams.app", "upstreams.a__b"), &["a__b"]);
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    refused(&format!("{GOOD}[log\n"), &["line"]);
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    let refusal = proxy::run(&["--config", "/no/such/file.toml"]);
    assert_eq!(refusal.code, Some(2));
    assert!(
        refusal.stderr.contains("/no/such/file.toml"),
        "{}",
        refusal.stderr
    );
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refusal = Proxy::refuses(&GOOD.replace("127.0.0.1:0", &address));
    assert!(
        [Some(1), Some(2)].contains(&refusal.code),
        "{:?}",
        refusal.code
    );
    assert!(refusal.stderr.contains(&address), "{}", refusal.stderr);
}

#[test]
fn nonsense_on_the_command_line_is_a_usage_error() {
    assert_eq!(proxy::run(&["--no-such-option"]).code, Some(2));
    assert_eq!(proxy::run(&["no-such-command"]).code, Some(2));
}

#[test]
fn the_version_and_the_help_are_told() {
    let version = proxy::run(&["--version"]);
    assert_eq!(version.code, Some(0));
    assert!(
        version.stdout.starts_with("holdfast "),
        "{}",
        version.stdout
    );
    let help = proxy::run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["run", "proxy", "demo", "check"] {
        assert!(help.stdout.contains(command), "{command}");
    }
}

#[test]
fn check_says_whether_a_file_is_fine() {
    let folder = proxy::fresh_folder();
    let file = folder.join("holdfast.toml");
    std::fs::write(&file, GOOD).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(proxy::run(&["check", "--config", path]).code, Some(0));
    std::fs::write(&file, format!("{GOOD}[log]\nlevel = \"loud\"\n")).unwrap();
    let refusal = proxy::run(&["check", "--config", path]);
    assert_eq!(refusal.code, Some(2));
    assert!(refusal.stderr.contains("loud"), "{}", refusal.stderr);
    std::fs::remove_dir_all(folder).unwrap();
}
