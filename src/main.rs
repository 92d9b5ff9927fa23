//! The program: the library's command line, and nothing else.

use std::process::ExitCode;

use holdfast::app::ask;
use holdfast::app::cli;
use holdfast::app::demo;
use holdfast::app::run;

fn main() -> ExitCode {
    cli::main(&COMMANDS)
}

const COMMANDS: cli::Commands = cli::Commands {
    run: |loaded, sources| run::run(loaded, sources, |_| ()),
    demo: demo::demo,
    ask: ask::ask,
};
