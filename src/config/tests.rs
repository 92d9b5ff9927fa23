//! What a configuration may say and what it may not, end to end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::availability;
use super::check;
use super::complaint::Complaints;
use super::effective;
use super::explain;
use super::load;
use super::load::Loaded;
use super::raw::Raw;
use super::raw::Table;
use super::settings::Settings;
use super::settings::values::ServerAddress;
use super::source;
use super::source::Sources;
use super::text;

/// The contract's own block of keys and defaults.
const CONTRACT: &str = include_str!("../../tests/vectors/config_defaults.toml");

/// The commented example.
const EXAMPLE: &str = include_str!("../../deploy/holdfast.toml");

/// As little as there can be, on five lines.
const LEAST: &str = "[listeners.web]\nbind = '127.0.0.1:0'\n[upstreams.app]\n\
                     servers = ['127.0.0.1:1']\n[upstreams.app.pool]\n";

/// The same, so that a line of dotted keys may stand before it.
const LEAST_DOTTED: &str =
    "listeners.web.bind = '127.0.0.1:0'\nupstreams.app.servers = ['127.0.0.1:1']\n";

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn named(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("holdfast-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The tree that a text makes, before it is known what is available.
fn tree(text: &str) -> (Table, Complaints) {
    let mut complaints = Complaints::default();
    let mut layered = source::read(&Sources::default()).unwrap();
    layered.said = text::read(text, Path::new("x.toml"), &mut complaints);
    let tree = effective::tree(&layered, &mut complaints);
    (tree, complaints)
}

fn checked(text: &str) -> Result<Settings, String> {
    let (tree, mut complaints) = tree(text);
    let settings = check::settings(&tree, &mut complaints);
    if complaints.is_empty() {
        Ok(settings)
    } else {
        Err(complaints.to_string())
    }
}

fn complaints(text: &str) -> Vec<String> {
    checked(text)
        .map(|_| Vec::new())
        .unwrap_or_else(|said| said.lines().map(str::to_owned).collect())
}

fn the_complaint(text: &str) -> String {
    let mut said = complaints(text);
    assert_eq!(said.len(), 1, "{said:#?}");
    said.remove(0)
}

/// What is complained about when a key of the least configuration is set.
fn set(path: &str, value: &str) -> String {
    the_complaint(&format!("{path} = {value}\n{LEAST_DOTTED}"))
}

fn not_available(text: &str) -> Vec<String> {
    let (tree, mut complaints) = tree(text);
    availability::check_elsewhere(&tree, &mut complaints);
    complaints.iter().map(ToString::to_string).collect()
}

fn leaves(table: &Table, into: &mut Vec<(String, String)>) {
    for node in table.values() {
        match &node.value {
            Raw::Table(inside) if !inside.is_empty() => leaves(inside, into),
            value => into.push((node.key.clone(), value.as_toml())),
        }
    }
}

fn with_environment(pairs: &[(&str, &str)], file: Option<PathBuf>) -> Result<Loaded, Complaints> {
    let variables = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    load(&Sources {
        file,
        variables,
        flags: Vec::new(),
    })
}

#[test]
fn the_contract_says_exactly_our_defaults() {
    let by_default = "[listeners.web]\nbind = '0.0.0.0:8080'\n[routes.main]\nupstream = 'app'\n\
        [upstreams.app]\nservers = ['10.0.0.11:3000', { address = 'app.internal:3000', \
        weight = 2, max_connections = 32 }]\n";
    assert_eq!(checked(CONTRACT), checked(by_default));
    assert!(checked(CONTRACT).is_ok());
}

#[test]
fn our_defaults_have_the_keys_of_the_contract_and_no_others() {
    let keys = |text: &str| {
        let mut all = Vec::new();
        leaves(
            &text::read(text, Path::new("x.toml"), &mut Complaints::default()),
            &mut all,
        );
        let key = |(key, _): (String, String)| {
            key.replace("listeners.web", "defaults.listener")
                .replace("upstreams.app", "defaults.upstream")
                .replace("routes.main", "defaults.route")
        };
        all.into_iter().map(key).collect::<BTreeSet<_>>()
    };
    let mut contract = keys(CONTRACT);
    // These have no defaults, and these tables are empty in the contract.
    for key in [
        "listener.bind",
        "upstream.servers",
        "route.upstream",
        "listener",
        "upstream",
    ] {
        assert!(contract.remove(&format!("defaults.{key}")), "{key}");
    }
    contract.remove("defaults.upstream.tcp");
    let mut ours = keys(include_str!("defaults.toml"));
    ours.retain(|key| !key.starts_with("defaults.upstream.tcp."));
    assert_eq!(ours, contract);
}

#[test]
fn each_key_refuses_a_value_of_another_type_and_tells_key_and_line() {
    let mut section = String::new();
    let mut tried = 0;
    for (index, line) in CONTRACT.lines().enumerate() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            section = name.to_owned();
        }
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('[')) else {
            continue;
        };
        for wrong in ["[[]]", "-1.5"] {
            let mut lines: Vec<_> = CONTRACT.lines().map(str::to_owned).collect();
            lines[index] = format!("{key} = {wrong}");
            let said = complaints(&lines.join("\n"));
            let found = said.iter().any(|complaint| {
                complaint.starts_with(&format!("{section}.{key}"))
                    && complaint.ends_with(&format!("; at x.toml, line {}", index + 1))
            });
            assert!(found, "{section}.{key} = {wrong}: {said:#?}");
        }
        tried += 1;
    }
    assert!(tried > 115, "only {tried} keys were tried");
}

#[test]
fn the_example_is_in_order() {
    let folder = Folder::named("example");
    let loaded = with_environment(&[], Some(folder.write("holdfast.toml", EXAMPLE)));
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let is_key = |rest: &str| rest.starts_with(|char: char| char.is_ascii_lowercase());
    let plain: Vec<_> = EXAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| is_key(rest))
                .unwrap_or(line)
        })
        .collect();
    let plain = plain.join("\n");
    assert_eq!(checked(&plain), checked(CONTRACT));
    let keys = |text: &str| {
        let mut all = Vec::new();
        leaves(
            &text::read(text, Path::new("x.toml"), &mut Complaints::default()),
            &mut all,
        );
        all.into_iter().collect::<BTreeSet<_>>()
    };
    assert_eq!(keys(&plain), keys(CONTRACT));
}

#[test]
fn every_mistake_is_complained_about_at_once() {
    let said = complaints(
        "[server]\nworkers = 0\nfd_reserv = 1\n[listeners.web]\nbind = 'nonsense'\n\
         idle_timeout = 5\n[upstreams.app]\nservers = []\n[routes.main]\nupstream = 'ap'\n",
    );
    let expected = [
        "server.workers: `0` is out of range (\"auto\", or 1 to 1024); at x.toml, line 2",
        "server.fd_reserv: there is no such key (set to `1`); did you mean `server.fd_reserve`?; \
         at x.toml, line 3",
        "listeners.web.bind: `nonsense` is no address to listen on (ADDRESS:PORT, \
         \"unix:/PATH\" or \"fd:NAME\"); at x.toml, line 5",
        "listeners.web.idle_timeout: `5` has no unit; say `5s` (1ms to 24h); at x.toml, line 6",
        "upstreams.app.servers: `[]` names no server (a list of \"ADDRESS:PORT\" or { address = \
         \"…\", weight = 1, max_connections = 32, backup = false }); at x.toml, line 8",
        "routes.main.upstream: `ap` is no upstream; did you mean `app`?; at x.toml, line 10",
    ];
    assert_eq!(said, expected);
}

#[test]
fn an_unknown_table_is_refused_with_the_nearest() {
    let said = the_complaint(&format!("{LEAST}[listners.web]\n"));
    assert!(
        said.contains("did you mean `listeners`?") && said.ends_with("line 6"),
        "{said}"
    );
}

#[test]
fn an_unknown_key_in_a_table_of_tables_is_refused() {
    let said = set("upstreams.app.pool.max_idel", "1");
    assert!(
        said.contains("did you mean `upstreams.app.pool.max_idle`?"),
        "{said}"
    );
}

#[test]
fn a_mistake_in_the_defaults_of_a_kind_is_told_once_and_where_it_stands() {
    let text = "[defaults.listener]\nidle_timeout = '0s'\n[listeners.a]\nbind = '127.0.0.1:1'\n\
                [listeners.b]\nbind = '127.0.0.1:2'\n[upstreams.app]\nservers = ['a:1']\n";
    assert_eq!(
        the_complaint(text),
        "defaults.listener.idle_timeout: `0s` is out of range (1ms to 24h); at x.toml, line 2"
    );
}

#[test]
fn zero_never_means_unlimited() {
    for key in [
        "max_connections",
        "max_requests",
        "max_connections_per_client",
    ] {
        let said = set(&format!("listeners.web.{key}"), "0");
        assert!(
            said.contains("`0` is out of range") && said.contains("\"off\""),
            "{said}"
        );
    }
    let said = set("listeners.web.max_body_bytes", "'0B'");
    assert!(said.contains("out of range"), "{said}");
}

#[test]
fn off_is_refused_where_a_deadline_must_be() {
    let said = set("listeners.web.header_timeout", "'off'");
    assert!(said.contains("`off`"), "{said}");
}

#[test]
fn a_name_must_be_one_that_a_variable_can_spell() {
    for name in ["Web", "a__b", "1a", "a-b"] {
        let said = the_complaint(&format!(
            "{LEAST}[listeners.{name}]\nbind = '127.0.0.1:1'\n"
        ));
        assert!(
            said.contains(&format!("`{name}` is no name; it must ")),
            "{said}"
        );
    }
}

#[test]
fn no_listener_and_no_upstream_are_both_complained_about() {
    let said = complaints("");
    assert!(said[0].starts_with("listeners: there is none"), "{said:?}");
    assert!(said[1].starts_with("upstreams: there is none"), "{said:?}");
    assert_eq!(said.len(), 2);
}

#[test]
fn several_upstreams_without_a_route_are_refused() {
    let said = the_complaint(&format!(
        "{LEAST}[upstreams.b]\nservers = ['127.0.0.1:2']\n"
    ));
    assert!(said.starts_with("routes: there is none"), "{said}");
}

#[test]
fn everything_goes_to_a_single_upstream() {
    let settings = checked(LEAST).unwrap();
    assert_eq!(settings.routes.len(), 1);
    assert_eq!(settings.routes[0].upstream, settings.upstreams[0].name);
    assert_eq!(settings.routes[0].path_prefix, "/");
}

#[test]
fn a_route_must_name_its_upstream() {
    let said = the_complaint(&format!("{LEAST}[routes.main]\npriority = 1\n"));
    assert!(
        said.starts_with("routes.main: has no `upstream`") && said.ends_with("line 6"),
        "{said}"
    );
}

#[test]
fn a_listener_must_say_where_and_an_upstream_whom() {
    let said = complaints("[listeners.web]\n[upstreams.app]\n");
    assert!(
        said[0].starts_with("listeners.web: has no `bind`"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("upstreams.app: has no `servers`"),
        "{said:?}"
    );
}

#[test]
fn two_listeners_cannot_have_the_same_address() {
    let two = |one: &str, other: &str| {
        complaints(&format!(
            "[listeners.a]\nbind = '{one}'\n[listeners.b]\nbind = ['{other}']\n\
             [upstreams.app]\nservers = ['a:1']\n"
        ))
    };
    let said = two("127.0.0.1:80", "127.0.0.1:80");
    assert!(
        said[0].contains("`127.0.0.1:80` of listeners.b is taken by listeners.a"),
        "{said:?}"
    );
    assert!(said[0].ends_with("at x.toml, line 4"), "{said:?}");
    assert!(
        !two("127.0.0.1:9901", "127.0.0.1:1").is_empty(),
        "the admin listener's own"
    );
    assert!(two("127.0.0.1:0", "127.0.0.1:0").is_empty());
}

#[test]
fn two_routes_cannot_fit_the_same_requests_equally_well() {
    let said = the_complaint(&format!(
        "{LEAST}[routes.a]\nupstream = 'app'\n[routes.b]\nupstream = 'app'\n"
    ));
    assert!(
        said.starts_with("routes.b: fits the same requests as routes.a"),
        "{said}"
    );
}

#[test]
fn a_client_key_from_a_field_needs_trusted_proxies() {
    let said = set("listeners.web.client_key", "'header:X-Client'");
    assert!(said.contains("trusted_proxies is empty"), "{said}");
    let text = format!(
        "listeners.web.trusted_proxies = ['10.0.0.0/8']\n\
         listeners.web.client_key = 'header:X-Client'\n{LEAST_DOTTED}"
    );
    assert!(checked(&text).is_ok());
}

#[test]
fn a_client_key_from_the_proxy_protocol_needs_it_on() {
    let said = set("listeners.web.client_key", "'proxy_protocol'");
    assert!(said.contains("proxy_protocol, which is off"), "{said}");
}

#[test]
fn a_client_key_is_no_field_whose_members_are_pairs() {
    let text = format!(
        "listeners.web.trusted_proxies = ['10.0.0.0/8']\n\
         listeners.web.client_key = 'header:forwarded'\n{LEAST_DOTTED}"
    );
    let said = the_complaint(&text);
    assert!(
        said.contains("holds pairs and no plain addresses"),
        "{said}"
    );
}

#[test]
fn an_optional_proxy_protocol_needs_trusted_proxies_and_a_required_one_does_not() {
    let said = set("listeners.web.proxy_protocol", "'optional'");
    assert!(said.contains("trusted_proxies is empty"), "{said}");
    for text in [
        "listeners.web.proxy_protocol = 'required'\n",
        "listeners.web.proxy_protocol = 'optional'\n\
         listeners.web.trusted_proxies = ['10.0.0.0/8']\n",
    ] {
        assert!(checked(&format!("{text}{LEAST_DOTTED}")).is_ok(), "{text}");
    }
}

#[test]
fn an_admin_listener_that_others_can_reach_needs_a_token() {
    let said = set("admin.bind", "'0.0.0.0:9901'");
    assert!(said.contains("token_file is off"), "{said}");
    let folder = Folder::named("token");
    let token = folder.write("token", "hunter2-hunter2\n");
    let text = format!(
        "admin.bind = '0.0.0.0:9901'\nadmin.token_file = '{}'\n{LEAST}",
        token.display()
    );
    let settings = checked(&text).unwrap();
    assert_eq!(
        settings.admin.token.as_ref().unwrap().expose(),
        "hunter2-hunter2"
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_token_file_that_cannot_be_read_or_holds_no_token_is_refused() {
    let said = set("admin.token_file", "'/nowhere/at/all'");
    assert!(said.contains("cannot be read"), "{said}");
    let folder = Folder::named("no-token");
    for text in ["", "\n", "two words", "grün"] {
        let path = folder.write("token", text);
        let said = set("admin.token_file", &format!("'{}'", path.display()));
        assert!(said.contains("holds no token"), "{text:?}: {said}");
    }
    let path = folder.write("token", &"a".repeat(4096));
    let said = set("admin.token_file", &format!("'{}'", path.display()));
    assert!(said.contains("holds more than 4096 octets"), "{said}");
}

#[test]
fn idle_connections_are_within_the_cap() {
    let pool = |text: &str| complaints(&format!("{LEAST}{text}\n"));
    assert!(pool("max_idle = 129")[0].contains("`129` is more than max_connections (0 to 128)"));
    assert!(pool("min_idle = 65")[0].contains("`65` is more than max_idle (0 to 64)"));
    assert!(pool("min_idle = 64").is_empty());
}

#[test]
fn a_max_idle_that_nobody_wrote_follows_a_smaller_cap() {
    let settings = checked(&format!("{LEAST}max_connections = 10\n")).unwrap();
    assert_eq!(settings.upstreams[0].pool.max_idle, 10);
}

#[test]
fn a_server_is_there_once_and_one_is_no_backup() {
    let said = complaints(&LEAST.replace("['127.0.0.1:1']", "['a:1', 'A:1']"));
    assert!(said[0].contains("`a:1` is there twice"), "{said:?}");
    let said = complaints(&LEAST.replace("'127.0.0.1:1'", "{ address = 'a:1', backup = true }"));
    assert!(said[0].contains("all backups"), "{said:?}");
    let said = complaints(&LEAST.replace("'127.0.0.1:1'", "{ weight = 0 }"));
    assert!(
        said[0].contains("has no `address`") && said[1].contains("weight"),
        "{said:?}"
    );
}

#[test]
fn an_unknown_key_of_a_server_is_refused() {
    let said = the_complaint(&LEAST.replace("'127.0.0.1:1'", "{ address = 'a:1', wieght = 1 }"));
    assert!(
        said.contains("did you mean `upstreams.app.servers[0].weight`?"),
        "{said}"
    );
}

#[test]
fn fields_that_frame_a_message_are_not_for_routes() {
    let route = |text: &str| complaints(&format!("{LEAST}[routes.a]\nupstream = 'app'\n{text}\n"));
    for field in ["Connection", "content-length", "HOST", "Transfer-Encoding"] {
        let said = route(&format!("set_request_headers = {{ {field} = 'x' }}"));
        assert!(said[0].contains("is ours to write"), "{said:?}");
        let said = route(&format!("remove_response_headers = ['{field}']"));
        assert!(said[0].contains("is ours to write"), "{said:?}");
    }
}

#[test]
fn a_field_that_a_route_sets_has_a_legal_name_and_value() {
    let route = |text: &str| complaints(&format!("{LEAST}[routes.a]\nupstream = 'app'\n{text}\n"));
    assert!(route("set_request_headers = { 'a b' = 'x' }")[0].contains("is no field name"));
    let said = route("set_request_headers = { a = \"Bearer hunter2\\r\\nb: c\" }");
    assert!(
        said[0].contains("has no legal value") && !said[0].contains("hunter2"),
        "{said:?}"
    );
    assert!(route("set_request_headers = { a = 'x', A = 'y' }")[0].contains("there twice"));
    assert!(route("set_request_headers = { X-Real = 'x' }").is_empty());
}

#[test]
fn what_acts_on_linux_only_is_refused_by_name_elsewhere() {
    let cases = [
        ("listeners.web.tcp.user_timeout", "'15s'"),
        ("upstreams.app.tcp.quickack", "true"),
        ("metrics.tcp_info_interval", "'15s'"),
    ];
    for (key, value) in cases {
        let said = not_available(&format!("{key} = {value}\n"));
        assert_eq!(said.len(), 1, "{key}: {said:?}");
        let named = said[0].starts_with(key) && said[0].contains("is not available here: ");
        assert!(
            named && said[0].ends_with("; at x.toml, line 1"),
            "{said:?}"
        );
    }
}

#[test]
fn what_happens_anyway_may_be_written() {
    for (key, value) in [
        ("upstreams.app.tcp.user_timeout", "'off'"),
        ("listeners.web.tcp.quickack", "'auto'"),
        ("metrics.tcp_info_interval", "'off'"),
    ] {
        assert_eq!(
            not_available(&format!("{key} = {value}\n")),
            Vec::<String>::new()
        );
    }
}

#[test]
fn later_layers_win() {
    let folder = Folder::named("layers");
    let file = folder.write(
        "holdfast.toml",
        &format!("log.level = 'warn'\ndrain.timeout = '1s'\n{LEAST}"),
    );
    folder.write(
        "conf.d/10-a.toml",
        "log.level = 'debug'\n[server]\nmax_connections = 10\n",
    );
    folder.write(
        "conf.d/20-b.toml",
        "[server]\nmax_connections = 20\nfd_reserve = 20\n",
    );
    folder.write("conf.d/.30-c.toml", "nonsense");
    folder.write("conf.d/README", "nonsense");
    let loaded = with_environment(&[("HOLDFAST_SERVER__FD_RESERVE", "30")], Some(file)).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.log.level, super::settings::words::LogLevel::Debug);
    assert_eq!(settings.drain.timeout, Duration::from_secs(1));
    assert_eq!(
        (settings.server.max_connections, settings.server.fd_reserve),
        (20, 30)
    );
    assert_eq!(loaded.files.len(), 3);
}

#[test]
fn a_mistake_in_conf_d_is_found_in_its_file_and_line() {
    let folder = Folder::named("conf-d");
    let file = folder.write("holdfast.toml", LEAST);
    let added = folder.write("conf.d/a.toml", "\n\n[upstreams.app.pool]\nmax_idle = -1\n");
    let said = with_environment(&[], Some(file)).unwrap_err().to_string();
    let place = format!("; at {}, line 4\n", added.display());
    assert!(
        said.starts_with("upstreams.app.pool.max_idle: ") && said.ends_with(&place),
        "{said}"
    );
}

#[test]
fn a_syntax_error_names_file_and_line() {
    let folder = Folder::named("syntax");
    let file = folder.write("holdfast.toml", "[server]\nworkers = \n");
    let said = with_environment(&[], Some(file.clone()))
        .unwrap_err()
        .to_string();
    assert!(
        said.ends_with(&format!("; at {}, line 2\n", file.display())),
        "{said}"
    );
}

#[test]
fn the_environment_alone_can_be_a_whole_configuration() {
    let loaded = with_environment(
        &[
            ("HOLDFAST_LISTENERS__WEB__BIND", "127.0.0.1:0"),
            (
                "HOLDFAST_UPSTREAMS__APP__SERVERS",
                r#"["10.0.0.1:3000","10.0.0.2:3000"]"#,
            ),
            ("HOLDFAST_UPSTREAMS__APP__POOL__MAX_CONNECTIONS", "64"),
            ("HOLDFAST_BIN", "/usr/bin/holdfast"),
        ],
        None,
    );
    let upstream = &loaded.unwrap().settings.upstreams[0];
    let second = ServerAddress::Ip("10.0.0.2:3000".parse().unwrap());
    assert_eq!(
        (&upstream.servers[1].address, upstream.pool.max_connections),
        (&second, 64)
    );
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    let folder = Folder::named("variable");
    let file = folder.write("holdfast.toml", LEAST);
    let said = with_environment(
        &[
            ("HOLDFAST_SERVER__WROKERS", "2"),
            ("HOLDFAST_DRAIN__TIMEOUT", "5"),
        ],
        Some(file),
    );
    let said = said.unwrap_err().to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "server.wrokers: there is no such key (set to `2`); did you mean \
             `HOLDFAST_SERVER__WORKERS`?; from HOLDFAST_SERVER__WROKERS",
            "drain.timeout: `5` has no unit; say `5s` (0s to 24h); from HOLDFAST_DRAIN__TIMEOUT",
        ]
    );
}

#[test]
fn an_explanation_shows_every_value_with_its_origin_and_no_secret() {
    let folder = Folder::named("explain");
    let file = folder.write(
        "holdfast.toml",
        &format!(
            "{LEAST}max_connections = 10\n[routes.a]\nupstream = 'app'\n\
             set_request_headers = {{ Authorization = 'Bearer hunter2' }}\n"
        ),
    );
    let loaded = with_environment(&[("HOLDFAST_LOG__LEVEL", "warn")], Some(file.clone())).unwrap();
    let text = explain::explain(&loaded);
    let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    has("log.level = \"warn\"  # HOLDFAST_LOG__LEVEL");
    has("log.format = \"json\"  # default");
    has(&format!(
        "upstreams.app.pool.max_connections = 10  # {}, line 6",
        file.display()
    ));
    has("# advice: upstreams.app.pool.max_idle follows max_connections down, to 10");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(explain::summary(&loaded).starts_with("1 listener, 1 upstream with 1 server, 1 route"));
}

#[test]
fn the_rest_of_a_variable_is_kept_in_the_suggestion() {
    let said = with_environment(&[("HOLDFAST_LGO__LEVEL", "info")], None)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("did you mean `HOLDFAST_LOG__LEVEL`?"),
        "{said}"
    );
}

#[test]
fn a_secret_that_was_written_in_the_wrong_place_is_not_shown() {
    for (name, value) in [
        ("HOLDFAST_ADMIN__TOKEN", "hunter2"),
        ("HOLDFAST_ADMIN__AUTH", "{ bearer = 'hunter2' }"),
        ("HOLDFAST_ROUTES__A__SET_REQUEST_HEADERS", "{ a = hunter2 }"),
        ("HOLDFAST_ROUTES__A__SET_REQUEST_HEADERS", "hunter2"),
    ] {
        let said = with_environment(&[(name, value)], None)
            .unwrap_err()
            .to_string();
        assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn the_admin_listener_may_be_off() {
    let settings = checked(&format!("admin.bind = 'off'\n{LEAST_DOTTED}")).unwrap();
    assert_eq!(settings.admin.bind, None);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_check_fall_over(text in "[a-z\\[\\]{}='\n. 0-9:]{0,120}") {
        complaints(&text);
        complaints(&format!("{LEAST}[routes.a]\nupstream = 'app'\n{text}"));
    }
}

#[test]
fn source_addresses_are_addresses_each_once_and_of_the_servers_families() {
    let said = |sources: &str| {
        complaints(&format!(
            "upstreams.app.connect.source_addresses = {sources}\nupstreams.app.servers = \
             ['10.0.0.1:80']\nlisteners.web.bind = '127.0.0.1:0'\n"
        ))
    };
    assert_eq!(said("['10.0.0.2', '10.0.0.3']"), Vec::<String>::new());
    for (sources, why) in [
        ("['10.0.0.2', '10.0.0.2']", "is there twice"),
        ("['10.0.0.2:80']", "is no address"),
        ("['0.0.0.0']", "is no address to connect from"),
        (
            "['::1']",
            "has no address from which 10.0.0.1:80 can be reached",
        ),
    ] {
        let said = said(sources);
        assert!(said.len() == 1 && said[0].contains(why), "{said:?}");
    }
}
