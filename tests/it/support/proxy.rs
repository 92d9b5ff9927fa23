//! The binary under test: started with a configuration of its own, on ports of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use super::Client;
use super::Origin;
use super::PATIENCE;
use super::config::Config;
use super::eventually;
use super::metrics;
use super::metrics::Sample;

/// A running Holdfast. Dropped, it is ended, after a look at whether it was still well.
pub struct Proxy {
    child: Child,
    folder: PathBuf,
    config: Config,
    addresses: BTreeMap<String, SocketAddr>,
    stdout: Lines,
    stderr: Lines,
    ended: bool,
    /// Whether panics are what the test is about.
    panics: bool,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// What a run that never served had to say.
pub struct Refusal {
    pub code: Option<i32>,
    pub stderr: String,
    pub stdout: String,
}

/// The program under test. `HOLDFAST_BIN` names another than the one cargo has just built.
pub fn binary() -> PathBuf {
    std::env::var_os("HOLDFAST_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_holdfast")),
        PathBuf::from,
    )
}

/// As many descriptors as this process may have, which it then has: a shell may give it few.
pub fn descriptors() -> u64 {
    let files = rustix::process::Resource::Nofile;
    let most = rustix::process::getrlimit(files).maximum;
    let raised = rustix::process::Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(files, raised).unwrap();
    most.unwrap_or(u64::MAX)
}

/// A folder of this test's own.
pub fn fresh_folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let nth = NEXT.fetch_add(1, Ordering::SeqCst);
    let folder = std::env::temp_dir().join(format!("holdfast-it-{}-{nth}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

impl Proxy {
    /// In front of one origin, everything by default.
    #[track_caller]
    pub fn to(origin: &Origin) -> Self {
        Self::with(origin, |_| ())
    }

    /// In front of one origin, with changes to the configuration.
    #[track_caller]
    pub fn with(origin: &Origin, change: impl FnOnce(&mut Config)) -> Self {
        Self::configured(|config| {
            config.upstream("servers", [origin.address()]);
            change(config);
        })
    }

    /// In front of whoever is, or is not, at this address.
    #[track_caller]
    pub fn to_address(address: SocketAddr) -> Self {
        Self::configured(|config| {
            config.upstream("servers", [address]);
        })
    }

    /// In front of several origins as one upstream, in this order.
    #[track_caller]
    pub fn over(origins: &[&Origin], change: impl FnOnce(&mut Config)) -> Self {
        let servers: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        Self::configured(|config| {
            config.upstream("servers", servers);
            change(config);
        })
    }

    /// With a listener `web` and an admin listener on free ports; the rest is the caller's.
    #[track_caller]
    pub fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::starting(change, |_| ())
    }

    /// The same, with changes to the command that starts it.
    #[track_caller]
    pub fn starting(change: impl FnOnce(&mut Config), prepare: impl FnOnce(&mut Command)) -> Self {
        let mut config = Config::default();
        config.set("admin.bind", "127.0.0.1:0");
        config.set("server.watch_config", false);
        // What ends a test ends at once; the tests of the drain say what it waits for.
        for wait in ["drain.delay", "drain.idle_grace", "drain.spread"] {
            config.set(wait, "0s");
        }
        // A machine may be busier than these defaults allow for; the tests of the keys set them.
        for wait in [
            "connect.timeout",
            "pool.queue_timeout",
            "pool.unsafe_max_idle",
        ] {
            config.set(&format!("defaults.upstream.{wait}"), "30s");
        }
        config.listener("bind", "127.0.0.1:0");
        change(&mut config);
        Self::start(config, prepare)
    }

    #[track_caller]
    fn start(config: Config, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = fresh_folder();
        let file = folder.join("holdfast.toml");
        fs::write(&file, config.text()).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("--config")
            .arg(&file)
            .env_remove("HOLDFAST_CONFIG")
            // A machine without a resolver is to say so at once.
            .env("RES_OPTIONS", "timeout:1 attempts:1")
            .stdin(Stdio::null());
        prepare(&mut command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        let stdout = collected(child.stdout.take().unwrap());
        let stderr = collected(child.stderr.take().unwrap());
        let addresses = BTreeMap::new();
        let mut proxy = Self {
            child,
            folder,
            config,
            addresses,
            stdout,
            stderr,
            ended: false,
            panics: false,
        };
        proxy.wait_for_listeners();
        proxy
    }

    /// Where its configuration is.
    pub fn file(&self) -> PathBuf {
        self.folder.join("holdfast.toml")
    }

    /// Writes its configuration anew, changed; whoever reads it meanwhile reads all of it.
    pub fn rewrite(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        let beside = self.folder.join("holdfast.new");
        fs::write(&beside, self.config.text()).unwrap();
        fs::rename(beside, self.file()).unwrap();
    }

    /// Changes its configuration and sends HUP; waits until one has been applied.
    #[track_caller]
    pub fn reloads(&mut self, change: impl FnOnce(&mut Config)) {
        let applied = self.reloads_so_far("applied");
        self.rewrite(change);
        self.signal(rustix::process::Signal::HUP);
        self.reloaded("applied", applied + 1.0);
    }

    /// The same, of a configuration that is to be refused.
    #[track_caller]
    pub fn refuses_to_reload(&mut self, change: impl FnOnce(&mut Config)) {
        let refused = self.reloads_so_far("refused");
        self.rewrite(change);
        self.signal(rustix::process::Signal::HUP);
        self.reloaded("refused", refused + 1.0);
    }

    pub fn reloads_so_far(&self, result: &str) -> f64 {
        self.metric("holdfast_config_reloads_total", &[("result", result)])
    }

    #[track_caller]
    pub fn reloaded(&self, result: &str, times: f64) {
        let labels = [("result", result)];
        self.metric_becomes("holdfast_config_reloads_total", &labels, times);
    }

    #[track_caller]
    fn wait_for_listeners(&mut self) {
        let config = &self.config;
        let mut due: Vec<String> = Vec::new();
        for line in config.text().lines() {
            let bind = line.split_once(".bind = ").map(|(table, _)| table);
            let off = line.ends_with("\"off\"");
            due.extend(
                bind.filter(|_| !off)
                    .map(|t| t.trim_start_matches("listeners.").to_owned()),
            );
        }
        let deadline = Instant::now() + PATIENCE;
        while !due.iter().all(|name| self.addresses.contains_key(name)) {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = true;
                // The last words may still be on their way through the pipe.
                thread::sleep(std::time::Duration::from_millis(50));
                panic!(
                    "it ended at start: {status}\n{}\n{}",
                    config.text(),
                    self.stderr()
                );
            }
            if Instant::now() > deadline {
                self.ended = true;
                drop(self.child.kill());
                panic!(
                    "no `listening` for {due:?}\n{}\n{}",
                    config.text(),
                    self.stderr()
                );
            }
            for line in self.stderr.lock().unwrap().iter() {
                if fact(line, "event").as_deref() == Some("listening") {
                    let name = fact(line, "listener").expect("a listener's name");
                    let address = fact(line, "address").expect("an address").parse();
                    // A unix socket has none that a client could be made of.
                    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                    self.addresses.insert(name, address.unwrap_or(nowhere));
                }
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Runs the binary with a configuration that it should refuse.
    #[track_caller]
    pub fn refuses(text: &str) -> Refusal {
        let folder = fresh_folder();
        let file = folder.join("holdfast.toml");
        fs::write(&file, text).unwrap();
        let refusal = run(&["--config", file.to_str().unwrap()]);
        fs::remove_dir_all(folder).unwrap();
        refusal
    }

    pub fn address(&self) -> SocketAddr {
        self.listener("web")
    }

    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self
            .addresses
            .get(name)
            .unwrap_or_else(|| panic!("no listener `{name}`"))
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::to(self.address())
    }

    /// A client whose GET has come to the origin and waits there; none came before.
    #[track_caller]
    pub fn client_waiting_for(&self, origin: &Origin) -> Client {
        let mut client = self.client();
        client.ask("/");
        origin.waits_for_requests(1);
        client
    }

    /// A GET to the admin listener: status and body.
    #[track_caller]
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut client = Client::to(self.listener("admin"));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        ));
        let response = client.response();
        (response.status(), response.text())
    }

    #[track_caller]
    pub fn samples(&self) -> Vec<Sample> {
        let (status, text) = self.admin("/metrics");
        assert_eq!(status, 200, "{text}");
        metrics::samples(&text)
    }

    /// The sum over the series that have these labels. A series that is not there is a failure: the
    /// contract has every one there from the start.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metrics::sum(&self.samples(), name, labels)
            .unwrap_or_else(|| panic!("no series {name} {labels:?}"))
    }

    #[track_caller]
    pub fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let what = format!("{name} {labels:?} = {value}");
        let deadline = Instant::now() + PATIENCE / 2;
        while last != value {
            assert!(Instant::now() < deadline, "{what}, but it is {last}");
            last = self.metric(name, labels);
            thread::sleep(std::time::Duration::from_millis(3));
        }
    }

    /// Connections opened to the upstream `app`, for all reasons.
    #[track_caller]
    pub fn opened(&self) -> f64 {
        self.metric(
            "holdfast_upstream_connections_opened_total",
            &[("upstream", "app")],
        )
    }

    /// Connections to the upstream `app` that were closed for this reason.
    #[track_caller]
    pub fn upstream_closed_becomes(&self, reason: &str, count: f64) {
        let labels = [("upstream", "app"), ("reason", reason)];
        self.metric_becomes("holdfast_upstream_connections_closed_total", &labels, count);
    }

    /// The drain comes to this stage.
    #[track_caller]
    pub fn drain_becomes(&self, stage: &str) {
        let shown = format!("\"stage\":\"{stage}\"");
        eventually(&shown, || self.admin("/drain").1.contains(&shown));
    }

    /// So many requests wait for a connection to the upstream `app`.
    #[track_caller]
    pub fn queue_becomes(&self, length: f64) {
        let app = [("upstream", "app")];
        self.metric_becomes("holdfast_upstream_queue_length", &app, length);
    }

    /// Client connections of the listener `web` that were closed for this reason.
    #[track_caller]
    pub fn client_closed_becomes(&self, reason: &str, count: f64) {
        let labels = [("listener", "web"), ("reason", reason)];
        self.metric_becomes("holdfast_client_connections_closed_total", &labels, count);
    }

    #[track_caller]
    pub fn errors_becomes(&self, reason: &str, count: f64) {
        self.metric_becomes("holdfast_proxy_errors_total", &[("reason", reason)], count);
    }

    /// The first `count` lines on stdout, waited for.
    #[track_caller]
    pub fn log_lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines of access log"), || {
            self.stdout.lock().unwrap().len() >= count
        });
        self.stdout.lock().unwrap().clone()
    }

    /// The first `count` lines of the access log as JSON.
    #[track_caller]
    pub fn log(&self, count: usize) -> Vec<serde_json::Value> {
        let lines = self.log_lines(count);
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }

    /// What the log of the process has said by now; the last of it may still be in the pipe.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// Waits until the log of the process has said this: the whole line.
    #[track_caller]
    pub fn tells(&self, text: &str) -> String {
        let mut told = None;
        eventually(&format!("the log says `{text}`"), || {
            let lines = self.stderr.lock().unwrap();
            told = lines.iter().find(|line| line.contains(text)).cloned();
            told.is_some()
        });
        told.unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Panics are what this test is about.
    pub fn may_panic(&mut self) {
        self.panics = true;
    }

    /// Sends TERM.
    pub fn terminate(&mut self) {
        self.ended = true;
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        self.ended = true;
        let mut status = None;
        eventually("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let found = self.child.try_wait();
        let crashed = !self.ended && !matches!(found, Ok(None));
        // By its own id, which is not reused before it is waited for.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
        let stderr = self.stderr();
        let panicked = stderr.contains("panicked at");
        if thread::panicking() {
            let stdout = self.stdout.lock().unwrap().clone();
            let last = stdout.len().saturating_sub(20);
            eprintln!(
                "--- stderr\n{stderr}\n--- stdout\n{}",
                stdout[last..].join("\n")
            );
        } else {
            assert!(!crashed, "it had ended by itself: {found:?}\n{stderr}");
            assert!(!panicked || self.panics, "it panicked:\n{stderr}");
        }
    }
}

/// Runs the binary to its end, bounded in time.
#[track_caller]
pub fn run(arguments: &[&str]) -> Refusal {
    let mut child = Command::new(binary())
        .args(arguments)
        .env_remove("HOLDFAST_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            drop(child.kill());
            panic!("{arguments:?} did not end");
        }
        thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    Refusal {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
    }
}

fn collected(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let theirs = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            theirs.lock().unwrap().push(line);
        }
    });
    lines
}

/// One fact of a line of the process log, in JSON or logfmt.
fn fact(line: &str, key: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<serde_json::Value>(line) {
        return line[key].as_str().map(str::to_owned);
    }
    let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
}
