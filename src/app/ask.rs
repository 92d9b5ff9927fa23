//! `holdfast top`, `drain` and `reload`: asking a running proxy through its admin listener.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_types::Method;
use serde_json::Value;

use crate::app::cli::Question;
use crate::app::cli::Whom;
use crate::app::token::Token;
use crate::net::admin_client;
use crate::net::admin_client::Answer;
use crate::net::admin_client::Ask;
use crate::net::control;

/// Asks, and shows the answer.
///
/// # Errors
/// That nobody answers, or the reason of a refusal.
pub fn ask(question: Question, whom: &Whom) -> Result<(), String> {
    let token = whom.token_file.as_deref().map(read_token).transpose()?;
    let (address, token) = (whom.admin, token.as_deref());
    let (method, path) = match question {
        Question::Top => return top(address, token),
        Question::Drain => (Method::Post, "/drain"),
        Question::Reload => (Method::Post, "/reload"),
    };
    let answer = control::run(answer(Ask {
        address,
        method,
        path,
        token,
    }))?;
    accepted(&answer)?;
    if let Some(note) = note(&answer.body) {
        // It is in effect whether or not somebody reads this.
        std::io::stderr().write_all(note.as_bytes()).ok();
    }
    Ok(())
}

/// What an operator should know about a configuration that is in effect.
fn note(body: &str) -> Option<String> {
    let body = serde_json::from_str::<Value>(body).ok()?;
    let keys: Vec<_> = body.get("need_a_restart")?.as_array()?.iter().collect();
    let keys: Vec<_> = keys.into_iter().filter_map(Value::as_str).collect();
    let lines = keys
        .iter()
        .map(|key| format!("{key}: changed, and acts after a restart\n"));
    (!keys.is_empty()).then(|| lines.collect())
}

fn read_token(file: &Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Token::parse(&text).map_err(|clause| format!("{}: {clause}", file.display()))?;
    Ok(text.trim_ascii().to_owned())
}

/// Shows the connections, again each second, until the terminal has had enough.
fn top(address: SocketAddr, token: Option<&str>) -> Result<(), String> {
    control::run(async {
        loop {
            let ask = Ask {
                address,
                method: Method::Get,
                path: "/connections?limit=40",
                token,
            };
            let answer = answer(ask).await?;
            let screen = screen(&shown(&answer)?);
            let mut out = std::io::stdout().lock();
            if out
                .write_all(screen.as_bytes())
                .and_then(|()| out.flush())
                .is_err()
            {
                return Ok(()); // whoever read it has left
            }
            drop(out);
            control::sleep(EACH).await;
        }
    })
}

async fn answer(ask: Ask<'_>) -> Result<Answer, String> {
    let address = ask.address;
    admin_client::ask(ask, PATIENCE)
        .await
        .map_err(|error| format!("{address}: {error}"))
}

fn accepted(answer: &Answer) -> Result<(), String> {
    match answer.status {
        200..300 => Ok(()),
        status => Err(refusal(status, &answer.body)),
    }
}

fn shown(answer: &Answer) -> Result<Value, String> {
    accepted(answer)?;
    serde_json::from_str(&answer.body).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// The reason in a refusal, or what there is instead.
fn refusal(status: u16, body: &str) -> String {
    let error = serde_json::from_str::<Value>(body).ok();
    let error = error
        .as_ref()
        .and_then(|body| body.get("error"))
        .and_then(Value::as_str);
    error.map_or_else(|| format!("it answered with {status}"), str::to_owned)
}

/// One screen: cleared, a headline, a line for each connection.
fn screen(connections: &Value) -> String {
    let mut text = format!("\x1b[H\x1b[2J{} connections\n", connections["open"]);
    text.push_str(&line(
        &["id", "side", "of", "phase", "for", "requests", "peer"].map(str::to_owned),
    ));
    for one in connections["connections"].as_array().into_iter().flatten() {
        let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let of = if one["listener"].is_null() {
            "upstream"
        } else {
            "listener"
        };
        let seconds = one["phase_ms"].as_u64().unwrap_or_default() as f64 / 1000.0;
        text.push_str(&line(&[
            one["id"].to_string(),
            word("side"),
            word(of),
            word("phase"),
            format!("{seconds:.1}s"),
            one["requests"].to_string(),
            word("peer"),
        ]));
    }
    text
}

/// Control characters stay out of the terminal, whoever answered.
fn line(cells: &[String; 7]) -> String {
    let plain = |cell: &String| {
        cell.chars()
            .filter(|char| !char.is_control())
            .collect::<String>()
    };
    let [id, side, of, phase, age, requests, peer] = cells.each_ref().map(plain);
    format!("{id:>8} {side:<8} {of:<16} {phase:<14} {age:>9} {requests:>9} {peer}\n")
}

/// Between two screens.
const EACH: Duration = Duration::from_secs(1);

/// For an answer: the admin listener is near; a reload waits for names at most.
const PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let answer = Answer {
            status: 403,
            body: "{\"error\":\"admin.allow_changes is false\"}\n".to_owned(),
        };
        assert_eq!(
            accepted(&answer),
            Err("admin.allow_changes is false".to_owned())
        );
        let answer = Answer {
            status: 500,
            body: String::new(),
        };
        assert_eq!(accepted(&answer), Err("it answered with 500".to_owned()));
    }

    #[test]
    fn a_screen_has_a_line_for_each_connection_and_no_control_characters_of_others() {
        let connection = json!({ "id": 7, "side": "client", "listener": "web\u{1b}[2J", "peer": "127.0.0.1:1",
            "phase": "idle", "phase_ms": 1500, "requests": 3 });
        let screen = screen(&json!({ "open": 1, "connections": [connection] }));
        let last = screen.lines().last().unwrap();
        assert!(
            last.contains("idle") && last.contains("1.5s") && !last.contains('\u{1b}'),
            "{last}"
        );
    }
}
