//! Which requests go to which upstream, and what is said about them on the way.

use crate::base::names::Name;

use super::values::HostPattern;
use super::values::SetField;
use super::values::Token;
use super::words::Forwarded;

/// `[routes.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The name of its table, or of the upstream when it was not written.
    pub name: Name,
    /// The hosts it is for; at least one.
    pub hosts: Vec<HostPattern>,
    /// How the path begins; itself begins with `/`.
    pub path_prefix: String,
    /// Where its requests go: the name of one of [`super::Settings::upstreams`].
    pub upstream: Name,
    /// Which of two that fit equally well is taken: the higher.
    pub priority: i32,
    /// The protocols that may be upgraded to, in lower case.
    pub upgrade: Vec<Token>,
    /// Whether the origin sees the client's `Host`.
    pub preserve_host: bool,
    /// Which fields tell the origin about the client.
    pub forwarded: Forwarded,
    /// Our name in `Via` (RFC 9110 §7.6.3); `None`: no `Via`.
    pub via: Option<Token>,
    /// Fields set on requests.
    pub set_request_headers: Vec<SetField>,
    /// Fields removed from requests.
    pub remove_request_headers: Vec<Token>,
    /// Fields set on responses.
    pub set_response_headers: Vec<SetField>,
    /// Fields removed from responses.
    pub remove_response_headers: Vec<Token>,
}
