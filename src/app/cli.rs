//! The command line: what is asked for, and the exit code that tells how it went.
//!
//! Exit codes: 0 fine, 1 failed while running, 2 usage or invalid configuration. Errors go to
//! standard error, one a line. What a command does is behind [`Commands`]; here is only its shape.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use crate::app::assemble;
use crate::app::budget;
use crate::config;
use crate::config::Loaded;
use crate::config::Settings;
use crate::config::Sources;
use crate::config::explain;
use crate::config::source::FILE_VARIABLE;
use crate::config::source::Flag;
use crate::config::source::Given;
use crate::config::source::VARIABLE_PREFIX;
use crate::config::source::Variables;
use crate::net::control;
use crate::net::memory;

/// What may be chosen for a demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// Where the proxy listens.
    pub listen: String,
    /// Where the admin page is.
    pub admin: String,
    /// The environment, whose settings are under those of the demo.
    pub variables: Variables,
}

/// What the commands do.
#[derive(Clone, Copy)]
pub struct Commands {
    /// Serves until told to stop. The sources are what a reload reads again.
    pub run: fn(Loaded, Sources) -> Result<(), String>,
    /// Starts two small origins and serves for them, with the environment's settings.
    pub demo: fn(Demo) -> Result<(), String>,
    /// Talks to the admin listener of a running proxy.
    pub ask: fn(Question, &Whom) -> Result<(), String>,
}

/// Who is asked.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct Whom {
    /// The admin listener of the running proxy.
    #[arg(long, value_name = "ADDR", default_value = ADMIN)]
    pub admin: SocketAddr,
    /// The file with its token, if it asks for one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What may be asked of a running proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Show live connections.
    Top,
    /// Drain and end.
    Drain,
    /// Read the configuration again.
    Reload,
}

/// Reads the process's own command line and environment, and does what they say.
pub fn main(commands: &Commands) -> ExitCode {
    let exit = match environment(std::env::vars_os()) {
        Ok(variables) => main_with(commands, std::env::args_os(), variables),
        Err(complaint) => wrong(&complaint),
    };
    ExitCode::from(exit)
}

/// Does what a command line and an environment say; the exit code.
pub fn main_with(
    commands: &Commands,
    arguments: impl IntoIterator<Item = OsString>,
    variables: Variables,
) -> u8 {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        // `--help` and `--version` are such errors too, with code 0.
        Err(error) => {
            let printed = error.print();
            let code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
            return if printed.is_ok() { code } else { FAILED };
        }
    };
    match line.command {
        None => run(commands, sources(line.config, variables)),
        Some(Command::Run { config }) => run(commands, sources(config.or(line.config), variables)),
        Some(Command::Check { config, explain }) => {
            let verbosity = if explain {
                Verbosity::Explain
            } else {
                Verbosity::Summary
            };
            check(&sources(config.or(line.config), variables), verbosity)
        }
        Some(Command::Proxy { listen, to }) => run(commands, proxy(listen, to, variables)),
        Some(Command::Demo { listen, admin }) => ended((commands.demo)(Demo {
            listen,
            admin,
            variables,
        })),
        Some(Command::Top(whom)) => ended((commands.ask)(Question::Top, &whom)),
        Some(Command::Drain(whom)) => ended((commands.ask)(Question::Drain, &whom)),
        Some(Command::Reload(whom)) => ended((commands.ask)(Question::Reload, &whom)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Line::command(), "holdfast", &mut script);
            show(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(Line::command()).render(&mut page) {
                Ok(()) => show(&page),
                Err(error) => ended(Err(error.to_string())),
            }
        }
    }
}

/// Sources for one listener and one upstream, both named `main`, without a file.
#[must_use]
pub fn proxy(listen: String, to: Vec<String>, variables: Variables) -> Sources {
    let flags = vec![
        Flag {
            flag: "--listen",
            key: "listeners.main.bind",
            given: Given::Once(listen),
        },
        Flag {
            flag: "--to",
            key: "upstreams.main.servers",
            given: Given::Each(to),
        },
    ];
    Sources {
        file: None,
        variables,
        flags,
    }
}

/// An HTTP/1.1 reverse proxy and load balancer that is exact about connections.
#[derive(Parser, Debug)]
#[command(name = "holdfast", version, args_conflicts_with_subcommands = true)]
struct Line {
    /// The configuration file; also HOLDFAST_CONFIG.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start; what `holdfast --config FILE` does too.
    Run {
        /// The configuration file; also HOLDFAST_CONFIG.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Start without a file: one listener, one upstream.
    Proxy {
        /// Where to listen.
        #[arg(long, value_name = "ADDR")]
        listen: String,
        /// A server to pass requests to; may be repeated.
        #[arg(long, value_name = "ADDR", required = true)]
        to: Vec<String>,
    },
    /// A proxy, two small origins and the admin page, all in one process.
    Demo {
        /// Where the proxy listens; port 0 takes a free one.
        #[arg(long, value_name = "ADDR", default_value = DEMO)]
        listen: String,
        /// Where the admin page is.
        #[arg(long, value_name = "ADDR", default_value = ADMIN)]
        admin: String,
    },
    /// Validate the configuration.
    Check {
        /// The configuration file; also HOLDFAST_CONFIG.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Show every value with its origin, and advice.
        #[arg(long)]
        explain: bool,
    },
    /// Live connections in the terminal, anew each second.
    Top(Whom),
    /// Drain the running proxy; it must allow changes.
    Drain(Whom),
    /// Have the running proxy read its configuration again.
    Reload(Whom),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

/// How much `check` says.
enum Verbosity {
    Summary,
    Explain,
}

fn run(commands: &Commands, sources: Sources) -> u8 {
    match config::load(&sources) {
        Ok(loaded) => ended((commands.run)(loaded, sources)),
        Err(complaints) => wrong(&complaints.to_string()),
    }
}

fn check(sources: &Sources, verbosity: Verbosity) -> u8 {
    match config::load(sources) {
        Ok(loaded) => {
            let explained = match verbosity {
                Verbosity::Summary => String::new(),
                Verbosity::Explain => explain::explain(&loaded),
            };
            let summary = explain::summary(&loaded);
            show(format!("{explained}ok: {summary}\n{}", needs(&loaded.settings)).as_bytes())
        }
        Err(complaints) => wrong(&complaints.to_string()),
    }
}

/// What the configuration needs at most, beside what a process started from here would have.
fn needs(settings: &Settings) -> String {
    let workers = assemble::workers(settings.server.workers);
    let budget = budget::reckon(settings, workers, |at| budget::configured(settings, at));
    budget.lines(control::raise_descriptor_limit(), memory::limit())
}

/// The file on the command line is over the one that the environment names.
fn sources(config: Option<PathBuf>, variables: Variables) -> Sources {
    let named = variables.iter().find(|(name, _)| name == FILE_VARIABLE);
    let file = config.or_else(|| named.map(|(_, path)| PathBuf::from(path)));
    Sources {
        file,
        variables,
        flags: Vec::new(),
    }
}

/// Our part of the environment, as text.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Variables, String> {
    let ours = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(value) => Err(format!(
                "{name}: `{}` is no UTF-8\n",
                value.to_string_lossy()
            )),
        })
        .collect()
}

fn ended(result: Result<(), String>) -> u8 {
    match result {
        Ok(()) => FINE,
        Err(error) => {
            complain(&format!("holdfast: {error}\n"));
            FAILED
        }
    }
}

fn wrong(complaints: &str) -> u8 {
    complain(complaints);
    USAGE
}

/// Writes to standard output. A reader that left is a failure: it did not get what it asked for.
fn show(octets: &[u8]) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(octets).and_then(|()| out.flush()) {
        Ok(()) => FINE,
        Err(_) => FAILED,
    }
}

/// Writes to standard error. When that fails nobody is left to be told; the exit code remains.
fn complain(text: &str) {
    std::io::stderr()
        .lock()
        .write_all(text.as_bytes())
        .unwrap_or_default();
}

/// Where the admin listener is unless the configuration says otherwise.
const ADMIN: &str = "127.0.0.1:9901";

/// Where the demo's proxy listens.
const DEMO: &str = "127.0.0.1:8080";

const FINE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: Commands = Commands {
        run: |_, _| Err("ran".to_owned()),
        demo: |_| Ok(()),
        ask: |_, _| Ok(()),
    };

    fn code(arguments: &[&str]) -> u8 {
        let arguments = std::iter::once("holdfast").chain(arguments.iter().copied());
        main_with(&COMMANDS, arguments.map(OsString::from), Vec::new())
    }

    #[test]
    fn a_usage_error_exits_with_2() {
        assert_eq!(code(&["--nonsense"]), USAGE);
        assert_eq!(code(&["proxy", "--listen", "127.0.0.1:0"]), USAGE);
        assert_eq!(code(&["completions", "tcsh-ng"]), USAGE);
    }

    #[test]
    fn a_wrong_configuration_exits_with_2() {
        assert_eq!(code(&["run", "--config", "/nowhere/at/all.toml"]), USAGE);
        assert_eq!(code(&["check", "--config", "/nowhere/at/all.toml"]), USAGE);
        assert_eq!(code(&["--config", "/nowhere/at/all.toml"]), USAGE);
        assert_eq!(code(&[]), USAGE);
        assert_eq!(
            code(&["proxy", "--listen", "nonsense", "--to", "127.0.0.1:1"]),
            USAGE
        );
    }

    #[test]
    fn a_failure_while_running_exits_with_1() {
        assert_eq!(
            code(&["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"]),
            FAILED
        );
    }

    #[test]
    fn proxy_passes_requests_to_every_server_named() {
        let to = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let loaded = config::load(&proxy("127.0.0.1:0".to_owned(), to, Vec::new())).unwrap();
        assert_eq!(loaded.settings.upstreams[0].servers.len(), 2);
        assert_eq!(
            loaded.settings.routes[0].upstream,
            loaded.settings.upstreams[0].name
        );
    }

    #[test]
    fn the_file_on_the_command_line_is_over_the_one_in_the_environment() {
        let variables = vec![("HOLDFAST_CONFIG".to_owned(), "b.toml".to_owned())];
        let file =
            |config: Option<&str>| sources(config.map(PathBuf::from), variables.clone()).file;
        assert_eq!(file(Some("a.toml")), Some(PathBuf::from("a.toml")));
        assert_eq!(file(None), Some(PathBuf::from("b.toml")));
    }

    #[test]
    fn every_command_is_listed() {
        let help = Line::command().render_long_help().to_string();
        for command in ["check", "completions", "drain", "reload"] {
            assert!(help.contains(command), "{help}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    #[cfg(unix)]
    fn a_variable_of_ours_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let value = OsString::from_vec(vec![0xff]);
        let one = |name: &str| std::iter::once((OsString::from(name), value.clone()));
        assert!(environment(one("HOLDFAST_LOG__LEVEL")).is_err());
        assert_eq!(environment(one("PATH")), Ok(Vec::new()));
    }
}
