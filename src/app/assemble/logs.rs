//! `[log]` to the access log's settings and the log of the process.

use std::sync::Arc;

use crate::config::settings::Log;
use crate::config::settings::values::AccessFile;
use crate::config::settings::words;
use crate::observe::ErrorLog;
use crate::observe::access_format::Format;
use crate::observe::access_log::Access;
use crate::observe::access_log::AccessSettings;
use crate::observe::access_log::Destination;
use crate::observe::error_log::Severity;
use crate::observe::line::Style;

/// How exchanges are logged.
#[must_use]
pub fn access(log: &Log) -> AccessSettings {
    AccessSettings {
        access: match log.access {
            words::AccessLog::All => Access::All,
            words::AccessLog::Errors => Access::Errors,
            words::AccessLog::Off => Access::Off,
        },
        format: match log.format {
            words::LogFormat::Json => Format::Json,
            words::LogFormat::Logfmt => Format::Logfmt,
            words::LogFormat::Combined => Format::Combined,
        },
        destination: match &log.access_file {
            AccessFile::Stdout => Destination::Stdout,
            AccessFile::Stderr => Destination::Stderr,
            AccessFile::Path(path) => Destination::File(path.clone()),
        },
    }
}

/// The log of the process.
#[must_use]
pub fn errors(log: &Log) -> Arc<ErrorLog> {
    ErrorLog::to_stderr(severity(log.level), style(log.format))
}

fn severity(level: words::LogLevel) -> Severity {
    match level {
        words::LogLevel::Error => Severity::Error,
        words::LogLevel::Warn => Severity::Warn,
        words::LogLevel::Info => Severity::Info,
        // There are no lines of steps: what a developer wants is what there is.
        words::LogLevel::Debug | words::LogLevel::Trace => Severity::Debug,
    }
}

/// `combined` is for the access log only; the log of the process stays what it is by default.
fn style(format: words::LogFormat) -> Style {
    match format {
        words::LogFormat::Json | words::LogFormat::Combined => Style::Json,
        words::LogFormat::Logfmt => Style::Logfmt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::settings;

    #[test]
    fn exchanges_are_logged_as_the_table_says() {
        let said = [
            ("LOG__ACCESS", "errors"),
            ("LOG__FORMAT", "combined"),
            ("LOG__ACCESS_FILE", "stderr"),
        ];
        let wanted = AccessSettings {
            access: Access::Errors,
            format: Format::Combined,
            destination: Destination::Stderr,
        };
        assert_eq!(access(&settings(&said).log), wanted);
    }

    #[test]
    fn a_level_lets_through_what_matters_at_least_as_much() {
        assert_eq!(severity(words::LogLevel::Warn), Severity::Warn);
        assert_eq!(severity(words::LogLevel::Trace), Severity::Debug);
    }

    #[test]
    fn the_combined_format_is_for_the_access_log_only() {
        assert_eq!(style(words::LogFormat::Combined), Style::Json);
        assert_eq!(style(words::LogFormat::Json), Style::Json);
    }
}
