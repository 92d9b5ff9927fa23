//! The program: the library's command line, and nothing else.

use std::process::ExitCode;

use holdfast::app::cli;

fn main() -> ExitCode {
    cli::main(&COMMANDS)
}

const COMMANDS: cli::Commands = cli::Commands {
    run: |_, _| Err("`run` is not yet available".to_owned()),
    demo: |_| Err("`demo` is not yet available".to_owned()),
    ask: |_, _| Err("this command is not yet available".to_owned()),
};
